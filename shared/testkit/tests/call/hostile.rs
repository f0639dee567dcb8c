//! Damaged, forged and repeated media.

use std::{cell::RefCell, rc::Rc};

use plenary_media_core::DropReason;
use plenary_testkit::{Datagram, Direction, World};

use super::{Pair, SECOND};

/// What ann's publisher sends as media in a second, with a copy of it.
fn capture(world: &mut World) -> Vec<Datagram> {
    let captured = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&captured);
    world.network.set_filter(move |datagram| {
        let is_rtp = datagram.bytes[0] >> 6 == 2 && !(192..=223).contains(&datagram.bytes[1]);
        if datagram.direction == Direction::Up && is_rtp {
            note.borrow_mut().push(datagram.clone());
        }
        true
    });
    world.run_for(SECOND);
    world.network.clear_filter();
    // The last of it arrives.
    world.run_for(SECOND / 10);
    captured.take()
}

#[test]
fn damaged_media_is_dropped_by_name_and_a_bystander_keeps_every_frame() {
    let Pair { mut world, bob, audio, video, .. } = Pair::flowing(61);
    let cem = world.join_connected("cem");
    let theirs = world.publish_video(cem);
    world.subscribe(bob, std::slice::from_ref(&theirs));
    world.run_until_received(bob, &theirs, 10);
    let captured = capture(&mut world);
    let of_ann = captured.iter().map(|datagram| datagram.client).min().unwrap();
    let captured: Vec<_> = captured.into_iter().filter(|datagram| datagram.client == of_ann).collect();
    let sources = [audio, video];
    let sound = |world: &World| {
        let gaps = sources.iter().map(|track| world.received(bob, track).gaps()).sum::<u64>();
        world.received(bob, &theirs).assert_continuous_video();
        gaps
    };

    let count = captured.len() as u64;
    assert!(count > 70);
    let before = world.counters().dropped(DropReason::SrtpReplayed);
    for datagram in &captured {
        world.inject(datagram.client, datagram.bytes.clone());
    }
    assert_eq!(world.counters().dropped(DropReason::SrtpReplayed), before + count, "replayed");

    let (before, packets) = (world.counters().dropped(DropReason::SrtpNotAuthentic), world.counters().packets_in.get());
    for datagram in &captured {
        // A number far ahead of all that came, so that it is no repetition; the tag does not fit it.
        let mut forged = datagram.bytes.clone();
        forged[2] = forged[2].wrapping_add(0x20);
        world.inject(datagram.client, forged);
        let mut damaged = datagram.bytes.clone();
        let at = world.random().below(damaged.len() as u64 - 12) as usize + 12;
        damaged[2] = damaged[2].wrapping_add(0x10);
        damaged[at] ^= 1 << world.random().below(8);
        world.inject(datagram.client, damaged);
        // Another SSRC: nothing is kept of it.
        let mut stranger = datagram.bytes.clone();
        stranger[8..12].copy_from_slice(&world.random().number().to_be_bytes()[..4]);
        world.inject(datagram.client, stranger);
    }
    let refused = world.counters().dropped(DropReason::SrtpNotAuthentic) - before
        + world.counters().dropped(DropReason::RtpMalformed);
    assert_eq!(refused, 3 * count, "forged");

    for length in 1..captured[0].bytes.len() {
        let mut short = captured[0].bytes[..length].to_vec();
        if let Some(sequence) = short.get_mut(2) {
            *sequence = sequence.wrapping_add(0x20);
        }
        world.inject(captured[0].client, short);
    }
    assert_eq!(world.counters().packets_in.get(), packets, "none of it came through");
    world.run_for(SECOND);
    assert_eq!(sound(&world), 0);
    assert!(world.received(bob, &theirs).since(world.now - SECOND).count() >= 29);
}

#[test]
fn damaged_datagrams_of_every_kind_end_nobody() {
    let Pair { mut world, ann, bob, video, .. } = Pair::flowing(62);
    let all = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&all);
    world.network.set_filter(move |datagram| {
        if datagram.direction == Direction::Up {
            note.borrow_mut().push(datagram.clone());
        }
        true
    });
    let now = world.now;
    world.client(ann).send_data(now, plenary_model::Channel::Reliable, &[1; 3_000]);
    world.run_for(4 * SECOND);
    world.network.clear_filter();
    for _ in 0..3_000 {
        let pick = world.random().below(all.borrow().len() as u64) as usize;
        let Datagram { client, mut bytes, .. } = all.borrow()[pick].clone();
        for _ in 0..=world.random().below(3) {
            let at = world.random().below(bytes.len() as u64) as usize;
            bytes[at] = world.random().number() as u8;
        }
        bytes.truncate(world.random().below(2 * bytes.len() as u64) as usize);
        world.inject(client, bytes);
    }
    world.run_for(2 * SECOND);
    assert_eq!(world.count_events(|event| matches!(event, plenary_media_core::Event::Closed { .. })), 0);
    world.received(bob, &video).assert_continuous_video();
    assert!(world.received(bob, &video).since(world.now - SECOND).count() >= 29);
}
