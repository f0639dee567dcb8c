//! Lossy and cut ways between routers, and those who have no business there.

use std::time::Duration;

use plenary_media_core::{Command, DropReason, Event, LinkEnd};
use plenary_testkit::{Bursts, Cluster, Conditions, ReceivedStream, seed};

use super::{Apart, SECOND, link_events};

const DELAY: Duration = Duration::from_millis(15);

#[test]
fn what_a_hop_loses_is_repaired_before_anybody_misses_it() {
    for (loss, limit) in [(0.05, 0.005), (0.10, 0.02)] {
        let mut apart = Apart::flowing(201);
        let lossy = Conditions { loss, delay: DELAY, jitter: Duration::from_millis(3), ..Conditions::default() };
        apart.cluster.set(0, 1, lossy);
        apart.cluster.set(1, 0, lossy);
        apart.cluster.run_for(30 * SECOND);
        // Whoever asks again gets it late: counted is what never came.
        let missing = |stream: &ReceivedStream| stream.gaps() as f64 / stream.packets.len() as f64;
        let (heard, seen) = (missing(apart.heard()), missing(apart.seen()));
        assert!(heard < limit && seen < limit, "{loss} lost: {heard} of audio and {seen} of video are missing");
        assert!(apart.heard().packets.len() > 1_480 && apart.seen().packets.len() > 880);
        let counters = apart.cluster.worlds[0].counters();
        assert!(counters.link_retransmitted.get() > 50);
        assert_eq!(link_events(&apart.cluster, 1), [None], "loss is no reason to give up");
    }
}

#[test]
fn what_a_client_misses_because_the_hop_lost_it_comes_when_the_hop_has_it_again() {
    let mut apart = Apart::flowing(208);
    // Its own way is short, so that it asks before the hop has repaired anything.
    let long = Conditions { delay: Duration::from_millis(60), ..Conditions::default() };
    apart.cluster.set(0, 1, long);
    apart.cluster.run_for(4 * SECOND);
    let counters = apart.cluster.worlds[1].counters();
    let refused = || counters.dropped(DropReason::NackUnknown);
    let before = refused();
    apart.cluster.set(0, 1, Conditions { loss: 0.05, ..long });
    apart.cluster.run_for(20 * SECOND);
    apart.cluster.set(0, 1, long);
    apart.cluster.run_for(SECOND);
    let (awaited, unknown) = (counters.dropped(DropReason::NackAwaited), refused() - before);
    assert!(awaited > 20 && unknown == 0, "{awaited} were waited for, {unknown} refused");
    assert_eq!((apart.heard().gaps(), apart.seen().gaps()), (0, 0));
}

#[test]
fn bursts_reordering_and_duplicates_do_no_harm() {
    let mut apart = Apart::flowing(202);
    let conditions = Conditions {
        bursts: Some(Bursts { begin: 0.005, datagrams: 5.0 }),
        delay: DELAY,
        jitter: Duration::from_millis(5),
        reorder: 0.05,
        duplicate: 0.05,
        ..Conditions::default()
    };
    apart.cluster.set(0, 1, conditions);
    apart.cluster.set(1, 0, conditions);
    apart.cluster.run_for(20 * SECOND);
    apart.cluster.set(0, 1, Conditions::default());
    apart.cluster.run_for(SECOND);
    let (audio, video) = (apart.heard().packets.len(), apart.seen().packets.len());
    assert!(audio > 1_040 && video > 620, "{audio} of 1,050 and {video} of 630");
    assert!(apart.cluster.worlds[1].counters().dropped(DropReason::LinkReplayed) > 50, "duplicates are refused");
}

#[test]
fn nodes_hear_of_each_other_whether_they_reach_the_store_while_the_link_is_up() {
    let mut apart = Apart::flowing(213);
    let said = |apart: &Apart, at: usize| -> Vec<bool> {
        let events = apart.cluster.worlds[at].events.iter();
        let word = |(_, event): &(_, Event)| match event {
            Event::NeighbourReachesStore { reaches, .. } => Some(*reaches),
            _ => None,
        };
        events.filter_map(word).collect()
    };
    let say = |apart: &mut Apart, reaches| {
        apart.cluster.worlds[0].command(Command::SetReachesStore { reaches });
        apart.cluster.run_for(SECOND / 10);
    };
    apart.cluster.run_for(2 * SECOND);
    assert_eq!(said(&apart, 1), [], "an older node says nothing");
    say(&mut apart, true);
    say(&mut apart, true);
    say(&mut apart, false);
    assert_eq!((said(&apart, 0), said(&apart, 1)), (vec![], vec![true, false]), "each change, once");
    apart.cluster.cut(0, 1);
    apart.cluster.run_for(5 * SECOND);
    say(&mut apart, true);
    assert_eq!(said(&apart, 1), [true, false]);
    apart.cluster.heal();
    apart.cluster.run_for(2 * SECOND);
    assert_eq!(said(&apart, 1), [true, false, true]);
}

#[test]
fn a_link_that_was_cut_for_five_seconds_goes_on() {
    let mut apart = Apart::flowing(203);
    apart.cluster.run_for(3 * SECOND);
    apart.cluster.cut(0, 1);
    apart.cluster.cut(1, 0);
    apart.cluster.run_for(SECOND);
    let down = Some(LinkEnd::Silent);
    assert_eq!((link_events(&apart.cluster, 0), link_events(&apart.cluster, 1)), (vec![None, down], vec![None, down]));
    apart.cluster.run_for(4 * SECOND);
    assert_eq!(apart.last_second(), (0, 0));
    apart.cluster.heal();
    let healed = apart.cluster.now;
    apart.cluster.run_for(3 * SECOND);
    apart.assert_flows();
    let back = apart.heard().since(healed).next().unwrap().at - healed;
    assert!(back < SECOND * 3 / 2, "sound after {back:?}");
    apart.seen().assert_continuous_video();
    assert_eq!(link_events(&apart.cluster, 1), [None, down, None]);
}

#[test]
fn one_way_counts_as_cut() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut apart = Apart::flowing(204);
        apart.cluster.run_for(3 * SECOND);
        apart.cluster.cut(from, to);
        apart.cluster.run_for(SECOND);
        let ends = |at: usize| link_events(&apart.cluster, at).last().copied().flatten();
        assert_eq!((ends(to), ends(from)), (Some(LinkEnd::Silent), Some(LinkEnd::Unheard)));
        apart.cluster.run_for(9 * SECOND);
        apart.cluster.heal();
        apart.cluster.run_for(3 * SECOND);
        apart.assert_flows();
        let downs = link_events(&apart.cluster, 0).iter().flatten().count();
        assert_eq!(downs, 1, "it does not go up and down meanwhile");
    }
}

#[test]
fn forged_and_replayed_datagrams_change_nothing() {
    let mut apart = Apart::flowing(205);
    apart.cluster.run_for(2 * SECOND);
    let stranger = "198.51.100.66:1".parse().unwrap();
    let history = apart.cluster.history.clone();
    let sent = apart.cluster.history.len();
    for (at, (_, from, to, bytes)) in history.iter().enumerate() {
        apart.cluster.inject(stranger, *to, bytes.clone());
        apart.cluster.inject(Cluster::address(*to), *from, bytes.clone());
        let mut forged = bytes.clone();
        forged[at % bytes.len()] ^= 1 << (at % 8);
        apart.cluster.inject(Cluster::address(*from), *to, forged);
    }
    assert_eq!(apart.cluster.history.len(), sent, "nobody answers");
    let counters = apart.cluster.worlds[1].counters();
    for reason in [DropReason::LinkReplayed, DropReason::LinkNotAuthentic, DropReason::LinkUnknownSession] {
        assert!(counters.dropped(reason) > 0, "{reason:?}");
    }
    apart.cluster.run_for(2 * SECOND);
    apart.assert_flows();
    apart.seen().assert_continuous_video();
    assert_eq!(apart.heard().gaps(), 0);
    assert_eq!(link_events(&apart.cluster, 1), [None]);
}

#[test]
fn a_router_with_another_key_is_a_stranger() {
    let members = [(0, &b"a secret of the whole cluster"[..]), (1, &b"a guess"[..])];
    let members = members.map(|(at, key)| (format!("ND_{at}"), 0, key.to_vec()));
    let mut cluster = Cluster::of(seed(206), &members);
    let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let video = cluster.worlds[0].publish_video(ann);
    cluster.subscribe(1, bob, 0, std::slice::from_ref(&video));
    cluster.run_for(5 * SECOND);
    assert!(cluster.worlds[0].counters().dropped(DropReason::LinkNotAuthentic) >= 4);
    assert!(cluster.history.iter().all(|(_, from, _, _)| *from == 1), "no answer");
    assert!(super::received(&cluster, 1, bob, &video).is_none());
    assert_eq!((link_events(&cluster, 0), link_events(&cluster, 1)), (Vec::new(), Vec::new()));
}

#[test]
fn a_router_that_is_no_neighbour_any_more_is_not_served() {
    let mut apart = Apart::flowing(207);
    apart.cluster.set_neighbours(0, &[]);
    apart.cluster.run_for(4 * SECOND);
    assert_eq!(apart.last_second(), (0, 0));
    assert_eq!(link_events(&apart.cluster, 0), [None, Some(LinkEnd::Removed)]);
    assert_eq!(link_events(&apart.cluster, 1), [None, Some(LinkEnd::Bye)]);
    assert!(apart.cluster.worlds[0].counters().dropped(DropReason::LinkUnknownRouter) > 0);
    apart.cluster.set_neighbours(0, &[1]);
    apart.cluster.run_for(3 * SECOND);
    apart.assert_flows();
}

#[test]
fn a_wish_that_is_not_repeated_ends() {
    let mut apart = Apart::flowing(208);
    apart.cluster.run_for(2 * SECOND);
    apart.cluster.cut(1, 0);
    apart.cluster.run_for(SECOND * 11 / 4);
    let counters = apart.cluster.worlds[0].counters();
    let before = counters.link_bytes_out.get();
    apart.cluster.run_for(SECOND / 4);
    assert!(counters.link_bytes_out.get() - before < 1_000, "nothing flows to whom nothing is heard of");
    assert_eq!(counters.link_wants.get(), 0);
}
