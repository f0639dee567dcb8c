//! What a recording gets of a track.

use std::collections::BTreeMap;

use plenary_media_core::{Command, TapItem};
use plenary_model::TrackSid;
use plenary_testkit::{Conditions, VideoPayload, World, seed};

use super::{SECOND, layers::demand, ms};

fn tap(world: &mut World, track: &TrackSid) {
    world.command(Command::Tap { track: track.clone(), from: None });
}

/// Timestamps and payloads by number, which never goes round in these tests. All of one stream.
fn packets(world: &World, of: &TrackSid) -> BTreeMap<u16, (u32, Vec<u8>)> {
    let mut streams: Vec<u32> = Vec::new();
    let mut packets = BTreeMap::new();
    for item in world.tapped.iter().filter(|one| one.track == *of).map(|one| &one.item) {
        let TapItem::Packet { ssrc, sequence, timestamp, payload, .. } = item else { continue };
        streams.push(*ssrc);
        let again = packets.insert(*sequence, (*timestamp, payload.to_vec()));
        assert!(again.is_none(), "{sequence} came twice");
    }
    streams.dedup();
    assert!(streams.len() <= 1, "{streams:?}");
    packets
}

/// No number is missing, and time goes on by less than it takes to notice that a layer stopped.
fn assert_whole(packets: &BTreeMap<u16, (u32, Vec<u8>)>) {
    for (one, next) in packets.keys().zip(packets.keys().skip(1)) {
        assert_eq!(one + 1, *next, "of {}", packets.len());
        let elapsed = packets[next].0.wrapping_sub(packets[one].0);
        assert!(elapsed < 2 * 90_000, "from {one} to {next} {elapsed} ticks passed");
    }
}

/// Besides, no picture is missing, and another layer begins with a key frame.
fn assert_seamless(packets: &BTreeMap<u16, (u32, Vec<u8>)>) {
    assert_whole(packets);
    let starts: Vec<_> = packets.values().map(video).filter(|one| one.starts_frame).collect();
    assert!(starts[0].keyframe);
    for (one, next) in starts.iter().zip(&starts[1..]) {
        assert_eq!(one.picture_id.wrapping_add(1) & 0x7fff, next.picture_id);
        assert!(one.layer == next.layer || next.keyframe, "{one:?}, {next:?}");
    }
}

fn video((_, payload): &(u32, Vec<u8>)) -> VideoPayload {
    VideoPayload::read(payload).unwrap()
}

#[test]
fn a_tap_brings_all_of_the_highest_layer_from_a_key_frame_on_though_nobody_watches() {
    let mut world = World::seeded(seed(90));
    let ann = world.join_connected("ann");
    let (sound, picture) = (world.publish_audio(ann), world.publish_simulcast(ann));
    world.run_for(SECOND);
    tap(&mut world, &sound);
    tap(&mut world, &picture);
    world.run_for(8 * SECOND);
    assert_eq!(demand(&world, &picture), Some(Some(2)));
    let heard = packets(&world, &sound);
    assert!((395..=402).contains(&heard.len()), "{}", heard.len());
    assert_whole(&heard);
    let seen = packets(&world, &picture);
    assert_eq!(video(seen.values().next_back().unwrap()).layer, 2);
    assert_seamless(&seen);
    let reports = world.tapped.iter().filter(|one| matches!(one.item, TapItem::Report { .. }));
    assert!(reports.count() >= 4, "each stream is reported more than once");
}

#[test]
fn what_is_lost_on_the_way_to_the_router_comes_late_and_what_stops_gives_way() {
    let mut world = World::seeded(seed(91));
    let ann = world.join_connected("ann");
    let picture = world.publish_simulcast(ann);
    tap(&mut world, &picture);
    world.run_for(4 * SECOND);
    world.network.set_everywhere(Conditions { loss: 0.05, delay: ms(20), ..Conditions::default() });
    world.run_for(10 * SECOND);
    world.network.set_everywhere(Conditions::default());
    world.run_for(2 * SECOND);
    let seen = packets(&world, &picture);
    assert_seamless(&seen);
    assert_eq!(video(seen.values().next_back().unwrap()).layer, 2);
    world.source(&picture).streams[2].active = false;
    world.run_for(3 * SECOND);
    let seen = packets(&world, &picture);
    assert_eq!(video(seen.values().next_back().unwrap()).layer, 1);
    assert_seamless(&seen);
}

#[test]
fn a_tap_asks_for_a_key_frame_when_told_and_wants_nothing_once_it_has_ended() {
    let mut world = World::seeded(seed(92));
    let ann = world.join_connected("ann");
    let picture = world.publish_video(ann);
    tap(&mut world, &picture);
    world.run_for(3 * SECOND);
    let before = world.source(&picture).streams[0].keyframe_requests.len();
    world.command(Command::RefreshTap { track: picture.clone() });
    world.run_for(SECOND);
    assert_eq!(world.source(&picture).streams[0].keyframe_requests.len(), before + 1);
    world.command(Command::Untap { track: picture.clone() });
    let tapped = world.tapped.len();
    world.run_for(SECOND);
    assert_eq!(world.tapped.len(), tapped);
    assert_eq!(demand(&world, &picture), Some(None));
}

#[test]
fn a_mute_is_a_gap_in_time_and_not_in_numbers() {
    let mut world = World::seeded(seed(93));
    let ann = world.join_connected("ann");
    let picture = world.publish_video(ann);
    tap(&mut world, &picture);
    world.run_for(2 * SECOND);
    world.command(Command::SetMuted { track: picture.clone(), muted: true });
    let muted = packets(&world, &picture).len();
    world.run_for(2 * SECOND);
    assert!(packets(&world, &picture).len() <= muted + 3, "what was on its way");
    world.command(Command::SetMuted { track: picture.clone(), muted: false });
    world.run_for(2 * SECOND);
    let seen = packets(&world, &picture);
    assert!(seen.len() > muted + 50);
    let numbers: Vec<u16> = seen.keys().copied().collect();
    assert!(numbers.iter().zip(&numbers[1..]).all(|(one, next)| one + 1 == *next));
    let longest = seen.values().zip(seen.values().skip(1)).map(|(one, next)| next.0.wrapping_sub(one.0)).max().unwrap();
    assert!((170_000..220_000).contains(&longest), "{longest} ticks");
}
