//! Whether this node reaches the store, and what the others say of themselves over their links: only together they tell
//! a node that is cut off from an outage, in which whoever is somewhere stays there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use plenary_cluster::LEASE_LIFE;
use plenary_media_core::{LinkEnd, RouterId};

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
    parted: BTreeMap<RouterId, Option<Instant>>,
}

impl Reach {
    /// The store has answered. True if it had not before.
    pub fn renewed(&self, now: Instant) -> bool {
        let state = &mut *self.state();
        state.renewed = Some(now);
        state.parted.clear();
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
        state.parted.remove(&router);
        let since = state.others.entry(router).or_default();
        *since = reaches.then(|| since.unwrap_or(now));
    }

    /// Its link is down.
    pub fn parts(&self, router: RouterId, why: LinkEnd) {
        let mut state = self.state();
        let word = state.others.remove(&router);
        // Who fell silent may have died with the store.
        if matches!(why, LinkEnd::Bye | LinkEnd::Idle) && !state.has_store {
            state.parted.extend(word.map(|word| (router, word)));
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

    fn is_alone_for(&self, long: Duration, now: Instant) -> bool {
        let state = self.state();
        let is_long_ago = |at: &Instant| now.saturating_duration_since(*at) >= long;
        !state.has_store
            && state.renewed.as_ref().is_some_and(is_long_ago)
            && state.others.values().chain(state.parted.values()).flatten().any(is_long_ago)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
