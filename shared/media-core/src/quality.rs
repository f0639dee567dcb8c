//! How well a call goes over one transport, as a mean opinion score.
//!
//! The E-model (ITU-T G.107) in its simplified form: a rating of 93.2 less what delay and loss take from it, turned into a
//! score of 1 to 4.5 (Annex B). Video that gets less than its tile calls for takes from it too. 0: nothing is heard at all.

use std::time::{Duration, Instant};

use crate::ingress::after;

/// What was measured of one transport since the last score.
#[derive(Debug)]
pub(crate) struct QualityMeter {
    due: Instant,
    /// The first window is over, in which the path is still being found out.
    is_settled: bool,
    told: f64,
    /// Of 256.
    lost: u64,
    expected: u64,
    delay: Duration,
    /// Of what is wanted, granted; summed and counted.
    shares: f64,
    samples: u32,
}

impl QualityMeter {
    pub(crate) fn new(now: Instant) -> Self {
        let delay = Duration::ZERO;
        let due = after(now, WINDOW);
        Self { due, is_settled: false, told: UNTOLD, lost: 0, expected: 0, delay, shares: 0.0, samples: 0 }
    }

    /// Packets that were to arrive, and how many of them did not.
    pub(crate) fn packets(&mut self, lost: u64, expected: u64) {
        self.lost = self.lost.saturating_add(lost);
        self.expected = self.expected.saturating_add(expected);
    }

    /// The round trip, as far as it is known.
    pub(crate) fn round_trip(&mut self, round_trip: Duration) {
        self.delay = round_trip.checked_div(2).unwrap_or_default();
    }

    /// How much of the video that is called for is granted.
    pub(crate) fn share(&mut self, granted_bps: u64, wanted_bps: u64) {
        if wanted_bps > 0 {
            self.shares += (granted_bps as f64 / wanted_bps as f64).min(1.0);
            self.samples = self.samples.saturating_add(1);
        }
    }

    /// The score of the time since the last, if it is due and differs from what was told. `silence`: for so long nothing
    /// has been heard.
    pub(crate) fn close(&mut self, now: Instant, silence: Duration) -> Option<f32> {
        if now < self.due {
            return None;
        }
        let loss = if self.expected > 0 { self.lost as f64 / self.expected as f64 } else { 0.0 };
        let share = if self.samples > 0 { self.shares / f64::from(self.samples) } else { 1.0 };
        let score = if silence >= SILENCE { 0.0 } else { score(loss, self.delay, share) };
        let is_news = self.is_settled && (score - self.told).abs() >= CHANGE;
        let told = if is_news { score } else { self.told };
        *self = Self { is_settled: true, told, ..Self::new(now) };
        is_news.then_some(score as f32)
    }
}

fn score(loss: f64, delay: Duration, share: f64) -> f64 {
    let delay_ms = delay.saturating_add(ENDS).as_secs_f64() * 1_000.0;
    let by_delay = 0.024 * delay_ms + 0.11 * (delay_ms - 177.3).max(0.0);
    let percent = (loss * 100.0).clamp(0.0, 100.0);
    let by_loss = 95.0 * percent / (percent + LOSS_ROBUSTNESS);
    let rating = 93.2 - by_delay - by_loss - SHARE_WEIGHT * (1.0 - share);
    let rating = rating.clamp(0.0, 100.0);
    (1.0 + 0.035 * rating + 0.000_007 * rating * (rating - 60.0) * (100.0 - rating)).max(1.0)
}

const WINDOW: Duration = Duration::from_secs(5);
/// Longer than clients take between two checks of a path that works.
const SILENCE: Duration = Duration::from_secs(7);
/// Until something was told, everybody takes it for as good as it can be.
const UNTOLD: f64 = 4.4;
/// Smaller changes are no news.
const CHANGE: f64 = 0.1;
/// What capture, coding and playout add to the path's delay.
const ENDS: Duration = Duration::from_millis(60);
/// Bpl of G.113: of a codec that conceals, with its own redundancy.
const LOSS_ROBUSTNESS: f64 = 20.0;
/// What no video at all takes from the rating.
const SHARE_WEIGHT: f64 = 35.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_loss_and_missing_video_lower_the_score() {
        for (loss, delay_ms, share, expected) in [
            (0.0, 10, 1.0, 4.37),
            (0.0, 200, 1.0, 3.94),
            (0.02, 25, 1.0, 4.11),
            (0.05, 25, 1.0, 3.70),
            (0.10, 25, 1.0, 3.07),
            (0.20, 25, 1.0, 2.24),
            (0.0, 25, 0.25, 3.37),
            (0.0, 25, 0.0, 2.91),
            (1.0, 3_000, 0.0, 1.0),
        ] {
            let score = score(loss, Duration::from_millis(delay_ms), share);
            assert!((score - expected).abs() < 0.06, "{loss} lost, {delay_ms} ms, {share}: {score}");
        }
    }

    #[test]
    fn a_score_is_told_when_it_is_due_and_new() {
        let start = Instant::now();
        let mut meter = QualityMeter::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        meter.packets(500, 1_000);
        assert_eq!(meter.close(at(5), Duration::ZERO), None, "the path is still being found out");
        meter.packets(0, 1_000);
        assert_eq!(meter.close(at(10), Duration::ZERO), None, "as everybody thinks");
        meter.packets(100, 1_000);
        assert_eq!(meter.close(at(14), Duration::ZERO), None, "not yet");
        let worse = meter.close(at(15), Duration::ZERO).expect("news");
        assert!((2.5..3.5).contains(&worse), "{worse}");
        meter.packets(100, 1_000);
        assert_eq!(meter.close(at(20), Duration::ZERO), None, "as before");
        assert_eq!(meter.close(at(25), SILENCE), Some(0.0));
        assert!(meter.close(at(30), Duration::ZERO).expect("it is back") > 4.0);
    }
}
