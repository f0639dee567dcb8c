//! Two routers that cannot reach each other, and a third that reaches both.

use std::time::{Duration, Instant};

use plenary_media_core::{Command, Event};
use plenary_model::{Quality, SubscriptionSettings, TrackSid};
use plenary_testkit::{ClientId, Cluster, Conditions, ReceivedStream, seed};

use super::{SECOND, received};

const LOW: SubscriptionSettings =
    SubscriptionSettings { disabled: false, quality: Quality::Low, width: 0, height: 0, fps: 0, priority: 0 };

/// Ann on the first router publishes, Bob on the second receives. Nobody is on the third.
struct Triangle {
    cluster: Cluster,
    bob: ClientId,
    audio: TrackSid,
    video: TrackSid,
}

impl Triangle {
    fn flowing(of_test: u64) -> Self {
        Self::among(of_test, 3)
    }

    fn among(of_test: u64, routers: usize) -> Self {
        let mut cluster = Cluster::seeded(seed(of_test), routers);
        let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
        let (audio, video) = (cluster.worlds[0].publish_audio(ann), cluster.worlds[0].publish_simulcast(ann));
        let tracks = [audio.clone(), video.clone()];
        cluster.subscribe(1, bob, 0, &tracks);
        cluster.run_until(5 * SECOND, |cluster| {
            let flows = |track| received(cluster, 1, bob, track).is_some_and(|stream| stream.packets.len() >= 10);
            tracks.iter().all(flows)
        });
        cluster.run_for(4 * SECOND);
        Self { cluster, bob, audio, video }
    }

    /// The same, with the two apart and media on its way through the third.
    fn parted(of_test: u64) -> Self {
        let mut triangle = Self::flowing(of_test);
        triangle.cluster.part(0, 1);
        triangle.cluster.run_for(3 * SECOND);
        triangle.assert_flows();
        triangle
    }

    fn heard(&self) -> &ReceivedStream {
        self.cluster.worlds[1].received(self.bob, &self.audio)
    }

    fn seen(&self) -> &ReceivedStream {
        self.cluster.worlds[1].received(self.bob, &self.video)
    }

    fn layer(&self) -> usize {
        self.seen().packets.values().next_back().expect("video came").video().layer.into()
    }

    fn assert_flows(&self) {
        let since = self.cluster.now - SECOND;
        let (heard, seen) = (self.heard().since(since).count(), self.seen().since(since).count());
        assert!((49..=51).contains(&heard), "{heard} packets of audio in a second");
        // A frame of the highest layer is three packets.
        assert!((29..=95).contains(&seen), "{seen} packets of video in a second");
    }

    /// For how long one of the two brought nothing, at most, from then until now.
    fn longest_silence(&self, since: Instant) -> Duration {
        let of_it = |stream: &ReceivedStream| {
            let mut times: Vec<_> =
                stream.since(since).map(|packet| packet.at).chain([since, self.cluster.now]).collect();
            times.sort_unstable();
            times.windows(2).map(|pair| pair[1] - pair[0]).max()
        };
        of_it(self.heard()).max(of_it(self.seen())).expect("two moments")
    }

    /// Which of a track's streams go from one router to another.
    fn sent(&self, from: usize, to: usize, track: &TrackSid) -> u8 {
        sent(&self.cluster, from, to, track)
    }

    /// The last word to the publisher about what is wanted of the video.
    fn demand(&self) -> Option<u8> {
        let of_it = |(_, event): &(Instant, Event)| match event {
            Event::Demand { track, top, .. } if *track == self.video => Some(*top),
            _ => None,
        };
        self.cluster.worlds[0].events.iter().rev().find_map(of_it).flatten()
    }
}

fn sent(cluster: &Cluster, from: usize, to: usize, track: &TrackSid) -> u8 {
    let of_it = |(other, sid, _): &(usize, TrackSid, u8)| *other == to && sid == track;
    cluster.sent(from).into_iter().find(of_it).map_or(0, |(_, _, streams)| streams)
}

/// What a router was told of its ways to others.
fn reached(cluster: &Cluster, at: usize) -> Vec<bool> {
    let word = |(_, event): &(Instant, Event)| match event {
        Event::RouterReached { is_reached, .. } => Some(*is_reached),
        _ => None,
    };
    cluster.worlds[at].events.iter().filter_map(word).collect()
}

#[test]
fn two_that_cannot_reach_each_other_go_through_a_third() {
    for ways in [vec![(0, 1), (1, 0)], vec![(0, 1)], vec![(1, 0)]] {
        let mut triangle = Triangle::flowing(401);
        let cut = triangle.cluster.now;
        ways.iter().for_each(|(from, to)| triangle.cluster.cut(*from, *to));
        triangle.cluster.run_for(5 * SECOND);
        let silent = triangle.longest_silence(cut);
        assert!(silent < 2 * SECOND, "{ways:?}: silent for {silent:?}");
        triangle.assert_flows();
        triangle.seen().assert_continuous_video();
        assert_eq!((triangle.heard().gaps(), triangle.layer()), (0, 2));
        let (audio, video) = (triangle.audio.clone(), triangle.video.clone());
        for (from, to, expected) in [(0, 1, 0), (0, 2, 1), (2, 1, 1)] {
            assert_eq!(triangle.sent(from, to, &audio), expected, "{ways:?}: {from} to {to}");
            assert_eq!(triangle.sent(from, to, &video), expected * 0b100, "{ways:?}: {from} to {to}");
        }
        let reports = [triangle.heard(), triangle.seen()]
            .map(|stream| stream.sender_reports.iter().filter(|(at, _)| *at > cut + SECOND).count());
        assert!(reports.iter().all(|count| *count > 0), "both can be kept in step: {reports:?}");
        assert_eq!(reached(&triangle.cluster, 1), [], "there was a way all the time");
    }
}

#[test]
fn back_on_the_straight_way_nothing_is_missed() {
    let mut triangle = Triangle::parted(402);
    let (frames, requests) = (triangle.seen().packets.len(), keyframe_requests(&mut triangle));
    triangle.cluster.heal();
    triangle.cluster.run_for(4 * SECOND);
    triangle.assert_flows();
    let (audio, video) = (triangle.audio.clone(), triangle.video.clone());
    assert_eq!((triangle.sent(0, 1, &audio), triangle.sent(0, 1, &video)), (1, 0b100));
    assert_eq!((triangle.cluster.sent(2), triangle.cluster.wanted(2)), (vec![], vec![]), "the third has no part in it");
    let since = triangle.cluster.now - 4 * SECOND;
    let silent = triangle.longest_silence(since);
    assert!(silent < Duration::from_millis(50), "silent for {silent:?}");
    triangle.seen().assert_continuous_video();
    assert!(triangle.seen().packets.len() > frames);
    assert_eq!(keyframe_requests(&mut triangle), requests, "no key frame was needed");
}

fn keyframe_requests(triangle: &mut Triangle) -> usize {
    let video = triangle.video.clone();
    triangle.cluster.worlds[0].source(&video).streams.iter().map(|stream| stream.keyframe_requests.len()).sum()
}

#[test]
fn what_the_third_receives_itself_crosses_to_it_once() {
    let mut triangle = Triangle::flowing(403);
    let cem = triangle.cluster.join(2, "cem");
    let tracks = [triangle.audio.clone(), triangle.video.clone()];
    triangle.cluster.subscribe(2, cem, 0, &tracks);
    triangle.cluster.run_for(4 * SECOND);
    let counters = triangle.cluster.worlds[0].counters();
    let bytes_in_two_seconds = |triangle: &mut Triangle| {
        let before = counters.link_bytes_out.get();
        triangle.cluster.run_for(2 * SECOND);
        counters.link_bytes_out.get() - before
    };
    let apart = bytes_in_two_seconds(&mut triangle);
    triangle.cluster.part(0, 1);
    triangle.cluster.run_for(4 * SECOND);
    let relayed = bytes_in_two_seconds(&mut triangle);
    assert!(relayed * 10 < apart * 6, "{apart} bytes to both, then {relayed} to one");
    triangle.assert_flows();
    let since = triangle.cluster.now - 6 * SECOND;
    let cem_heard = triangle.cluster.worlds[2].received(cem, &tracks[0]);
    assert!(cem_heard.since(since).count() > 295 && cem_heard.gaps() == 0, "nobody else notices");
    // Who leaves takes nothing from who stays.
    triangle.cluster.worlds[2].unsubscribe(cem, &tracks[0]);
    triangle.cluster.worlds[2].unsubscribe(cem, &tracks[1]);
    triangle.cluster.run_for(3 * SECOND);
    triangle.assert_flows();
    triangle.seen().assert_continuous_video();
}

#[test]
fn layers_cross_as_they_are_wanted_and_the_publisher_hears_so() {
    let mut triangle = Triangle::parted(404);
    let (bob, video) = (triangle.bob, triangle.video.clone());
    assert_eq!((triangle.layer(), triangle.demand()), (2, Some(2)));
    triangle.cluster.worlds[1].set_settings(bob, &video, LOW);
    triangle.cluster.run_for(2 * SECOND);
    assert_eq!((triangle.layer(), triangle.demand()), (0, Some(0)));
    assert_eq!((triangle.sent(0, 2, &video), triangle.sent(2, 1, &video)), (1, 1));
    triangle.cluster.worlds[1].unsubscribe(bob, &video);
    triangle.cluster.run_for(SECOND);
    assert_eq!(triangle.demand(), None);
    assert_eq!((triangle.sent(0, 2, &video), triangle.sent(2, 1, &video)), (0, 0));
    let before = keyframe_requests(&mut triangle);
    let asked = triangle.cluster.now;
    triangle.cluster.subscribe(1, bob, 0, std::slice::from_ref(&video));
    triangle.cluster.run_for(2 * SECOND);
    let first = triangle.seen().since(asked).next().expect("it is there again").at;
    assert!(first - asked < SECOND / 2, "after {:?}", first - asked);
    assert!(keyframe_requests(&mut triangle) > before, "it came with a key frame that was asked for");
    triangle.cluster.run_for(2 * SECOND);
    assert_eq!((triangle.layer(), triangle.demand()), (2, Some(2)));
    triangle.assert_flows();
}

#[test]
fn what_happens_to_a_track_is_told_on() {
    let mut triangle = Triangle::parted(405);
    let (video, audio) = (triangle.video.clone(), triangle.audio.clone());
    triangle.cluster.worlds[0].command(Command::SetMuted { track: video.clone(), muted: true });
    triangle.cluster.run_for(2 * SECOND);
    assert_eq!(triangle.seen().since(triangle.cluster.now - SECOND).count(), 0);
    triangle.cluster.worlds[0].command(Command::SetMuted { track: video.clone(), muted: false });
    triangle.cluster.run_for(2 * SECOND);
    triangle.assert_flows();
    triangle.seen().assert_continuous_video();
    let known = triangle.cluster.worlds[1].counters().tracks.get();
    triangle.cluster.worlds[0].command(Command::Unpublish { track: audio });
    triangle.cluster.run_for(SECOND / 5);
    assert_eq!(triangle.cluster.worlds[1].counters().tracks.get(), known - 1);
    triangle.cluster.run_for(5 * SECOND);
    assert_eq!(triangle.cluster.worlds[2].counters().tracks.get(), 1);
}

#[test]
fn who_comes_while_two_are_apart_is_served_through_the_third() {
    let mut cluster = Cluster::seeded(seed(406), 3);
    cluster.part(0, 1);
    let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let audio = cluster.worlds[0].publish_audio(ann);
    cluster.subscribe(1, bob, 0, std::slice::from_ref(&audio));
    cluster.run_for(3 * SECOND);
    let since = cluster.now - SECOND;
    let heard = received(&cluster, 1, bob, &audio).map_or(0, |stream| stream.since(since).count());
    assert!((49..=51).contains(&heard), "{heard} packets in a second");
}

#[test]
fn each_hop_repairs_what_it_loses() {
    let mut triangle = Triangle::parted(407);
    let lossy = Conditions { loss: 0.05, delay: Duration::from_millis(15), ..Conditions::default() };
    for (from, to) in [(0, 2), (2, 0), (2, 1), (1, 2)] {
        triangle.cluster.set(from, to, lossy);
    }
    triangle.cluster.run_for(20 * SECOND);
    let since = triangle.cluster.now - 20 * SECOND;
    let came = triangle.heard().since(since).count();
    assert!(came >= 994, "{came} of 1,000 packets of audio came");
    for at in [0, 2] {
        assert!(triangle.cluster.worlds[at].counters().link_retransmitted.get() > 20, "{at}");
    }
}

#[test]
fn when_the_third_fails_a_fourth_is_asked() {
    // Its link to the publisher's router, which it has to tell of; and the one that it is asked over.
    for fails in [(0, 2), (2, 1)] {
        let mut triangle = Triangle::among(408, 4);
        triangle.cluster.part(0, 1);
        triangle.cluster.run_for(3 * SECOND);
        let video = triangle.video.clone();
        assert_eq!((triangle.sent(2, 1, &video), triangle.sent(3, 1, &video)), (0b100, 0));
        triangle.cluster.part(fails.0, fails.1);
        let since = triangle.cluster.now;
        triangle.cluster.run_for(4 * SECOND);
        let silent = triangle.longest_silence(since);
        assert!(silent < 2 * SECOND, "{fails:?}: silent for {silent:?}");
        triangle.assert_flows();
        triangle.seen().assert_continuous_video();
        assert_eq!((triangle.sent(2, 1, &video), triangle.sent(3, 1, &video)), (0, 0b100), "{fails:?}");
        assert_eq!(reached(&triangle.cluster, 1), [], "there was somebody all the time");
    }
}

#[test]
fn without_a_third_the_node_is_told_that_there_is_no_way_and_when_there_is_one() {
    let mut triangle = Triangle::flowing(409);
    triangle.cluster.part(0, 1);
    triangle.cluster.part(0, 2);
    let cut = triangle.cluster.now;
    triangle.cluster.run_for(5 * SECOND);
    assert_eq!(reached(&triangle.cluster, 1), [false]);
    let told = triangle.cluster.worlds[1].events.iter().find(|(_, event)| matches!(event, Event::RouterReached { .. }));
    let after = told.expect("it was told").0 - cut;
    assert!(after < 3 * SECOND, "after {after:?}");
    triangle.cluster.heal();
    triangle.cluster.run_for(4 * SECOND);
    assert_eq!(reached(&triangle.cluster, 1), [false, true]);
    triangle.assert_flows();
}

#[test]
fn whoever_could_not_be_reached_is_found_again_though_nobody_wants_it_any_more() {
    let mut triangle = Triangle::among(411, 2);
    triangle.cluster.part(0, 1);
    triangle.cluster.run_for(3 * SECOND);
    assert_eq!(reached(&triangle.cluster, 1), [false]);
    let (bob, tracks) = (triangle.bob, [triangle.audio.clone(), triangle.video.clone()]);
    tracks.iter().for_each(|track| triangle.cluster.worlds[1].unsubscribe(bob, track));
    triangle.cluster.run_for(10 * SECOND);
    assert_eq!(reached(&triangle.cluster, 1), [false], "whoever left left because of that");
    triangle.cluster.heal();
    triangle.cluster.run_for(2 * SECOND);
    assert_eq!(reached(&triangle.cluster, 1), [false, true]);
    triangle.cluster.run_for(40 * SECOND);
    let said = triangle.cluster.history.len();
    triangle.cluster.run_for(20 * SECOND);
    assert_eq!(triangle.cluster.history.len(), said, "nothing is said any more");
    // Who is no neighbour any more is not lost either.
    triangle.cluster.subscribe(1, bob, 0, &tracks);
    triangle.cluster.run_for(2 * SECOND);
    triangle.cluster.part(0, 1);
    triangle.cluster.run_for(3 * SECOND);
    triangle.cluster.set_neighbours(1, &[]);
    assert_eq!(reached(&triangle.cluster, 1), [false, true, false, true]);
}

#[test]
fn a_link_that_comes_and_goes_moves_nothing_back_and_forth() {
    let mut triangle = Triangle::flowing(410);
    // Shorter than it takes to give a link up.
    for _ in 0..20 {
        triangle.cluster.part(0, 1);
        triangle.cluster.run_for(3 * SECOND / 10);
        triangle.cluster.heal();
        triangle.cluster.run_for(3 * SECOND / 10);
    }
    assert!(triangle.cluster.history.iter().all(|(_, from, to, _)| *from != 2 && *to != 2), "nobody else is asked");
    // Longer: whoever was found stays asked for as long as the link does not stay up.
    triangle.cluster.part(0, 1);
    triangle.cluster.run_for(2 * SECOND);
    let since = triangle.cluster.now;
    for _ in 0..8 {
        triangle.cluster.heal();
        triangle.cluster.run_for(SECOND / 2);
        triangle.cluster.part(0, 1);
        triangle.cluster.run_for(SECOND);
    }
    let heard = triangle.heard().since(since).count();
    assert!(heard > 595, "{heard} of 600 packets");
    triangle.cluster.heal();
    triangle.cluster.run_for(4 * SECOND);
    triangle.assert_flows();
}
