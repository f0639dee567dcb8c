//! Whether loss is the path's answer to the rate, or its nature.
//!
//! Radio links lose packets whatever is sent. So much loss lowers the rate once; loss that stays the same then, with no queue
//! in front of it, is taken as the path's own and judged by what exceeds it.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct LossJudge {
    since: Option<Instant>,
    arrived: u32,
    lost: u32,
    /// Smoothed share.
    share: f64,
    /// What the path loses at any rate.
    own: f64,
    /// In a row: a burst is soon over.
    high_windows: u32,
    /// The share that the rate was lowered for, and the windows since.
    tested: Option<(f64, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    Fine,
    Congested { lost: f64 },
}

impl LossJudge {
    pub(super) fn lost(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// `late`: told lost before.
    pub(super) fn arrived(&mut self, late: bool) {
        self.arrived = self.arrived.saturating_add(1);
        if late {
            self.lost = self.lost.saturating_sub(1);
        }
    }

    /// More is lost than the path loses by itself: not the time to grow.
    pub(super) fn is_some(&self) -> bool {
        self.share - self.own > LOW
    }

    /// The smoothed share.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// What was lost so far has been answered otherwise.
    pub(super) fn forget(&mut self) {
        *self = Self { own: self.own, share: self.own, ..Self::default() };
    }

    /// To be asked whenever something was told. `queued`: packets wait on the path, so loss may be its full queue.
    pub(super) fn judge(&mut self, now: Instant, queued: bool) -> Verdict {
        let since = *self.since.get_or_insert(now);
        let packets = self.arrived.saturating_add(self.lost);
        if packets < PACKETS_MIN || now.saturating_duration_since(since) < WINDOW {
            return Verdict::Fine;
        }
        let lost = f64::from(self.lost) / f64::from(packets);
        (self.since, self.arrived, self.lost) = (Some(now), 0, 0);
        self.window(lost, queued)
    }

    /// The share that a receiver report tells of its interval, which is so long that it needs neither smoothing nor a
    /// second opinion.
    pub(super) fn reported(&mut self, lost: f64) -> Verdict {
        (self.share, self.high_windows) = (lost, HIGH_WINDOWS);
        self.window(lost, false)
    }

    fn window(&mut self, lost: f64, queued: bool) -> Verdict {
        self.share += (lost - self.share) * SMOOTHING;
        // Slowly up as long as nothing waits, quicker down.
        if self.share < self.own {
            self.own += (self.share - self.own) * OWN_DOWN;
        } else if !queued {
            self.own += (self.share.min(OWN_MAX) - self.own) * OWN_UP;
        }
        if let Some((before, windows)) = self.tested {
            if windows < TEST_WINDOWS {
                self.tested = Some((before, windows.saturating_add(1)));
                return Verdict::Fine;
            }
            self.tested = None;
            if self.share > before * SAME && !queued {
                self.own = self.share.min(OWN_MAX);
            }
        }
        let is_high = lost > HIGH && self.share > HIGH && self.share - self.own > EXCESS;
        self.high_windows = if is_high { self.high_windows.saturating_add(1) } else { 0 };
        if self.high_windows >= HIGH_WINDOWS {
            self.high_windows = 0;
            self.tested = Some((self.share, 0));
            return Verdict::Congested { lost: self.share - self.own };
        }
        Verdict::Fine
    }
}

/// Up to here loss is taken as the path's own.
const LOW: f64 = 0.02;
const HIGH: f64 = 0.10;
/// Above the path's own, where that is high itself.
const EXCESS: f64 = 0.08;
const OWN_UP: f64 = 0.02;
const OWN_DOWN: f64 = 0.1;
const OWN_MAX: f64 = 0.35;
const SMOOTHING: f64 = 0.2;
/// Half of it gone was the rate's doing.
const SAME: f64 = 0.7;
const HIGH_WINDOWS: u32 = 2;
/// A decrease has shown by then.
const TEST_WINDOWS: u32 = 3;
const WINDOW: Duration = Duration::from_millis(300);
const PACKETS_MIN: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(judge: &mut LossJudge, windows: usize, lost: impl Fn(usize) -> f64) -> Vec<usize> {
        (0..windows).filter(|at| judge.window(lost(*at), false) != Verdict::Fine).collect()
    }

    #[test]
    fn loss_that_stays_whatever_is_sent_is_the_paths_own() {
        let mut judge = LossJudge::default();
        let swings = |at: usize| if at.is_multiple_of(2) { 0.24 } else { 0.16 };
        let congested = run(&mut judge, 200, swings);
        assert!((1..=3).contains(&congested.len()), "{congested:?}");
        assert!(!judge.is_some(), "it may grow again");
        let worse = run(&mut judge, 10, |_| 0.5);
        assert!(!worse.is_empty(), "what exceeds it still counts");
    }

    #[test]
    fn loss_that_goes_with_the_rate_is_congestion_each_time() {
        let mut judge = LossJudge::default();
        for _ in 0..5 {
            assert!(!run(&mut judge, 6, |_| 0.3).is_empty());
            assert_eq!(run(&mut judge, 20, |_| 0.0), [0usize; 0]);
            assert!(judge.own < 0.08, "{}", judge.own);
        }
    }

    #[test]
    fn little_loss_only_stops_growth() {
        let mut judge = LossJudge::default();
        assert_eq!(run(&mut judge, 10, |_| 0.05), [0usize; 0]);
        assert!(judge.is_some());
        run(&mut judge, 100, |_| 0.05);
        assert!(!judge.is_some(), "in the end it is the path's own");
    }
}
