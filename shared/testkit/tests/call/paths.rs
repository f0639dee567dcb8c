//! Addresses that change, and transports that come to an end.

use std::{cell::RefCell, rc::Rc};

use plenary_media_core::{DropReason, Event, PeerEnd};
use plenary_model::MediaKind;
use plenary_testkit::{Direction, World, seed};

use super::{Pair, SECOND, ms};

#[test]
fn ice_restarts_keep_the_session_and_its_media() {
    let mut pair = Pair::flowing(51);
    let connected = pair.world.count_events(|event| matches!(event, Event::Connected { .. }));
    pair.world.client(pair.ann).publisher.restart_ice();
    pair.world.offer_publisher(pair.ann);
    pair.world.restart_subscriber(pair.bob);
    let restarted = pair.world.events.iter().rev().find_map(|(_, event)| match event {
        Event::Answered { sdp, .. } => Some(sdp.clone()),
        _ => None,
    });
    assert!(!restarted.unwrap().contains("a=ice-ufrag:ours1\r"), "the answer has other credentials");
    let before = pair.received();
    pair.world.run_for(5 * SECOND);
    let after = pair.received();
    assert!(after.0 > before.0 + 230 && after.1 > before.1 + 140, "{before:?} and then {after:?}");
    assert_eq!(pair.world.received(pair.bob, &pair.audio).gaps(), 0);
    pair.world.received(pair.bob, &pair.video).assert_continuous_video();
    assert_eq!(pair.world.count_events(|event| matches!(event, Event::Connected { .. })), connected);
    pair.world.run_for(30 * SECOND);
    assert_eq!(pair.world.count_events(|event| matches!(event, Event::Closed { .. })), 0);
}

#[test]
fn clients_that_move_are_followed_mid_stream() {
    let mut pair = Pair::flowing(52);
    pair.world.rebind(pair.ann);
    pair.world.rebind(pair.bob);
    // This client's checks do not nominate again, so its old address must have been silent for a while.
    pair.world.run_for(10 * SECOND);
    let before = pair.received();
    pair.world.run_for(2 * SECOND);
    let after = pair.received();
    assert!(after.0 >= before.0 + 99 && after.1 >= before.1 + 60, "{before:?} and then {after:?}");
    // Media from the new address does not count before a check from there did.
    assert!(pair.world.counters().dropped(DropReason::UnknownAddress) > 0);
}

#[test]
fn a_wrong_fingerprint_ends_the_peer_before_anything_of_it_is_used() {
    let mut world = World::seeded(seed(53));
    let ann = world.join("ann");
    let bob = world.join_connected("bob");
    let track = world.announce(ann, MediaKind::Audio, &[]);
    let now = world.now;
    let sdp = world.client(ann).offer(now);
    let at = sdp.find("a=fingerprint:sha-256 ").unwrap() + "a=fingerprint:sha-256 ".len();
    let digit = if sdp.as_bytes()[at] == b'0' { "1" } else { "0" };
    let sdp = format!("{}{digit}{}", &sdp[..at], &sdp[at + 1..]);
    world.send_offer(ann, sdp);
    world.subscribe(bob, std::slice::from_ref(&track));
    world.run_until(5 * SECOND, |world| world.closed(ann.publisher()).is_some());
    assert_eq!(world.closed(ann.publisher()), Some(PeerEnd::WrongFingerprint));
    world.run_for(2 * SECOND);
    assert_eq!(world.counters().packets_in.get(), 0);
    assert_eq!(world.counters().packets_out.get(), 0);
    assert_eq!(world.count_events(|event| matches!(event, Event::Connected { peer } if *peer == ann.publisher())), 0);
}

#[test]
fn what_strangers_send_changes_nothing_and_is_counted_by_name() {
    let mut pair = Pair::flowing(54);
    let captured = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&captured);
    pair.world.network.set_filter(move |datagram| {
        if datagram.direction == Direction::Up {
            note.borrow_mut().push(datagram.clone());
        }
        true
    });
    pair.world.run_for(6 * SECOND);
    pair.world.network.clear_filter();
    let of = |first: std::ops::RangeInclusive<u8>| {
        let found = captured.borrow().iter().rev().find(|datagram| first.contains(&datagram.bytes[0])).cloned();
        found.expect("such a datagram was sent").bytes
    };
    let (check, media) = (of(0..=3), of(128..=191));
    let dtls = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let mut other_password = check.clone();
    let somewhere = other_password.len() - 12;
    other_password[somewhere] ^= 1;
    let mut other_ufrag = check.clone();
    // USERNAME is the first attribute of the other implementation's checks.
    let at = other_ufrag.windows(4).position(|bytes| bytes == b"ours").unwrap();
    other_ufrag[at] = b'x';

    let stranger = "203.0.113.66:666".parse().unwrap();
    let (before, peers) = (pair.received(), pair.world.counters().peers.get());
    for (name, bytes, reason) in [
        ("media", media, DropReason::UnknownAddress),
        ("a handshake", dtls, DropReason::UnknownAddress),
        ("a check with another password", other_password, DropReason::StunNotAuthenticated),
        ("a check for somebody else", other_ufrag, DropReason::UnknownUfrag),
        ("half a check", check[..30].to_vec(), DropReason::StunMalformed),
        ("nothing known", vec![100; 40], DropReason::UnknownProtocol),
        ("another router", vec![255; 40], DropReason::LinkDisabled),
        ("nothing", Vec::new(), DropReason::UnknownProtocol),
    ] {
        let dropped = pair.world.counters().dropped(reason);
        pair.world.inject(stranger, bytes);
        assert_eq!(pair.world.counters().dropped(reason), dropped + 1, "{name}");
    }
    pair.world.run_for(SECOND);
    let after = pair.received();
    assert!(after.0 >= before.0 + 49 && after.1 >= before.1 + 29, "media goes on where it went");
    assert_eq!(pair.world.counters().peers.get(), peers);
    pair.world.received(pair.bob, &pair.video).assert_continuous_video();
}

#[test]
fn a_handshake_from_an_address_without_a_check_gets_no_answer() {
    let mut world = World::seeded(seed(55));
    let hello = Rc::new(RefCell::new(None));
    let note = Rc::clone(&hello);
    world.network.set_filter(move |datagram| {
        let is_hello = datagram.direction == Direction::Up && datagram.bytes[0] == 22;
        if is_hello {
            note.borrow_mut().get_or_insert_with(|| datagram.bytes.clone());
        }
        !is_hello
    });
    let ann = world.join("ann");
    world.client(ann).publisher.open_channels();
    world.offer_publisher(ann);
    world.run_for(2 * SECOND);
    let hello = hello.borrow().clone().expect("a ClientHello was sent");
    let answered = Rc::new(RefCell::new(0));
    let count = Rc::clone(&answered);
    world.network.set_filter(move |datagram| {
        *count.borrow_mut() += usize::from(datagram.direction == Direction::Down && datagram.bytes[0] == 22);
        true
    });
    world.inject("203.0.113.66:666".parse().unwrap(), hello.clone());
    assert_eq!(world.counters().dropped(DropReason::UnknownAddress), 1);
    assert_eq!(*answered.borrow(), 0);
    let address = world.client(ann).publisher.public;
    world.inject(address, hello);
    assert!(*answered.borrow() > 0, "the same from the validated address is answered");
}

#[test]
fn a_client_that_falls_silent_is_closed_with_everything_it_published() {
    let mut pair = Pair::flowing(56);
    let address = pair.world.client(pair.ann).publisher.public;
    pair.world.network.set_filter(move |datagram| datagram.client != address);
    pair.world.events.clear();
    pair.world.run_until(60 * SECOND, |world| world.closed(pair.ann.publisher()).is_some());
    assert_eq!(pair.world.closed(pair.ann.publisher()), Some(PeerEnd::IceTimeout));
    let needed = |event: &Event| matches!(event, Event::OfferNeeded { peer } if *peer == pair.bob.subscriber());
    assert!(pair.world.count_events(needed) > 0);
    assert_eq!(pair.world.counters().tracks.get(), 0);
    pair.world.run_for(ms(100));
    assert_eq!(pair.world.closed(pair.bob.subscriber()), None);
}

#[test]
fn a_client_that_never_connects_is_closed() {
    let mut world = World::seeded(seed(57));
    world.network.set_filter(|_| false);
    let ann = world.join("ann");
    world.client(ann).publisher.open_channels();
    world.offer_publisher(ann);
    world.run_for(40 * SECOND);
    assert_eq!(world.closed(ann.publisher()), Some(PeerEnd::NeverConnected));
    assert_eq!(world.counters().peers.get(), 1, "the other transport was never described and waits");
}
