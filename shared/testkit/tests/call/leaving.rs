//! What is left of somebody who left: nothing.

use plenary_media_core::{Command, Event};
use plenary_testkit::{World, seed};

use super::{Pair, SECOND, ms};

#[test]
fn closing_peers_removes_everything_of_them() {
    let Pair { mut world, ann, bob, audio, video } = Pair::flowing(71);
    let counts = |world: &World| {
        let counters = world.counters();
        (counters.peers.get(), counters.tracks.get(), counters.subscriptions.get())
    };
    assert_eq!(counts(&world), (4, 2, 2));
    world.command(Command::Close { peer: ann.publisher() });
    world.run_for(SECOND);
    assert_eq!(counts(&world), (3, 0, 0));
    let gone = world.received(bob, &audio).packets.len() + world.received(bob, &video).packets.len();
    world.run_for(SECOND);
    assert_eq!(world.received(bob, &audio).packets.len() + world.received(bob, &video).packets.len(), gone);
    for peer in [ann.subscriber(), bob.subscriber(), bob.publisher()] {
        world.command(Command::Close { peer });
    }
    assert_eq!(counts(&world), (0, 0, 0));
    world.run_for(ms(100));
    assert_eq!(world.count_events(|event| matches!(event, Event::Closed { .. })), 0, "who was told to is not told");
}

#[test]
fn a_subscriber_that_leaves_costs_its_publisher_nothing_more() {
    let Pair { mut world, bob, video, .. } = Pair::flowing(72);
    world.command(Command::Close { peer: bob.subscriber() });
    let out = world.counters().packets_out.get();
    let asked = world.source(&video).streams[0].keyframe_requests.len();
    world.run_for(3 * SECOND);
    assert_eq!(world.counters().packets_out.get(), out);
    assert_eq!(world.counters().subscriptions.get(), 0);
    assert_eq!(world.source(&video).streams[0].keyframe_requests.len(), asked);
}

#[test]
fn those_who_come_after_get_the_places_of_those_who_left() {
    let mut world = World::seeded(seed(73));
    let ann = world.join_connected("ann");
    let audio = world.publish_audio(ann);
    for round in 0..5 {
        let guest = world.join_connected(&format!("guest {round}"));
        world.subscribe(guest, std::slice::from_ref(&audio));
        world.run_until_received(guest, &audio, 20);
        assert_eq!(world.received(guest, &audio).gaps(), 0);
        for peer in [guest.subscriber(), guest.publisher()] {
            world.command(Command::Close { peer });
        }
        assert_eq!(world.counters().peers.get(), 2);
    }
}
