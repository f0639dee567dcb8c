//! Packets of one stream that have not come, and when to ask for each.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::after;

/// Missing packets in ascending order.
#[derive(Debug, Default)]
pub(super) struct LossList {
    missing: Vec<Missing>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    index: u64,
    asked: u8,
    due: Instant,
}

impl LossList {
    /// Packets that a newer one has overtaken. A gap wider than the list starts the list anew: asking for so many would
    /// only make the congestion worse, and a key frame repairs more.
    pub(super) fn on_gap(&mut self, now: Instant, indices: Range<u64>) {
        let gap = usize::try_from(indices.end.saturating_sub(indices.start)).unwrap_or(usize::MAX);
        if gap > MISSING_MAX {
            self.missing.clear();
            return;
        }
        let excess = self.missing.len().saturating_add(gap).saturating_sub(MISSING_MAX);
        self.missing.drain(..excess.min(self.missing.len()));
        let due = after(now, REORDER_GRACE);
        self.missing.extend(indices.map(|index| Missing { index, asked: 0, due }));
    }

    pub(super) fn on_arrival(&mut self, index: u64) {
        if let Ok(at) = self.missing.binary_search_by_key(&index, |missing| missing.index) {
            self.missing.remove(at);
        }
    }

    pub(super) fn due(&mut self, now: Instant, rtt: Duration, out: &mut Vec<u16>) {
        let retry = after(now, rtt.saturating_mul(3).checked_div(2).unwrap_or(rtt).clamp(RETRY_MIN, RETRY_MAX));
        let mut room = NACKS_PER_TURN;
        self.missing.retain_mut(|missing| {
            if missing.due > now || room == 0 {
                return true;
            }
            if missing.asked >= ASKS_MAX {
                return false;
            }
            let [.., high, low] = missing.index.to_be_bytes();
            out.push(u16::from_be_bytes([high, low]));
            room = room.saturating_sub(1);
            missing.asked = missing.asked.saturating_add(1);
            missing.due = retry;
            true
        });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due).min()
    }
}

/// What is missing longer than this has been given up: half of what the store keeps for others.
const MISSING_MAX: usize = 256;
/// Packets that merely changed places arrive within this.
const REORDER_GRACE: Duration = Duration::from_millis(5);
const RETRY_MIN: Duration = Duration::from_millis(25);
const RETRY_MAX: Duration = Duration::from_millis(500);
const ASKS_MAX: u8 = 10;
pub(super) const NACKS_PER_TURN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn asked(list: &mut LossList, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        list.due(now, RTT, &mut out);
        out
    }

    #[test]
    fn a_reordered_packet_is_never_asked_for() {
        let start = Instant::now();
        let mut list = LossList::default();
        list.on_gap(start, 10..12);
        list.on_arrival(10);
        assert_eq!(asked(&mut list, start), [0u16; 0]);
        assert_eq!(asked(&mut list, start + REORDER_GRACE), [11]);
    }

    #[test]
    fn a_lost_packet_is_asked_for_once_per_round_trip_and_then_given_up() {
        let start = Instant::now();
        let mut list = LossList::default();
        list.on_gap(start, 10..11);
        let asks: Vec<u64> =
            (0..5_000).filter(|ms| !asked(&mut list, start + Duration::from_millis(*ms)).is_empty()).collect();
        let expected: Vec<u64> = (0..u64::from(ASKS_MAX)).map(|n| 5 + n * 150).collect();
        assert_eq!(asks, expected);
        assert_eq!(list.deadline(), None);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_newest() {
        let now = Instant::now();
        let mut list = LossList::default();
        for n in 0..1_000 {
            list.on_gap(now, n * 10..n * 10 + 5);
            assert!(list.missing.len() <= MISSING_MAX);
        }
        assert_eq!(list.missing.last().map(|missing| missing.index), Some(9_994));
        assert_eq!(asked(&mut list, now + REORDER_GRACE).len(), NACKS_PER_TURN);
        list.on_gap(now, 20_000..20_000 + MISSING_MAX as u64 + 1);
        assert_eq!(list.deadline(), None, "a gap beyond the list asks for nothing");
    }
}
