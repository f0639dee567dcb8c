//! When which peer wants to be woken: a heap that tolerates stale entries, so that bringing a deadline forward costs one
//! push and looking at the next costs nothing.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use plenary_model::PeerId;
use rustc_hash::FxHashMap;

use crate::Deadline;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, PeerId)>>,
    armed: FxHashMap<PeerId, (Instant, Deadline)>,
}

impl Timers {
    /// Wakes the peer no later than `at`. A later deadline than the armed one changes nothing: waking early is harmless,
    /// and the peer says again when it wants to be woken.
    pub(super) fn at_latest(&mut self, peer: PeerId, at: Instant, why: Deadline) {
        if self.armed.get(&peer).is_none_or(|(armed, _)| at < *armed) {
            self.armed.insert(peer, (at, why));
            self.heap.push(Reverse((at, peer)));
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        self.armed.remove(&peer);
    }

    pub(super) fn next(&self) -> Option<(Instant, Deadline)> {
        // A stale entry at the top wakes the thread once for nothing and is gone then.
        let Reverse((at, peer)) = self.heap.peek()?;
        Some((*at, self.armed.get(peer).map_or(Deadline::Reports, |(_, why)| *why)))
    }

    /// Takes out a peer whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<PeerId> {
        while let Some(Reverse((at, peer))) = self.heap.peek().copied() {
            if at > now {
                return None;
            }
            self.heap.pop();
            if self.armed.get(&peer).is_some_and(|(armed, _)| *armed == at) {
                self.armed.remove(&peer);
                return Some(peer);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
    fn a_peer_is_woken_once_at_its_earliest_deadline() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.at_latest(PeerId(1), at(30), Deadline::Reports);
        timers.at_latest(PeerId(1), at(10), Deadline::Nack);
        timers.at_latest(PeerId(1), at(20), Deadline::Feedback);
        timers.at_latest(PeerId(2), at(15), Deadline::Ice);
        timers.at_latest(PeerId(3), at(5), Deadline::Ice);
        timers.remove(PeerId(3));
        assert_eq!(timers.due(at(9)), None);
        assert_eq!(timers.next(), Some((at(10), Deadline::Nack)));
        assert_eq!(timers.due(at(40)), Some(PeerId(1)));
        assert_eq!(timers.due(at(40)), Some(PeerId(2)));
        assert_eq!(timers.due(at(40)), None);
        assert_eq!(timers.next(), None);
    }
}
