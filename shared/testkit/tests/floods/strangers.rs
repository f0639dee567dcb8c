//! Floods from addresses that may be forged, by people who have no key.

use plenary_media_core::DropReason;
use plenary_testkit::World;

use super::{Scene, stranger};

#[test]
fn checks_from_spoofed_addresses_are_answered_to_nobody_and_kept_by_nobody() {
    let mut scene = Scene::new(71);
    let address = scene.world.client(scene.ann).publisher.public;
    let check = scene.captured(address, 0..=3);
    let mut other_ufrag = check.clone();
    // USERNAME is the first attribute of the other implementation's checks.
    let at = other_ufrag.windows(4).position(|bytes| bytes == b"ours").unwrap();
    other_ufrag[at] = b'x';
    let mut forged = check.clone();
    let tag = forged.len() - 12;
    forged[tag] ^= 1;
    let victim = stranger(7);
    let answered = scene.bytes_to(victim);
    let before = [DropReason::UnknownUfrag, DropReason::StunNotAuthenticated, DropReason::StunMalformed]
        .map(|reason| (reason, scene.dropped(reason)));
    scene.under(|world, round| {
        for n in 0..50 {
            let from = if n == 0 { victim } else { stranger(round * 50 + n) };
            world.inject(from, other_ufrag.clone());
            world.inject(from, forged.clone());
            world.inject(from, check[..40].to_vec());
        }
    });
    for (reason, before) in before {
        assert_eq!(scene.dropped(reason) - before, 10_000, "{reason:?}");
    }
    assert_eq!(*answered.borrow(), 0);
}

/// Somebody in the call may repeat her own checks from any address she likes to forge.
#[test]
fn true_checks_from_spoofed_addresses_make_no_larger_answers_and_no_state() {
    let mut scene = Scene::new(72);
    let own = scene.world.client(scene.mallory).publisher.public;
    let check = scene.captured(own, 0..=3);
    let victim = stranger(7);
    let answered = scene.bytes_to(victim);
    scene.under(|world, round| {
        for n in 0..20 {
            world.inject(stranger(1_000 + round * 20 + n), check.clone());
        }
        world.inject(victim, check.clone());
        world.run_for(std::time::Duration::ZERO);
    });
    let (sent, got) = (200 * check.len(), *answered.borrow());
    assert!(got > 0 && got * 2 <= sent * 3, "{got} bytes for {sent}");
    // Neither does it take from others the addresses they use.
    let held = scene.dropped(DropReason::TooManyAddresses);
    for who in [scene.ann, scene.bob] {
        for address in [scene.world.client(who).publisher.public, scene.world.client(who).subscriber.public] {
            scene.world.inject(address, check.clone());
        }
    }
    assert_eq!(scene.dropped(DropReason::TooManyAddresses) - held, 4);
    let start = scene.world.now;
    scene.world.run_for(super::SECOND);
    scene.assert_undisturbed(start);
}

#[test]
fn hellos_from_spoofed_addresses_begin_no_handshake() {
    let mut scene = Scene::new(73);
    let hello = client_hello();
    let victim = stranger(7);
    let answered = scene.bytes_to(victim);
    let before = scene.dropped(DropReason::UnknownAddress);
    scene.under(|world, round| {
        for n in 0..50 {
            world.inject(if n == 0 { victim } else { stranger(round * 50 + n) }, hello.clone());
        }
    });
    assert_eq!(scene.dropped(DropReason::UnknownAddress) - before, 10_000);
    assert_eq!(*answered.borrow(), 0);
}

/// Whoever can forge the address of somebody in the call reaches that one's DTLS, which is up.
#[test]
fn hellos_and_cleartext_in_somebodys_name_change_nothing_once_they_are_connected() {
    let mut scene = Scene::new(74);
    let (hello, alert, data) = (client_hello(), record(21, &[2, 40]), record(23, b"in the clear"));
    let mut addresses = Vec::new();
    for who in [scene.ann, scene.bob] {
        let client = scene.world.client(who);
        addresses.extend([client.publisher.public, client.subscriber.public]);
    }
    let heard = |world: &World| world.count_events(|event| matches!(event, plenary_media_core::Event::Data { .. }));
    scene.under(|world, _| {
        for address in &addresses {
            for forged in [&hello, &alert, &data] {
                world.inject(*address, forged.clone());
            }
        }
    });
    assert_eq!(heard(&scene.world), 0);
}

#[test]
fn forged_streams_leave_no_state() {
    let mut scene = Scene::new(75);
    let address = scene.world.client(scene.ann).publisher.public;
    let media = scene.captured(address, 128..=191);
    let not_authentic = scene.dropped(DropReason::SrtpNotAuthentic);
    let unknown = scene.dropped(DropReason::UnknownAddress);
    scene.under(|world, round| {
        for n in 0..250 {
            let mut forged = media.clone();
            let ssrc = 0x5000_0000 + round * 250 + n;
            forged[1] &= 0x7f;
            forged[8..12].copy_from_slice(&ssrc.to_be_bytes());
            world.inject(address, forged.clone());
            world.inject(stranger(ssrc), forged);
        }
    });
    assert_eq!(scene.dropped(DropReason::SrtpNotAuthentic) - not_authentic, 50_000);
    assert_eq!(scene.dropped(DropReason::UnknownAddress) - unknown, 50_000);
}

#[test]
fn forged_feedback_is_neither_believed_nor_answered() {
    let mut scene = Scene::new(76);
    let address = scene.world.client(scene.bob).subscriber.public;
    // A receiver report with a key frame request behind it; the tag is made up.
    let mut forged = vec![0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 206, 0, 2, 0, 0, 0, 9, 0, 0, 0, 9];
    forged.extend([7; 16]);
    forged.extend(0x8000_0001_u32.to_be_bytes());
    let requests = scene.world.counters().keyframe_requests.get();
    let before = scene.dropped(DropReason::SrtcpNotAuthentic);
    scene.under(|world, round| {
        for n in 0..50 {
            let mut forged = forged.clone();
            let at = forged.len() - 4;
            forged[at..].copy_from_slice(&(0x8000_0001 + round * 50 + n).to_be_bytes());
            world.inject(address, forged);
        }
    });
    assert_eq!(scene.dropped(DropReason::SrtcpNotAuthentic) - before, 10_000);
    assert_eq!(scene.world.counters().keyframe_requests.get(), requests);
}

/// One DTLS record of epoch 0.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Offers the null cipher alone, as in the race for a session that was not ours to begin with.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0xfe, 0xfd];
    hello.extend([5; 32]);
    hello.extend([0, 0, 0, 2, 0, 0, 1, 0]);
    let mut body = vec![1, 0, 0, hello.len() as u8, 0, 0, 0, 0, 0, 0, 0, hello.len() as u8];
    body.extend(hello);
    record(22, &body)
}
