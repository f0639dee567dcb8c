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
