//! How much may be sent over a link: as much as is wanted, until losses that repair does not mend or a standing queue show
//! that less gets through. Then it is what did get through, less a margin, and grows again slowly.
//!
//! Hot: `confirmed` runs once per ack; counters only.

use std::time::{Duration, Instant};

use crate::ingress::after;

#[derive(Debug)]
pub(super) struct Budget {
    bits_per_second: Option<u64>,
    /// What is being counted, since when, and what was before, the newest last.
    slot: Slot,
    began: Option<Instant>,
    last: [Slot; SLOTS],
    /// Slots in a row in which the way was pressed, and in which most of it got lost.
    pressed: u32,
    swamped: u32,
    /// How much longer than the fastest what we send is under way, as the other side says.
    queue: Duration,
    /// As much of it is the way's own.
    accepted: Duration,
    cut: Option<Cut>,
    /// Nothing grows before this long after a cut.
    patience: Duration,
}

/// The last time that less was given.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: Instant,
    /// Datagrams got lost; otherwise they only waited.
    for_loss: bool,
    queue: Duration,
}

/// Datagrams of a tenth of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    arrived: u64,
    missing: u64,
    /// Too old to be repeated, and how many of them never arrived.
    passed: u64,
    lost: u64,
    /// Of those that arrived.
    bytes: u64,
    span_ms: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bits_per_second: None,
            slot: Slot::default(),
            began: None,
            last: [Slot::default(); SLOTS],
            pressed: 0,
            swamped: 0,
            queue: Duration::ZERO,
            accepted: Duration::ZERO,
            cut: None,
            patience: PATIENCE_MIN,
        }
    }
}

impl Budget {
    pub(super) fn bits_per_second(&self) -> Option<u64> {
        self.bits_per_second
    }

    /// All that is wanted fits: there is nothing to hold back.
    pub(super) fn lift(&mut self) {
        self.bits_per_second = None;
    }

    /// Hot. An ack said that so many datagrams came, with so many bytes, and that so many others did not.
    pub(super) fn confirmed(&mut self, arrived: usize, bytes: usize, missing: usize) {
        self.slot.arrived = plus(self.slot.arrived, arrived);
        self.slot.bytes = plus(self.slot.bytes, bytes);
        self.slot.missing = plus(self.slot.missing, missing);
    }

    /// So many datagrams are too old to be repeated; of these, so many never came.
    pub(super) fn passed(&mut self, passed: usize, lost: usize) {
        self.slot.passed = plus(self.slot.passed, passed);
        self.slot.lost = plus(self.slot.lost, lost);
    }

    pub(super) fn set_queue(&mut self, queue: Duration) {
        self.queue = queue;
        self.accepted = self.accepted.min(queue);
    }

    /// Repeated video would only add to what is lost.
    pub(super) fn spares_repairs(&self, now: Instant) -> bool {
        self.swamped > 1 || self.cut.is_some_and(|cut| cut.for_loss && now < after(cut.at, SETTLING))
    }

    /// Draws conclusions, ten times a second. True if less may be sent from now on.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        if now < after(began, SLOT) {
            return false;
        }
        let mut slot = std::mem::take(&mut self.slot);
        slot.span_ms = u64::try_from(now.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
        self.began = Some(now);
        self.last.rotate_left(1);
        if let Some(newest) = self.last.last_mut() {
            *newest = slot;
        }
        // Silence says that the way is cut, which is the liveness' affair, and not that it is narrow.
        if slot.arrived == 0 {
            (self.pressed, self.swamped) = (0, 0);
            return false;
        }
        let seen = slot.arrived.saturating_add(slot.missing);
        let is_swamped = seen >= SEEN_MIN && slot.missing.saturating_mul(100) > seen.saturating_mul(SWAMPED_PERCENT);
        let in_a_row = |before: u32, is_so: bool| if is_so { before.saturating_add(1) } else { 0 };
        self.swamped = in_a_row(self.swamped, is_swamped);
        let (loses, waits) =
            (self.swamped >= SWAMPED_SLOTS || self.loses(), self.queue.saturating_sub(self.accepted) > QUEUE_MAX);
        self.pressed = in_a_row(self.pressed, loses || waits);
        if self.swamped < SWAMPED_SLOTS && self.pressed < PRESSED_SLOTS {
            if self.pressed == 0 {
                self.grow(now);
            }
            return false;
        }
        let Some(last) = self.cut.filter(|cut| now < after(cut.at, PATIENCE_MIN)) else { return self.cut(now, loses) };
        if !loses && !last.for_loss && self.queue.saturating_add(FALL_MIN) > last.queue {
            // Less was sent, and everything is under way for as long as before: the way has become longer.
            (self.accepted, self.bits_per_second, self.cut) = (self.queue, None, None);
            self.pressed = 0;
            return false;
        }
        now >= after(last.at, SETTLING) && self.cut(now, loses)
    }

    /// More than repair can mend.
    fn loses(&self) -> bool {
        let sum = |of: fn(&Slot) -> u64| self.last.iter().map(of).fold(0u64, u64::saturating_add);
        let lost = sum(|slot| slot.lost);
        lost >= LOST_MIN && lost.saturating_mul(100) > sum(|slot| slot.passed).saturating_mul(LOSS_PERCENT)
    }

    fn cut(&mut self, now: Instant, for_loss: bool) -> bool {
        let newer_half = self.last.get(SLOTS / 2..).unwrap_or_default();
        let sum = |of: fn(&Slot) -> u64| newer_half.iter().map(of).fold(0u64, u64::saturating_add);
        let through = sum(|slot| slot.bytes).saturating_mul(8_000).checked_div(sum(|slot| slot.span_ms));
        let kept = through.unwrap_or_default().saturating_mul(KEPT_PERCENT).checked_div(100);
        let kept = kept.unwrap_or_default().max(BITS_MIN);
        self.bits_per_second = Some(self.bits_per_second.map_or(kept, |before| before.min(kept)));
        let again = self.cut.is_some_and(|cut| now < after(cut.at, PATIENCE_MAX));
        self.patience = if again { self.patience.saturating_mul(2).min(PATIENCE_MAX) } else { PATIENCE_MIN };
        self.cut = Some(Cut { at: now, for_loss, queue: self.queue });
        (self.pressed, self.swamped) = (0, 0);
        self.last = Default::default();
        true
    }

    fn grow(&mut self, now: Instant) {
        if let Some(bits) = &mut self.bits_per_second
            && self.cut.is_none_or(|cut| now >= after(cut.at, self.patience))
        {
            let step = bits.saturating_mul(GROWTH_PERCENT_PER_SLOT).checked_div(100).unwrap_or_default();
            *bits = bits.saturating_add(step);
        }
    }
}

/// How much longer than the fastest what comes was under way. Only differences are known: the clocks are two.
#[derive(Debug, Default)]
pub(super) struct Transit {
    /// The shortest of this stretch of time and of the one before, in microseconds between the two clocks.
    shortest: [Option<i64>; 2],
    since: Option<Instant>,
    excess: Duration,
}

impl Transit {
    /// `sent_us` on their clock, `now_us` on ours.
    pub(super) fn note(&mut self, now: Instant, sent_us: u64, now_us: u64) {
        let micros = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let transit = micros(now_us).saturating_sub(micros(sent_us));
        if self.since.is_none_or(|since| now >= after(since, SHORTEST_KEPT)) {
            let [current, _] = self.shortest;
            (self.shortest, self.since) = ([None, current], Some(now));
        }
        let [current, _] = &mut self.shortest;
        *current = Some(current.map_or(transit, |shortest| shortest.min(transit)));
        let shortest = self.shortest.iter().flatten().min().copied().unwrap_or(transit);
        self.excess = Duration::from_micros(u64::try_from(transit.saturating_sub(shortest)).unwrap_or_default());
    }

    pub(super) fn excess(&self) -> Duration {
        self.excess
    }
}

fn plus(sum: u64, more: usize) -> u64 {
    sum.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}

const SLOT: Duration = Duration::from_millis(100);
/// A second.
const SLOTS: usize = 10;
/// After repair.
const LOSS_PERCENT: u64 = 2;
/// Of one or two that were lost among few nothing follows.
const LOST_MIN: u64 = 5;
const QUEUE_MAX: Duration = Duration::from_millis(50);
/// A second of either.
const PRESSED_SLOTS: u32 = 10;
/// Before repair: for this nobody waits a second, since audio is lost with the rest.
const SWAMPED_PERCENT: u64 = 25;
const SWAMPED_SLOTS: u32 = 3;
const SEEN_MIN: u64 = 10;
/// Of what got through, so that the queue runs empty.
const KEPT_PERCENT: u64 = 85;
/// The smallest step to grow from.
const BITS_MIN: u64 = 100_000;
/// For what is under way and in the queue to be gone.
const SETTLING: Duration = Duration::from_secs(1);
/// What a queue shrinks by at least in a second in which less was sent.
const FALL_MIN: Duration = Duration::from_millis(10);
/// Doubled each time that growing ended in another cut.
const PATIENCE_MIN: Duration = Duration::from_secs(2);
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// A fifth in a second.
const GROWTH_PERCENT_PER_SLOT: u64 = 2;
/// A way that has become longer is the way by then.
const SHORTEST_KEPT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots in each of which so many of a hundred datagrams of 1,000 bytes are missing, and so many lost for good.
    fn play(budget: &mut Budget, now: &mut Instant, slots: usize, missing: usize, lost: usize) {
        for _ in 0..slots {
            budget.confirmed(100 - missing, 1_000 * (100 - missing), missing);
            budget.passed(100, lost);
            *now += SLOT;
            budget.poll(*now);
        }
    }

    fn started() -> (Budget, Instant) {
        let (mut budget, mut now) = (Budget::default(), Instant::now());
        budget.poll(now);
        play(&mut budget, &mut now, 20, 0, 0);
        assert_eq!(budget.bits_per_second(), None);
        (budget, now)
    }

    #[test]
    fn loss_that_repair_mends_costs_nothing() {
        let (mut budget, mut now) = started();
        play(&mut budget, &mut now, 600, 20, 1);
        assert_eq!(budget.bits_per_second(), None);
    }

    #[test]
    fn a_second_of_loss_or_of_a_queue_leaves_what_gets_through() {
        let (mut budget, mut now) = started();
        // It takes half a second until they are two in a hundred of the last second.
        play(&mut budget, &mut now, 14, 5, 4);
        assert_eq!(budget.bits_per_second(), None);
        play(&mut budget, &mut now, 1, 5, 4);
        // 95 of a hundred datagrams in a tenth of a second.
        assert_eq!(budget.bits_per_second(), Some(95 * 1_000 * 8 * 10 * 85 / 100));
        let (mut budget, mut now) = started();
        budget.set_queue(QUEUE_MAX + SLOT);
        play(&mut budget, &mut now, 10, 0, 0);
        assert_eq!(budget.bits_per_second(), Some(6_800_000));
    }

    #[test]
    fn a_way_that_has_become_longer_is_no_queue() {
        let (mut budget, mut now) = started();
        budget.set_queue(Duration::from_millis(80));
        play(&mut budget, &mut now, 10, 5, 0);
        assert!(budget.bits_per_second().is_some() && !budget.spares_repairs(now));
        play(&mut budget, &mut now, 10, 5, 0);
        assert_eq!(budget.bits_per_second(), None, "less was of no use");
        play(&mut budget, &mut now, 600, 5, 0);
        assert_eq!(budget.bits_per_second(), None);
        budget.set_queue(Duration::from_millis(140));
        play(&mut budget, &mut now, 10, 5, 0);
        assert!(budget.bits_per_second().is_some(), "what comes on top of it is one");
    }

    #[test]
    fn a_way_that_is_far_too_narrow_is_noticed_at_once() {
        let (mut budget, mut now) = started();
        play(&mut budget, &mut now, 2, 70, 0);
        assert!(budget.spares_repairs(now));
        assert_eq!(budget.bits_per_second(), None);
        play(&mut budget, &mut now, 1, 70, 0);
        assert!(budget.bits_per_second().is_some());
    }

    #[test]
    fn an_outage_is_no_narrow_way() {
        let (mut budget, mut now) = started();
        play(&mut budget, &mut now, 5, 100, 0);
        play(&mut budget, &mut now, 1, 90, 0);
        play(&mut budget, &mut now, 20, 0, 1);
        assert_eq!(budget.bits_per_second(), None);
    }

    #[test]
    fn it_grows_slowly_and_slower_each_time_that_this_ends_in_a_cut() {
        let (mut budget, mut now) = started();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            play(&mut budget, &mut now, SWAMPED_SLOTS as usize, 70, 0);
            let (cut, low) = (now, budget.bits_per_second().unwrap());
            while budget.bits_per_second() == Some(low) {
                play(&mut budget, &mut now, 1, 0, 0);
            }
            pauses.push((now - cut).as_secs());
            play(&mut budget, &mut now, 10, 0, 0);
            let grown = budget.bits_per_second().unwrap() as f64 / low as f64;
            assert!((1.1..1.3).contains(&grown), "{grown} in a second");
        }
        assert_eq!(pauses, [2, 4, 8, 16]);
    }

    #[test]
    fn only_what_takes_longer_than_the_fastest_is_a_queue() {
        let (mut transit, start) = (Transit::default(), Instant::now());
        let mut at = |ms: u64, took_ms: u64| {
            // Their clock stands at another hour.
            transit.note(
                start + Duration::from_millis(ms + took_ms),
                1_000 * ms,
                3_600_000_000 + 1_000 * (ms + took_ms),
            );
            transit.excess().as_millis()
        };
        assert_eq!([at(0, 20), at(100, 25), at(200, 20), at(300, 90)], [0, 5, 0, 70]);
        assert_eq!(
            (1..300).map(|tenth| at(300 + 100 * tenth, 90)).last(),
            Some(0),
            "a longer way is no queue for ever"
        );
    }
}
