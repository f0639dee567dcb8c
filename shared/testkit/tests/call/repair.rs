//! Lost packets, on either side of the router.

use std::{cell::RefCell, rc::Rc};

use plenary_model::TrackSid;
use plenary_testkit::{ClientOptions, Conditions, Datagram, Direction, World, seed};

use super::{Pair, SECOND, ms};

/// SSRC and sequence number, which SRTP leaves in the clear.
fn rtp(datagram: &Datagram) -> Option<(u32, u16)> {
    let is_rtp = datagram.bytes.first()? >> 6 == 2 && !(192..=223).contains(datagram.bytes.get(1)?);
    let sequence = u16::from_be_bytes(datagram.bytes.get(2..4)?.try_into().ok()?);
    let ssrc = u32::from_be_bytes(datagram.bytes.get(8..12)?.try_into().ok()?);
    is_rtp.then_some((ssrc, sequence))
}

/// Loses the next datagram in this direction with this SSRC, and says later which that was.
pub(super) fn lose_next(world: &mut World, direction: Direction, ssrc: u32) -> Rc<RefCell<Option<u16>>> {
    let lost = Rc::new(RefCell::new(None));
    let note = Rc::clone(&lost);
    world.network.set_filter(move |datagram| match rtp(datagram) {
        Some((of, sequence)) if of == ssrc && datagram.direction == direction && note.borrow().is_none() => {
            *note.borrow_mut() = Some(sequence);
            false
        }
        _ => true,
    });
    lost
}

fn asks_and_gets(options: ClientOptions, of_test: u64) -> (World, plenary_testkit::ClientId, TrackSid) {
    let mut world = World::seeded(seed(of_test));
    let ann = world.join_connected("ann");
    let bob = world.join_connected_with("bob", ClientOptions { sends_nacks: false, ..options });
    let video = world.publish_video(ann);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_until_received(bob, &video, 10);
    let ssrc = world.received(bob, &video).ssrc;
    let lost = lose_next(&mut world, Direction::Down, ssrc);
    world.run_for(ms(200));
    let lost = lost.borrow().expect("a packet was lost");
    assert_eq!(world.received(bob, &video).gaps(), 1);
    world.client(bob).inbox.request_packets(ssrc, &[lost]);
    world.run_for(ms(200));
    assert_eq!(world.received(bob, &video).gaps(), 0);
    world.received(bob, &video).assert_continuous_video();
    (world, bob, video)
}

#[test]
fn a_subscribers_nack_is_answered_over_rtx() {
    let (world, bob, video) = asks_and_gets(ClientOptions::default(), 21);
    assert_eq!(world.received(bob, &video).repaired_over_rtx(), 1);
    assert_eq!((world.counters().nacks_received.get(), world.counters().retransmitted.get()), (1, 1));
}

#[test]
fn a_subscribers_nack_is_answered_plainly_without_rtx() {
    let (world, bob, video) = asks_and_gets(ClientOptions { has_rtx: false, ..ClientOptions::default() }, 22);
    assert_eq!(world.received(bob, &video).repaired_over_rtx(), 0);
    assert_eq!(world.counters().retransmitted.get(), 1);
}

#[test]
fn on_a_path_that_loses_much_audio_is_sent_twice_unasked() {
    let mut world = World::seeded(seed(24));
    let ann = world.join_connected("ann");
    let bob = world.join_connected_with("bob", ClientOptions { sends_nacks: false, ..ClientOptions::default() });
    let audio = world.publish_audio(ann);
    world.subscribe(bob, std::slice::from_ref(&audio));
    world.run_until_received(bob, &audio, 10);
    let missing = |world: &World| {
        let received = world.received(bob, &audio);
        received.gaps() as f64 / received.packets.len() as f64
    };
    world.network.set_everywhere(Conditions::lossy(0.1));
    world.run_for(20 * SECOND);
    assert!(missing(&world) < 0.05, "{} instead of a tenth", missing(&world));
    world.network.set_everywhere(Conditions::default());
    world.run_for(25 * SECOND);
    let repeated = world.counters().retransmitted.get();
    world.run_for(5 * SECOND);
    assert_eq!(world.counters().retransmitted.get(), repeated, "not once the path is good again");
}

#[test]
fn lost_audio_is_repaired_plainly() {
    let mut pair = Pair::flowing(23);
    let ssrc = pair.world.received(pair.bob, &pair.audio).ssrc;
    lose_next(&mut pair.world, Direction::Down, ssrc);
    pair.world.run_for(ms(300));
    assert_eq!(pair.world.received(pair.bob, &pair.audio).gaps(), 0);
    assert_eq!(pair.world.counters().retransmitted.get(), 1);
}

#[test]
fn loss_from_a_publisher_is_asked_for_and_the_repair_is_forwarded() {
    for (name, rids) in [("a single stream", &[][..]), ("simulcast", &["q", "h", "f"])] {
        let mut world = World::seeded(seed(24));
        let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
        let video = world.publish(ann, plenary_model::MediaKind::Video, rids);
        world.subscribe(bob, std::slice::from_ref(&video));
        world.run_for(3 * SECOND);
        let ssrc = world.source(&video).streams.last().unwrap().ssrc;
        let lost = lose_next(&mut world, Direction::Up, ssrc);
        world.run_for(ms(300));
        let lost = lost.borrow().expect("a packet was lost");
        let stream = &world.source(&video).streams.last().unwrap();
        assert_eq!(stream.nacks.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [lost], "{name}");
        let seen = world.received(bob, &video);
        seen.assert_continuous_video();
        assert_eq!(seen.packets.values().next_back().unwrap().video().layer, rids.len().saturating_sub(1) as u8);
        assert_eq!(world.counters().nacks_sent.get(), 1, "{name}");
    }
}

#[test]
fn a_repair_without_rtx_is_forwarded_too() {
    let mut world = World::seeded(seed(25));
    let plain = ClientOptions { has_rtx: false, ..ClientOptions::default() };
    let (ann, bob) = (world.join_connected_with("ann", plain), world.join_connected("bob"));
    let video = world.publish_simulcast(ann);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_for(3 * SECOND);
    let ssrc = world.source(&video).streams[2].ssrc;
    lose_next(&mut world, Direction::Up, ssrc);
    world.run_for(ms(300));
    assert_eq!(world.source(&video).streams[2].nacks.len(), 1);
    world.received(bob, &video).assert_continuous_video();
}

#[test]
fn five_percent_loss_each_way_still_delivers_nearly_everything() {
    let mut pair = Pair::flowing(26);
    let start = pair.world.now;
    let (sent_audio, sent_video) = sent(&mut pair);
    pair.world.network.set_everywhere(Conditions {
        loss: 0.05,
        jitter: ms(3),
        reorder: 0.01,
        duplicate: 0.01,
        ..Conditions::default()
    });
    pair.world.run_for(20 * SECOND);
    pair.world.network.set_everywhere(Conditions::default());
    pair.world.run_for(SECOND);
    let (audio, video) = sent(&mut pair);
    for (name, track, sent) in [("audio", &pair.audio, audio - sent_audio), ("video", &pair.video, video - sent_video)]
    {
        let stream = pair.world.received(pair.bob, track);
        let arrived = stream.since(start).count();
        assert!(arrived * 100 >= sent as usize * 99, "{name}: {arrived} of {sent}, {} gaps", stream.gaps());
    }
    assert!(pair.world.counters().nacks_sent.get() > 20);
    assert!(pair.world.received(pair.bob, &pair.video).repaired_over_rtx() > 20);
}

fn sent(pair: &mut Pair) -> (u32, u32) {
    let (audio, video) = (pair.audio.clone(), pair.video.clone());
    (pair.world.source(&audio).streams[0].packets, pair.world.source(&video).streams[0].packets)
}
