//! Simulcast: which layer a subscriber gets, and that nobody can see the seams.

use plenary_media_core::Event;
use plenary_model::{MediaKind, Quality, SubscriptionSettings, TrackSid};
use plenary_testkit::{ClientId, Conditions, Direction, World, seed};

use super::{SECOND, WISHES, ms, settings};

fn simulcast(of_test: u64) -> (World, ClientId, TrackSid) {
    let mut world = World::seeded(seed(of_test));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    let video = world.publish_simulcast(ann);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_until_received(bob, &video, 10);
    (world, bob, video)
}

fn newest_layer(world: &World, id: ClientId, track: &TrackSid) -> u8 {
    world.received(id, track).packets.values().next_back().unwrap().video().layer
}

#[test]
fn settings_choose_the_layer_and_switches_leave_no_seam() {
    let (mut world, bob, video) = simulcast(11);
    world.run_for(3 * SECOND);
    for (settings, layer) in WISHES {
        world.set_settings(bob, &video, settings);
        world.run_for(2 * SECOND);
        assert_eq!(newest_layer(&world, bob, &video), layer, "{settings:?}");
    }
    let seen = world.received(bob, &video);
    seen.assert_continuous_video();
    assert!(seen.since(world.now - 2 * SECOND).count() > 150, "three packets a frame");
}

#[test]
fn disabling_a_track_pauses_it_without_a_new_offer() {
    let (mut world, bob, video) = simulcast(12);
    world.events.clear();
    world.set_settings(bob, &video, SubscriptionSettings { disabled: true, ..SubscriptionSettings::default() });
    world.run_for(ms(100));
    let paused = world.received(bob, &video).packets.len();
    world.run_for(SECOND);
    assert_eq!(world.received(bob, &video).packets.len(), paused);
    world.set_settings(bob, &video, SubscriptionSettings::default());
    world.run_for(SECOND);
    assert!(world.received(bob, &video).packets.len() > paused + 20);
    world.received(bob, &video).assert_continuous_video();
    assert_eq!(world.count_events(|event| matches!(event, plenary_media_core::Event::OfferNeeded { .. })), 0);
}

#[test]
fn a_layer_that_stops_gives_way_to_the_one_below() {
    let (mut world, bob, video) = simulcast(13);
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, bob, &video), 2);
    world.source(&video).streams[2].active = false;
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, bob, &video), 1);
    world.source(&video).streams[2].active = true;
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, bob, &video), 2);
    world.received(bob, &video).assert_continuous_video();
}

/// The last word of the router on what of a track is wanted.
pub fn demand(world: &World, video: &TrackSid) -> Option<Option<u8>> {
    let of_it = |(_, event): &(_, Event)| match event {
        Event::Demand { track, top, .. } if track == video => Some(*top),
        _ => None,
    };
    world.events.iter().rev().find_map(of_it)
}

#[test]
fn the_publisher_hears_of_the_highest_layer_that_anybody_wants_sent_or_not() {
    let (mut world, bob, video) = simulcast(16);
    assert_eq!(demand(&world, &video), Some(Some(2)), "high is wished for by default");
    let cem = world.join_connected("cem");
    world.set_settings(bob, &video, settings(Quality::Low, 0, 0));
    assert_eq!(demand(&world, &video), Some(Some(0)));
    world.subscribe(cem, std::slice::from_ref(&video));
    world.set_settings(cem, &video, settings(Quality::High, 600, 330));
    assert_eq!(demand(&world, &video), Some(Some(1)), "of both");
    for stream in &mut world.source(&video).streams[1..] {
        stream.active = false;
    }
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, cem, &video), 0);
    assert_eq!(demand(&world, &video), Some(Some(1)), "what is not sent is wanted all the same");
    world.command(plenary_media_core::Command::SetMuted { track: video.clone(), muted: true });
    assert_eq!(demand(&world, &video), Some(None));
    world.command(plenary_media_core::Command::SetMuted { track: video.clone(), muted: false });
    assert_eq!(demand(&world, &video), Some(Some(1)));
    world.unsubscribe(cem, &video);
    assert_eq!(demand(&world, &video), Some(Some(0)));
    world.command(plenary_media_core::Command::Close { peer: bob.subscriber() });
    assert_eq!(demand(&world, &video), Some(None));
}

#[test]
fn each_subscriber_gets_its_own_layer() {
    let (mut world, bob, video) = simulcast(14);
    let cem = world.join_connected("cem");
    world.subscribe(cem, std::slice::from_ref(&video));
    world.set_settings(cem, &video, settings(Quality::Low, 0, 0));
    world.run_for(4 * SECOND);
    assert_eq!((newest_layer(&world, bob, &video), newest_layer(&world, cem, &video)), (2, 0));
    world.received(bob, &video).assert_continuous_video();
    world.received(cem, &video).assert_continuous_video();
}

#[test]
fn a_narrow_path_gets_a_layer_that_fits() {
    let (mut world, bob, video) = simulcast(15);
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, bob, &video), 2);
    let address = world.client(bob).subscriber.public;
    let narrow = Conditions { bits_per_second: Some(180_000), ..Conditions::default() };
    world.network.set(address, Direction::Down, narrow);
    world.run_for(10 * SECOND);
    assert!(newest_layer(&world, bob, &video) < 2, "layer {}", newest_layer(&world, bob, &video));
}

#[test]
fn layers_are_known_by_their_names_whatever_was_announced() {
    let two = settings(Quality::Low, 640, 360);
    for (name, announced, expected) in
        [("announced from high to low", 3, 1), ("announced as one", 1, 2), ("not announced", 0, 0)]
    {
        let mut world = World::seeded(seed(16));
        let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
        let video = world.announce(ann, MediaKind::Video, &["q", "h", "f"]);
        let layers = &mut world.announcement(&video).layers;
        layers.reverse();
        layers.truncate(announced);
        world.offer_publisher(ann);
        world.subscribe(bob, std::slice::from_ref(&video));
        world.set_settings(bob, &video, two);
        world.run_for(4 * SECOND);
        assert_eq!(newest_layer(&world, bob, &video), expected, "{name}");
        world.received(bob, &video).assert_continuous_video();
    }
}

#[test]
fn a_source_published_again_flows_though_its_packets_no_longer_name_it() {
    let (mut world, bob, video) = simulcast(17);
    world.source(&video).naming_packets = 50;
    world.run_for(3 * SECOND);
    let again = world.republish(&video);
    world.subscribe(bob, std::slice::from_ref(&again));
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, bob, &again), 2);
    world.received(bob, &again).assert_continuous_video();
    assert_eq!(world.counters().tracks.get(), 1);
}
