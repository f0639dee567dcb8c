//! Sections: added, emptied, used again.

use plenary_media_core::{Command, Event};
use plenary_model::{MediaKind, TrackSid};
use plenary_testkit::{ClientId, ClientOptions, World, seed};

use super::{Pair, SECOND, ms};

/// The newest offer to a subscriber as (mid, direction) of its sections.
fn offered(world: &World, id: ClientId) -> Vec<(String, String)> {
    let sdp = world.events.iter().rev().find_map(|(_, event)| match event {
        Event::Offered { peer, sdp } if *peer == id.subscriber() => Some(sdp.clone()),
        _ => None,
    });
    let sdp = sdp.expect("an offer was made");
    let word = |section: &str, words: &[&str]| {
        let found = section.lines().find_map(|line| words.iter().find(|word| line == format!("a={word}")));
        found.map_or(String::new(), |word| (*word).to_owned())
    };
    let sections = sdp.split("\r\nm=").skip(1);
    sections
        .map(|section| {
            let mid = section.lines().find_map(|line| line.strip_prefix("a=mid:")).expect("a mid").to_owned();
            (mid, word(section, &["sendonly", "inactive"]))
        })
        .collect()
}

fn directions(world: &World, id: ClientId) -> Vec<String> {
    offered(world, id).into_iter().map(|(_, direction)| direction).collect()
}

#[test]
fn unpublishing_empties_the_section_and_a_later_track_uses_it_again() {
    let Pair { mut world, ann, bob, audio, video } = Pair::flowing(81);
    assert_eq!(directions(&world, bob), ["", "sendonly", "sendonly"]);
    let old_ssrc = world.received(bob, &video).ssrc;
    world.events.clear();
    world.unpublish(&video);
    let gone = |event: &Event| matches!(event, Event::Answered { gone, .. } if *gone == [video.clone()]);
    assert_eq!(world.count_events(gone), 1);
    assert_eq!(
        world.count_events(|event| matches!(event, Event::OfferNeeded { peer } if *peer == bob.subscriber())),
        1
    );
    world.run_for(SECOND);
    assert_eq!(directions(&world, bob), ["", "sendonly", "inactive"]);

    let again = world.publish_video(ann);
    world.subscribe(bob, std::slice::from_ref(&again));
    world.run_for(2 * SECOND);
    assert_eq!(directions(&world, bob), ["", "sendonly", "sendonly"], "no section more");
    let seen = world.received(bob, &again);
    assert_ne!(seen.ssrc, old_ssrc);
    assert!(seen.packets.len() > 50);
    seen.assert_continuous_video();
    assert_eq!(world.received(bob, &audio).gaps(), 0);
}

#[test]
fn unsubscribing_stops_one_stream_and_no_other() {
    let Pair { mut world, bob, audio, video, .. } = Pair::flowing(82);
    world.unsubscribe(bob, &video);
    world.run_for(ms(100));
    let count = world.received(bob, &video).packets.len();
    world.run_for(SECOND);
    assert_eq!(world.received(bob, &video).packets.len(), count);
    assert_eq!(directions(&world, bob), ["", "sendonly", "inactive"]);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_for(SECOND);
    world.received(bob, &video).assert_continuous_video();
    assert!(world.received(bob, &video).packets.len() > 20);
    assert_eq!(world.received(bob, &audio).gaps(), 0);
}

#[test]
fn twenty_tracks_published_one_by_one_all_flow() {
    let mut world = World::seeded(seed(83));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    let mut tracks = Vec::new();
    for n in 0..20 {
        let kind = if n % 2 == 0 { MediaKind::Audio } else { MediaKind::Video };
        let track = world.publish(ann, kind, &[]);
        world.subscribe(bob, std::slice::from_ref(&track));
        tracks.push(track);
        world.run_for(ms(30));
    }
    world.run_for(SECOND);
    all_flow(&world, bob, &tracks);
}

#[test]
fn twenty_tracks_published_at_once_all_flow() {
    let mut world = World::seeded(seed(84));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    let tracks: Vec<_> = (0..20)
        .map(|n| {
            let kind = if n % 2 == 0 { MediaKind::Video } else { MediaKind::Audio };
            world.announce(ann, kind, &[])
        })
        .collect();
    world.offer_publisher(ann);
    world.subscribe(bob, &tracks);
    world.run_for(2 * SECOND);
    all_flow(&world, bob, &tracks);
    assert_eq!(world.counters().tracks.get(), 20);
}

#[test]
fn what_eight_people_publish_meanwhile_is_all_in_one_offer() {
    let mut world = World::seeded(seed(91));
    let bob = world.join_connected("bob");
    let people: Vec<_> = (0..8).map(|n| world.join_connected(&format!("p{n}"))).collect();
    world.negotiates = false;
    world.events.clear();
    let mut tracks = Vec::new();
    for person in people {
        tracks.extend([world.publish_audio(person), world.publish_video(person)]);
        world.subscribe(bob, &tracks);
        world.run_for(ms(5));
    }
    world.negotiates = true;
    world.make_offer(bob);
    world.run_for(SECOND);
    let to_bob = |event: &Event| matches!(event, Event::Offered { peer, .. } if *peer == bob.subscriber());
    assert_eq!(world.count_events(to_bob), 1);
    all_flow(&world, bob, &tracks);
}

fn all_flow(world: &World, id: ClientId, tracks: &[TrackSid]) {
    for track in tracks {
        let stream = world.received(id, track);
        assert!(stream.packets.len() >= 20, "{track}: {}", stream.packets.len());
        assert_eq!(stream.gaps(), 0, "{track}");
    }
    assert_eq!(offered(world, id).len(), tracks.len() + 1);
}

#[test]
fn a_track_withdrawn_while_its_offer_is_out_leaves_nothing_behind() {
    let mut world = World::seeded(seed(85));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    let audio = world.publish_audio(ann);
    world.negotiates = false;
    world.subscribe(bob, std::slice::from_ref(&audio));
    world.events.clear();
    world.unpublish(&audio);
    assert_eq!(
        world.count_events(|event| matches!(event, Event::OfferNeeded { .. })),
        0,
        "what was never offered needs no withdrawal"
    );
    assert_eq!(world.counters().subscriptions.get(), 0);
    world.negotiates = true;
    world.make_offer(bob);
    world.run_for(ms(100));
    assert_eq!(directions(&world, bob), [""]);
}

#[test]
fn a_client_that_cannot_decode_is_told_and_gets_the_rest() {
    let mut world = World::seeded(seed(86));
    let ann = world.join_connected("ann");
    let bob = world.join_connected_with("bob", ClientOptions { decodes_vp8: false, ..ClientOptions::default() });
    let (video, audio) = (world.publish_video(ann), world.publish_audio(ann));
    world.subscribe(bob, &[video.clone(), audio.clone()]);
    world.run_for(2 * SECOND);
    let told = |event: &Event| matches!(event, Event::Undecodable { track, .. } if *track == video);
    assert_eq!(world.count_events(told), 1);
    assert!(world.received(bob, &audio).packets.len() > 90);
    assert_eq!(world.received(bob, &audio).gaps(), 0, "the other stream's slot is its own");
    assert_eq!(world.received(bob, &video).packets.len(), 0);
    assert_eq!(world.counters().subscriptions.get(), 1);
}

#[test]
fn a_replaced_stream_goes_on_as_one() {
    let Pair { mut world, ann, bob, video, .. } = Pair::flowing(87);
    // As a browser does when its encoder starts anew: another SSRC in the same section.
    let stream = &mut world.source(&video).streams[0];
    stream.restart_with_ssrc(0x2222_2222);
    world.run_for(2 * SECOND);
    let seen = world.received(bob, &video);
    seen.assert_continuous_video();
    assert!(seen.since(world.now - SECOND).count() > 25);
    assert_eq!(world.counters().tracks.get(), 2);
    world.command(Command::Close { peer: ann.publisher() });
}

#[test]
fn who_cannot_decode_a_track_gets_its_backup_under_the_same_name_and_others_keep_the_first() {
    let mut world = World::seeded(seed(88));
    let (ann, cem) = (world.join_connected("ann"), world.join_connected("cem"));
    let options = ClientOptions { decodes_vp9: false, changes_codecs: true, ..ClientOptions::default() };
    let bob = world.join_connected_with("bob", options);
    let video = world.publish_svc_with_room_for_backup(ann);
    for viewer in [bob, cem] {
        world.subscribe(viewer, std::slice::from_ref(&video));
    }
    world.run_for(SECOND);
    let told = |event: &Event| matches!(event, Event::Undecodable { peer, track } if *peer == bob.subscriber() && *track == video);
    assert_eq!(world.count_events(told), 1);

    let backup = world.publish_backup(&video);
    world.subscribe_to_backup(bob, &video);
    world.run_for(2 * SECOND);
    let seen = world.received(bob, &video);
    assert!(seen.packets.len() > 40, "{}", world.story());
    assert_eq!(seen.stream_id, format!("PA_0|{video}"));
    seen.assert_continuous_video();
    assert_eq!(world.count_events(told), 1, "the other codec is another matter");
    let first = world.received(cem, &video);
    assert!(first.since(world.now - SECOND).count() > 25, "VP9 goes on");
    assert_eq!((first.payload_type, seen.payload_type), (98, 96));
    assert_eq!(demand(&world, &backup), Some(Some(0)));
    assert!(!world.story().contains("Closed"));
}

#[test]
fn who_is_moved_to_the_backup_goes_on_in_the_same_section_and_the_first_is_wanted_no_more() {
    let mut world = World::seeded(seed(89));
    let ann = world.join_connected("ann");
    let bob = world.join_connected_with("bob", ClientOptions { changes_codecs: true, ..ClientOptions::default() });
    let video = world.publish_svc_with_room_for_backup(ann);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_until_received(bob, &video, 10);
    let before = offered(&world, bob);
    assert_eq!(demand(&world, &video), Some(Some(2)));
    world.publish_backup(&video);
    world.subscribe_to_backup(bob, &video);
    world.run_for(2 * SECOND);
    assert_eq!(offered(&world, bob), before, "no section more, none less");
    let seen = world.received(bob, &video);
    assert_eq!(seen.payload_type, 96);
    assert!(seen.packets.len() > 40, "{}", world.story());
    seen.assert_continuous_video();
    assert_eq!(demand(&world, &video), Some(None));
}

#[test]
fn a_video_that_was_paused_in_one_codec_is_said_to_go_on_in_the_other() {
    let mut world = World::seeded(seed(90));
    let ann = world.join_connected("ann");
    let options = ClientOptions { changes_codecs: true, allows_pause: true, ..ClientOptions::default() };
    let bob = world.join_connected_with("bob", options);
    let video = world.publish_svc_with_room_for_backup(ann);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_until_received(bob, &video, 10);
    let backup = world.publish_backup(&video);
    let cap = |bits_per_second| Command::CapBandwidth { peer: bob.subscriber(), bits_per_second };
    let told = |world: &World, sid: &TrackSid, wanted: bool| {
        world.count_events(
            |event| matches!(event, Event::Paused { track, paused, .. } if track == sid && *paused == wanted),
        )
    };
    world.command(cap(1));
    world.run_for(SECOND);
    assert_eq!((told(&world, &video, true), told(&world, &video, false)), (1, 0));
    world.command(cap(0));
    world.subscribe_to_backup(bob, &video);
    world.run_for(SECOND);
    assert_eq!(told(&world, &video, false) + told(&world, &backup, true), 0);
    assert_eq!(told(&world, &backup, false), 1);
    assert!(world.received(bob, &video).packets.len() > 10);
}

/// The last word of the router on what of a track is wanted.
fn demand(world: &World, video: &TrackSid) -> Option<Option<u8>> {
    let of_it = |(_, event): &(_, Event)| match event {
        Event::Demand { track, top, .. } if track == video => Some(*top),
        _ => None,
    };
    world.events.iter().rev().find_map(of_it)
}
