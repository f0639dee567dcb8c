//! Whether this node reaches the store, and what the others say of themselves over their links: only together they tell
//! a node that is cut off from an outage, in which whoever is somewhere stays there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use plenary_cluster::LEASE_LIFE;
use plenary_media_core::RouterId;

/// Written by the lease and the media threads, read by probes and joins.
#[derive(Debug, Default)]
pub struct Reach(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    has_store: bool,
    /// When the store last confirmed the lease.
    renewed: Option<Instant>,
    /// Routers of other nodes whose links are up, and whether their nodes reach the store.
    others: BTreeMap<RouterId, bool>,
}

impl Reach {
    /// The store has answered. True if it had not before.
    pub fn renewed(&self, now: Instant) -> bool {
        let state = &mut *self.state();
        state.renewed = Some(now);
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
    pub fn hear(&self, router: RouterId, reaches: bool) {
        self.state().others.insert(router, reaches);
    }

    /// Its link is down.
    pub fn is_silent(&self, router: &RouterId) {
        self.state().others.remove(router);
    }

    /// Whether only this node, or not every one, has lost the store. Known when its lease has run out: the others, which try
    /// to renew theirs every second, have noticed by then if they lost it too.
    pub fn is_cut_off(&self, now: Instant) -> bool {
        let state = self.state();
        let is_late = state.renewed.is_some_and(|renewed| now.saturating_duration_since(renewed) >= NOTICED_BY_ALL);
        !state.has_store && is_late && state.others.values().any(|reaches| *reaches)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A renewal each second, 0.8 s until one is given up, and the way of the word.
const NOTICED_BY_ALL: Duration = LEASE_LIFE;

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
        reach.hear(router("a"), false);
        reach.hear(router("b"), true);
        assert!(!reach.is_cut_off(later), "it was not refused yet");
        assert!(reach.lost() && !reach.lost());
        assert!(!reach.is_cut_off(later - Duration::from_millis(1)), "the others may not know yet");
        assert!(reach.is_cut_off(later));
        reach.hear(router("b"), false);
        assert!(!reach.is_cut_off(later), "all have lost it");
        reach.hear(router("b"), true);
        reach.is_silent(&router("b"));
        assert!(!reach.is_cut_off(later), "nobody is heard who has it");
        reach.hear(router("a"), true);
        assert!(reach.is_cut_off(later));
        assert!(reach.renewed(later));
        assert!(!reach.is_cut_off(later));
    }

    #[test]
    fn a_node_without_links_is_never_cut_off() {
        let (reach, start) = (Reach::default(), Instant::now());
        reach.renewed(start);
        reach.lost();
        assert!(!reach.is_cut_off(start + LEASE_LIFE * 100));
    }
}
