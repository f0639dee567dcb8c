//! Whether this node reaches the store, and what the others say of themselves over their links: only together they tell
//! a node that is cut off from an outage, in which whoever is somewhere stays there. And which nodes that live this one
//! can exchange no media with: of a room that both have people of, the smaller side gives way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use plenary_cluster::LEASE_LIFE;
use plenary_media_core::{LinkEnd, RouterId};
use plenary_model::{NodeId, NodeInfo};

use crate::media_router::RouterIndex;

/// Written by the lease and the media threads, read by probes and joins.
#[derive(Debug, Default)]
pub struct Reach(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    has_store: bool,
    /// When the store last confirmed the lease.
    renewed: Option<Instant>,
    /// Routers of other nodes whose links are up, and since when their nodes reach the store, if they do.
    others: BTreeMap<RouterId, Option<Instant>>,
    /// The same of those that took leave in good order while this node did not reach it: to them it is gone.
    took_leave: BTreeMap<RouterId, Option<Instant>>,
    /// Routers of other nodes that one of ours has no way to, and since when.
    lost: BTreeMap<(RouterIndex, RouterId), Instant>,
    partings: BTreeMap<NodeId, Parting>,
}

/// From a node that lives and that no media can be exchanged with.
#[derive(Debug, Clone, Copy)]
struct Parting {
    began: Instant,
    is_over: bool,
}

impl Reach {
    /// The store has answered. True if it had not before.
    pub fn renewed(&self, now: Instant) -> bool {
        let state = &mut *self.state();
        state.renewed = Some(now);
        state.took_leave.clear();
        !std::mem::replace(&mut state.has_store, true)
    }

    /// The store has not answered. True if it had before.
    pub fn lost(&self) -> bool {
        std::mem::replace(&mut self.state().has_store, false)
    }

    pub fn has_store(&self) -> bool {
        self.state().has_store
    }

    /// What another router says of its node. Those of this node say what is known here.
    pub fn hear(&self, now: Instant, router: RouterId, reaches: bool) {
        let mut state = self.state();
        state.took_leave.remove(&router);
        let since = state.others.entry(router).or_default();
        *since = reaches.then(|| since.unwrap_or(now));
    }

    /// Its link is down.
    pub fn parts(&self, router: RouterId, why: LinkEnd) {
        let mut state = self.state();
        let word = state.others.remove(&router);
        // Who fell silent may have died with the store.
        if matches!(why, LinkEnd::Bye | LinkEnd::Idle) && !state.has_store {
            state.took_leave.extend(word.map(|word| (router, word)));
        }
    }

    /// Whether only this node, or not every one, has lost the store. Known when its lease has run out: the others, which try
    /// to renew theirs every second, have noticed by then if they lost it too. When it is back, not all of them hear of it at once.
    pub fn is_cut_off(&self, now: Instant) -> bool {
        self.is_alone_for(NOTICED_BY_ALL, now)
    }

    /// Whether that has been so for long enough that balancers send nobody here any more.
    pub fn is_left_behind(&self, now: Instant) -> bool {
        self.is_alone_for(NOTICED_BY_ALL + NOTICED_BY_BALANCERS, now)
    }

    /// One of this node's routers starts with no word about others.
    pub fn begin_anew(&self, own: RouterIndex) {
        self.state().lost.retain(|(of, _), _| *of != own);
    }

    /// What one of them says about its ways to a router of another node.
    pub fn reaches(&self, now: Instant, own: RouterIndex, router: RouterId, is_reached: bool) {
        let lost = &mut self.state().lost;
        if is_reached {
            lost.remove(&(own, router));
        } else {
            lost.entry((own, router)).or_insert(now);
        }
    }

    /// The store listed these when it was asked. Who is listed although a lease has run out since it was last heard lives,
    /// and is parted from this node. Not again soon after the last time: nobody moves twice because of one link.
    pub fn part(&self, asked: Instant, listed: &[NodeInfo]) {
        let State { lost, partings, .. } = &mut *self.state();
        let lives = |node: &NodeId| listed.iter().any(|info| info.node == *node);
        let lost_for = |since: &Instant| asked.saturating_duration_since(*since);
        let is_lost = |node: &NodeId| lost.keys().any(|(_, router)| router.node == *node);
        for (node, parting) in partings.iter_mut() {
            parting.is_over |= !is_lost(node) || !lives(node);
        }
        partings.retain(|_, parting| !parting.is_over || lost_for(&parting.began) < MOVED_AGAIN_AFTER);
        let long_lost = lost.iter().filter(|(_, since)| lost_for(since) >= LEASE_LIFE.saturating_sub(NOTICED_AFTER));
        for ((_, router), _) in long_lost.filter(|((_, router), _)| lives(&router.node)) {
            let parting = Parting { began: asked, is_over: false };
            partings.entry(router.node.clone()).or_insert(parting);
        }
    }

    /// Which nodes this one is parted from, and since when.
    pub fn parted(&self) -> BTreeMap<NodeId, Instant> {
        let State { lost, partings, .. } = &*self.state();
        let still: BTreeSet<_> = lost.keys().map(|(_, router)| &router.node).collect();
        let on = partings.iter().filter(|(node, parting)| !parting.is_over && still.contains(node));
        on.map(|(node, parting)| (node.clone(), parting.began)).collect()
    }

    fn is_alone_for(&self, long: Duration, now: Instant) -> bool {
        let state = self.state();
        let is_long_ago = |at: &Instant| now.saturating_duration_since(*at) >= long;
        !state.has_store
            && state.renewed.as_ref().is_some_and(is_long_ago)
            && state.others.values().chain(state.took_leave.values()).flatten().any(is_long_ago)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `own` is the smaller side of a room with people on these nodes, towards any of those it is parted from, and if so
/// since when: who came later came knowing. Of two as large it is the one with the lower name.
pub fn gives_way<'n>(
    own: &NodeId,
    hosts: impl Iterator<Item = &'n NodeId>,
    parted: &BTreeMap<NodeId, Instant>,
) -> Option<Instant> {
    let mut people: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for host in hosts {
        *people.entry(host).or_default() += 1;
    }
    let side = |node: &NodeId| people.get(node).copied().unwrap_or_default();
    let larger = parted.iter().filter(|(node, _)| side(node) > 0 && (side(own), own) < (side(node), node));
    larger.map(|(_, since)| *since).max()
}

/// A link is silent for at least so long before it counts as lost.
const NOTICED_AFTER: Duration = Duration::from_millis(500);
/// Nobody is moved twice within 30 s, and the two sides do not begin at the same moment.
const MOVED_AGAIN_AFTER: Duration = Duration::from_secs(35);
/// A renewal each second, 0.8 s until one is given up, and the way of the word.
const NOTICED_BY_ALL: Duration = LEASE_LIFE;
/// A few probes of `/readyz`.
const NOTICED_BY_BALANCERS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn router(node: &str) -> RouterId {
        RouterId { node: node.into(), boot: 1, index: 0 }
    }

    fn listed(nodes: &[&str]) -> Vec<NodeInfo> {
        let info = |node: &&str| NodeInfo {
            node: (*node).into(),
            version: String::new(),
            state: plenary_model::NodeState::Serving,
            routers: Vec::new(),
            records: false,
        };
        nodes.iter().map(info).collect()
    }

    fn parted(reach: &Reach) -> Vec<String> {
        reach.parted().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_part_when_a_lease_proves_that_the_other_lives() {
        let (reach, start, own) = (Reach::default(), Instant::now(), RouterIndex::new(0).unwrap());
        let at = |ms| start + Duration::from_millis(ms);
        // Both fell silent half a second before; one of them died.
        reach.reaches(start, own, router("dead"), false);
        reach.reaches(start, own, router("alive"), false);
        reach.part(at(2_400), &listed(&["dead", "alive"]));
        assert_eq!(parted(&reach), [""; 0], "a lease outlives its node for that long");
        reach.part(at(2_500), &listed(&["alive"]));
        assert_eq!(parted(&reach), ["alive"]);
        reach.part(at(3_500), &listed(&["alive"]));
        assert_eq!(reach.parted().values().next(), Some(&at(2_500)));
        reach.reaches(at(4_000), own, router("alive"), true);
        assert_eq!(parted(&reach), [""; 0], "at once");
    }

    #[test]
    fn who_dies_after_it_was_cut_off_is_not_kept_out_for() {
        let (reach, start, own) = (Reach::default(), Instant::now(), RouterIndex::new(0).unwrap());
        reach.reaches(start, own, router("a"), false);
        reach.part(start + LEASE_LIFE, &listed(&["a"]));
        assert_eq!(parted(&reach), ["a"]);
        reach.part(start + 2 * LEASE_LIFE, &listed(&[]));
        assert_eq!(parted(&reach), [""; 0]);
    }

    #[test]
    fn a_link_that_comes_and_goes_parts_nobody_or_once_in_a_while() {
        let (reach, start, own) = (Reach::default(), Instant::now(), RouterIndex::new(0).unwrap());
        let mut began = BTreeSet::new();
        for second in 0..120u32 {
            let now = start + second * Duration::from_secs(1);
            // Gone for two seconds of three for a minute, then for eight of nine.
            let is_reached = if second < 60 { second % 3 == 0 } else { second % 9 == 0 };
            reach.reaches(now, own, router("a"), is_reached);
            reach.part(now, &listed(&["a"]));
            let parted = reach.parted();
            assert!(second >= 60 || parted.is_empty());
            began.extend(parted.into_values());
        }
        let began: Vec<_> = began.into_iter().collect();
        assert_eq!(began.len(), 2);
        assert!(began[1] - began[0] >= Duration::from_secs(30));
    }

    #[test]
    fn of_two_sides_of_a_room_the_smaller_gives_way_and_never_both() {
        let (a, b, c) = (NodeId::from("a"), NodeId::from("b"), NodeId::from("c"));
        let now = Instant::now();
        let verdict = |own: &NodeId, from: &NodeId, people: [usize; 3]| {
            let hosts = [&a, &b, &c].into_iter().zip(people).flat_map(|(node, count)| std::iter::repeat_n(node, count));
            gives_way(own, hosts, &BTreeMap::from([(from.clone(), now)])).is_some()
        };
        for (people, a_gives_way, b_gives_way) in [
            ([1, 2, 9], true, false),
            ([2, 1, 0], false, true),
            ([2, 2, 5], true, false),
            ([0, 3, 0], true, false),
            ([3, 0, 0], false, true),
            ([0, 0, 4], false, false),
        ] {
            let found = (verdict(&a, &b, people), verdict(&b, &a, people));
            assert_eq!(found, (a_gives_way, b_gives_way), "{people:?}");
        }
    }

    #[test]
    fn a_node_is_cut_off_once_its_lease_ran_out_while_another_reaches_the_store() {
        let (reach, start) = (Reach::default(), Instant::now());
        let later = start + LEASE_LIFE;
        assert!(reach.renewed(start) && !reach.renewed(start));
        reach.hear(start, router("a"), false);
        reach.hear(start, router("b"), true);
        assert!(!reach.is_cut_off(later), "it was not refused yet");
        assert!(reach.lost() && !reach.lost());
        assert!(!reach.is_cut_off(later - Duration::from_millis(1)), "the others may not know yet");
        assert!(reach.is_cut_off(later) && !reach.is_left_behind(later), "balancers have to notice first");
        reach.hear(later, router("b"), true);
        assert!(reach.is_left_behind(later + NOTICED_BY_BALANCERS));
        reach.hear(later, router("b"), false);
        assert!(!reach.is_cut_off(later), "all have lost it");
        reach.parts(router("b"), LinkEnd::Silent);
        reach.hear(start, router("a"), true);
        assert!(reach.is_cut_off(later));
        reach.parts(router("a"), LinkEnd::Silent);
        assert!(!reach.is_cut_off(later), "nobody is heard who has it");
        reach.hear(start, router("a"), true);
        assert!(reach.renewed(later));
        assert!(!reach.is_cut_off(later));
    }

    #[test]
    fn a_node_to_which_others_said_goodbye_stays_cut_off() {
        for why in [LinkEnd::Bye, LinkEnd::Idle] {
            let (reach, start) = (Reach::default(), Instant::now());
            let later = start + LEASE_LIFE;
            reach.renewed(start);
            reach.hear(start, router("a"), true);
            reach.lost();
            reach.parts(router("a"), why);
            assert!(reach.is_cut_off(later), "it is the lease that ran out");
            reach.hear(later, router("a"), false);
            assert!(!reach.is_cut_off(later), "now all have lost it");
            reach.hear(later, router("a"), true);
            reach.parts(router("a"), why);
            assert!(reach.renewed(later + 2 * LEASE_LIFE) && reach.lost());
            assert!(!reach.is_cut_off(later + 4 * LEASE_LIFE), "that was another time");
        }
    }

    #[test]
    fn whoever_hears_last_that_the_store_is_back_was_not_cut_off() {
        let (reach, start) = (Reach::default(), Instant::now());
        reach.renewed(start);
        reach.lost();
        reach.hear(start, router("a"), false);
        let back = start + 20 * LEASE_LIFE;
        reach.hear(back, router("a"), true);
        assert!(!reach.is_cut_off(back + LEASE_LIFE / 2), "it may be about to hear of it too");
        assert!(reach.is_cut_off(back + LEASE_LIFE));
    }
}
