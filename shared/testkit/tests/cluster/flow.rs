//! Media between routers: each layer once, and only while it is wanted.

use std::time::Duration;

use plenary_media_core::{Command, Event, LinkEnd};
use plenary_model::{Quality, SubscriptionSettings, TrackSid};
use plenary_testkit::{Cluster, SvcPayload, seed};

use super::{Apart, SECOND, link_events};

const LOW: SubscriptionSettings = settings(Quality::Low);
const HIGH: SubscriptionSettings = settings(Quality::High);
const PAUSED: SubscriptionSettings = SubscriptionSettings { disabled: true, ..HIGH };

const fn settings(quality: Quality) -> SubscriptionSettings {
    SubscriptionSettings { disabled: false, quality, width: 0, height: 0, fps: 0, priority: 0 }
}

#[test]
fn audio_and_video_of_another_router_arrive_whole_and_once() {
    let mut apart = Apart::flowing(101);
    let cem = apart.cluster.join(1, "cem");
    let tracks = [apart.audio.clone(), apart.video.clone()];
    apart.cluster.subscribe(1, cem, 0, &tracks);
    apart.cluster.run_for(2 * SECOND);
    // As a camera has it, so that what routers say besides does not matter.
    apart.cluster.worlds[0].source(&tracks[1]).set_rates(&[1_500_000]);
    let counters = apart.cluster.worlds[0].counters();
    let (before, came) = (counters.link_bytes_out.get(), counters.bytes_in.get());
    apart.cluster.run_for(5 * SECOND);
    let (crossed, came) = (counters.link_bytes_out.get() - before, counters.bytes_in.get() - came);
    assert!(
        crossed < came + came / 10,
        "{crossed} bytes crossed of {came} that came in: each packet once, for two people"
    );
    for id in [apart.bob, cem] {
        apart.cluster.worlds[1].received(id, &apart.video).assert_continuous_video();
        assert_eq!(apart.cluster.worlds[1].received(id, &apart.audio).gaps(), 0);
    }
    assert_eq!(apart.seen().stream_id, format!("PA_0_0|{}", apart.video));
    assert!(apart.heard().sender_reports.len() + apart.seen().sender_reports.len() >= 2, "both can be kept in step");
    assert_eq!((link_events(&apart.cluster, 0), link_events(&apart.cluster, 1)), (vec![None], vec![None]));
    assert!(counters.link_rtt_us.get().abs_diff(10_000) < 1_500, "{} us", counters.link_rtt_us.get());
}

#[test]
fn payloads_cross_unchanged() {
    let mut apart = Apart::flowing(102);
    apart.cluster.run_for(SECOND);
    let first = &apart.heard().packets.values().next().unwrap().payload;
    let first = u32::from_be_bytes(first[1..5].try_into().unwrap());
    for (packet, frame) in apart.heard().packets.values().zip(first..) {
        assert_eq!(packet.payload[..5], [&b"A"[..], &frame.to_be_bytes()].concat());
    }
}

#[test]
fn a_layer_crosses_only_while_somebody_wants_it() {
    let mut apart = Apart::simulcast(103);
    apart.cluster.run_for(4 * SECOND);
    let (bob, video) = (apart.bob, apart.video.clone());
    let layer = |apart: &Apart| apart.seen().packets.values().next_back().unwrap().video().layer;
    assert_eq!(layer(&apart), 2);
    let high = apart.link_bytes(2 * SECOND);
    apart.cluster.worlds[1].set_settings(bob, &video, LOW);
    apart.cluster.run_for(2 * SECOND);
    assert_eq!(layer(&apart), 0);
    let low = apart.link_bytes(2 * SECOND);
    let cem = apart.cluster.join(1, "cem");
    apart.cluster.subscribe(1, cem, 0, std::slice::from_ref(&video));
    apart.cluster.run_for(4 * SECOND);
    let both = apart.link_bytes(2 * SECOND);
    apart.cluster.worlds[1].set_settings(bob, &video, PAUSED);
    apart.cluster.worlds[1].unsubscribe(cem, &video);
    apart.cluster.run_for(SECOND);
    let none = apart.link_bytes(2 * SECOND);
    assert!(low * 2 < high && high < both && both < high + low, "{high} high, {low} low, {both} both");
    assert!(none * 2 < low, "{none} bytes of audio and what routers say, {low} with the lowest layer");
    apart.cluster.worlds[1].set_settings(bob, &video, HIGH);
    apart.cluster.run_for(3 * SECOND);
    assert_eq!(layer(&apart), 2);
    apart.seen().assert_continuous_video();
}

/// The last word of the first router to its publisher about what is wanted.
fn demand(cluster: &Cluster, video: &TrackSid) -> Option<Option<u8>> {
    let of_it = |(_, event): &(std::time::Instant, Event)| match event {
        Event::Demand { track, top, .. } if track == video => Some(*top),
        _ => None,
    };
    cluster.worlds[0].events.iter().rev().find_map(of_it)
}

#[test]
fn the_publisher_hears_what_is_wanted_anywhere() {
    let mut apart = Apart::simulcast(104);
    let (bob, video) = (apart.bob, apart.video.clone());
    assert_eq!(demand(&apart.cluster, &video), Some(Some(2)));
    for (settings, expected) in [(LOW, Some(0)), (PAUSED, None), (HIGH, Some(2))] {
        apart.cluster.worlds[1].set_settings(bob, &video, settings);
        apart.cluster.run_for(SECOND / 5);
        assert_eq!(demand(&apart.cluster, &video), Some(expected));
    }
    let dan = apart.cluster.join(0, "dan");
    apart.cluster.subscribe(0, dan, 0, std::slice::from_ref(&video));
    apart.cluster.worlds[1].unsubscribe(bob, &video);
    apart.cluster.run_for(SECOND / 5);
    assert_eq!(demand(&apart.cluster, &video), Some(Some(2)), "dan wants it here");
    apart.cluster.worlds[0].unsubscribe(dan, &video);
    assert_eq!(demand(&apart.cluster, &video), Some(None));
}

#[test]
fn a_layer_that_its_publisher_ends_gives_way_on_the_other_router_too() {
    let mut apart = Apart::simulcast(105);
    apart.cluster.run_for(4 * SECOND);
    let video = apart.video.clone();
    let layer = |apart: &Apart| apart.seen().packets.values().next_back().unwrap().video().layer;
    for (active, expected) in [(false, 1), (true, 2)] {
        apart.cluster.worlds[0].source(&video).streams[2].active = active;
        apart.cluster.run_for(4 * SECOND);
        assert_eq!(layer(&apart), expected);
    }
    apart.seen().assert_continuous_video();
}

#[test]
fn mute_stops_and_unmute_goes_on() {
    let mut apart = Apart::flowing(106);
    let video = apart.video.clone();
    let command = |muted| Command::SetMuted { track: video.clone(), muted };
    apart.cluster.worlds[0].command(command(true));
    apart.cluster.run_for(2 * SECOND);
    assert_eq!(apart.last_second().1, 0);
    apart.cluster.worlds[0].command(command(false));
    apart.cluster.run_for(2 * SECOND);
    apart.assert_flows();
    apart.seen().assert_continuous_video();
}

#[test]
fn an_ended_track_ends_there_too_and_comes_back_when_it_is_published_again() {
    let mut apart = Apart::flowing(107);
    let (ann, video) = (apart.ann, apart.video.clone());
    let tracks = apart.cluster.worlds[1].counters().tracks.get();
    apart.cluster.worlds[0].command(Command::Unpublish { track: video.clone() });
    apart.cluster.run_for(SECOND / 5);
    let counters = apart.cluster.worlds[1].counters();
    assert_eq!(counters.tracks.get(), tracks - 1);
    apart.cluster.run_for(2 * SECOND);
    assert_eq!(apart.last_second().1, 0);
    // The section is another's meanwhile: a client does not offer what it was agreed to send already.
    let other = apart.cluster.worlds[0].republish(&video);
    apart.cluster.run_for(SECOND / 5);
    apart.cluster.worlds[0].command(Command::Unpublish { track: other });
    apart.cluster.worlds[0].announce_again(&video);
    apart.cluster.worlds[0].offer_publisher(ann);
    apart.cluster.run_for(2 * SECOND);
    apart.assert_flows();
}

#[test]
fn what_nobody_wants_any_more_is_forgotten() {
    let mut apart = Apart::flowing(108);
    let bob = apart.bob;
    for track in [apart.audio.clone(), apart.video.clone()] {
        apart.cluster.worlds[1].unsubscribe(bob, &track);
    }
    apart.cluster.run_for(3 * SECOND);
    let (here, there) = (apart.cluster.worlds[0].counters(), apart.cluster.worlds[1].counters());
    assert_eq!((there.tracks.get(), there.link_pulls.get(), here.link_wants.get()), (0, 0, 0));
    assert!(apart.link_bytes(10 * SECOND) < 10 * 250, "a ping and its answer a second");
    let tracks = [apart.audio.clone(), apart.video.clone()];
    apart.cluster.subscribe(1, bob, 0, &tracks);
    apart.cluster.run_for(2 * SECOND);
    apart.assert_flows();
}

#[test]
fn a_link_that_nobody_needs_is_closed_and_opened_again_on_demand() {
    let mut apart = Apart::flowing(115);
    let bob = apart.bob;
    let tracks = [apart.audio.clone(), apart.video.clone()];
    tracks.iter().for_each(|track| apart.cluster.worlds[1].unsubscribe(bob, track));
    apart.cluster.run_for(30 * SECOND);
    assert_eq!((link_events(&apart.cluster, 0), link_events(&apart.cluster, 1)), (vec![None], vec![None]), "not yet");
    apart.cluster.run_for(4 * SECOND);
    let idle = vec![None, Some(LinkEnd::Idle)];
    assert_eq!((link_events(&apart.cluster, 0), link_events(&apart.cluster, 1)), (idle.clone(), idle));
    let said = apart.cluster.history.len();
    apart.cluster.run_for(20 * SECOND);
    assert_eq!(apart.cluster.history.len(), said, "nothing is said any more");
    apart.cluster.subscribe(1, bob, 0, &tracks);
    apart.cluster.run_for(2 * SECOND);
    apart.assert_flows();
}

#[test]
fn a_link_that_is_closed_just_when_it_is_needed_comes_back() {
    for before in [0, 12, 200] {
        let mut apart = Apart::flowing(116);
        let bob = apart.bob;
        let video = apart.video.clone();
        for track in [apart.audio.clone(), video.clone()] {
            apart.cluster.worlds[1].unsubscribe(bob, &track);
        }
        apart
            .cluster
            .run_until(40 * SECOND, |cluster| link_events(cluster, 0).len() == 2 || link_events(cluster, 1).len() == 2);
        apart.cluster.run_for(Duration::from_millis(before));
        apart.cluster.subscribe(1, bob, 0, std::slice::from_ref(&video));
        apart.cluster.run_for(2 * SECOND);
        let seen = apart.seen().since(apart.cluster.now - SECOND).count();
        assert!(seen >= 29, "{before} ms later: {seen} packets");
    }
}

#[test]
fn a_wish_comes_true_when_the_track_is_published_later() {
    let mut cluster = Cluster::seeded(seed(109), 2);
    let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let video = cluster.worlds[0].announce(ann, plenary_model::MediaKind::Video, &[]);
    cluster.subscribe(1, bob, 0, std::slice::from_ref(&video));
    cluster.run_for(3 * SECOND);
    assert!(super::received(&cluster, 1, bob, &video).is_none());
    cluster.worlds[0].offer_publisher(ann);
    cluster.run_for(SECOND);
    assert!(cluster.worlds[1].received(bob, &video).packets.len() > 20);
}

#[test]
fn spatial_layers_in_one_stream_cross_as_one() {
    let mut cluster = Cluster::seeded(seed(110), 2);
    let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let video = cluster.worlds[0].publish_svc(ann);
    cluster.subscribe(1, bob, 0, std::slice::from_ref(&video));
    let layer = |cluster: &Cluster| {
        let newest = cluster.worlds[1].received(bob, &video).packets.values().next_back().expect("video came");
        SvcPayload::read(&newest.payload).expect("made-up video").spatial
    };
    cluster.run_for(3 * SECOND);
    assert_eq!(layer(&cluster), 2);
    cluster.worlds[1].set_settings(bob, &video, LOW);
    cluster.run_for(2 * SECOND);
    assert_eq!(layer(&cluster), 0);
    assert_eq!(cluster.worlds[1].received(bob, &video).gaps(), 0, "what was left out leaves no gap");
}

#[test]
fn who_speaks_is_heard_on_every_router() {
    let mut apart = Apart::flowing(111);
    let audio = apart.audio.clone();
    apart.cluster.worlds[0].source(&audio).level_db = 10;
    apart.cluster.run_for(2 * SECOND);
    let loud = |event: &Event| match event {
        Event::Levels { levels } => {
            levels.iter().any(|one| one.track == audio && one.active && one.participant.as_str() == "PA_0_0")
        }
        _ => false,
    };
    assert!(apart.cluster.worlds[1].count_events(loud) >= 3);
    assert!(apart.cluster.worlds[0].count_events(loud) >= 3);
}

#[test]
fn a_late_viewer_costs_one_key_frame_and_waits_for_no_longer_than_that() {
    let mut apart = Apart::flowing(112);
    apart.cluster.run_for(3 * SECOND);
    let cem = apart.cluster.join(1, "cem");
    let video = apart.video.clone();
    let before = apart.cluster.worlds[0].source(&video).streams[0].keyframe_requests.len();
    let asked = apart.cluster.now;
    apart.cluster.subscribe(1, cem, 0, std::slice::from_ref(&video));
    apart.cluster.run_for(2 * SECOND);
    let first = apart.cluster.worlds[1].received(cem, &video).packets.values().next().unwrap().at;
    assert!(first - asked < SECOND / 4, "after {:?}", first - asked);
    assert_eq!(apart.cluster.worlds[0].source(&video).streams[0].keyframe_requests.len(), before + 1);
}

#[test]
fn three_routers_two_of_one_node_pull_each_by_themselves() {
    let key = b"a secret of the whole cluster".to_vec();
    let members = [("ND_0", 0), ("ND_0", 1), ("ND_1", 0)].map(|(node, index)| (node.to_owned(), index, key.clone()));
    let mut cluster = Cluster::of(seed(113), &members);
    let ann = cluster.join(0, "ann");
    let video = cluster.worlds[0].publish_video(ann);
    let others = [1, 2].map(|at| {
        let id = cluster.join(at, "other");
        cluster.subscribe(at, id, 0, std::slice::from_ref(&video));
        (at, id)
    });
    cluster.run_for(3 * SECOND);
    for (at, id) in others {
        let seen = cluster.worlds[at].received(id, &video);
        seen.assert_continuous_video();
        assert!(seen.since(cluster.now - SECOND).count() >= 29);
    }
    let between = |a: usize, b: usize| cluster.history.iter().filter(|(_, from, to, _)| (*from, *to) == (a, b)).count();
    assert_eq!(between(1, 2) + between(2, 1), 0, "nothing is asked there, so nothing is said");
}

#[test]
fn what_a_router_pulls_it_does_not_serve() {
    let mut cluster = Cluster::seeded(seed(114), 3);
    let ann = cluster.join(0, "ann");
    let (bob, eve) = (cluster.join(1, "bob"), cluster.join(2, "eve"));
    let video = cluster.worlds[0].publish_video(ann);
    cluster.subscribe(1, bob, 0, std::slice::from_ref(&video));
    let wish = plenary_media_core::Wanted { from: Some(cluster.id(1)), ..wanted(&video) };
    cluster.worlds[2].command(Command::Want { peer: eve.subscriber(), tracks: vec![wish] });
    cluster.run_for(3 * SECOND);
    assert_eq!(cluster.worlds[1].counters().link_wants.get(), 1, "it hears the wish");
    assert_eq!(cluster.worlds[2].counters().tracks.get(), 0, "and does not answer");
    assert!(cluster.worlds[1].received(bob, &video).packets.len() > 60);
}

fn wanted(track: &TrackSid) -> plenary_media_core::Wanted {
    plenary_media_core::Wanted {
        track: track.clone(),
        shown: track.clone(),
        publisher: "PA_0_0".into(),
        from: None,
        settings: HIGH,
    }
}
