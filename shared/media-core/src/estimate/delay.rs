//! Whether the one-way delay grows: a line fitted through the delay of bursts, against a threshold that adapts
//! (draft-ietf-rmcat-gcc-02 5.3 and 5.4, with a trendline in place of the Kalman filter).

/// The delay signal of one path.
#[derive(Debug)]
pub(super) struct DelayTrend {
    current: Option<Burst>,
    previous: Option<Burst>,
    /// Delay summed over bursts since the start, and smoothed.
    accumulated_ms: f64,
    smoothed_ms: f64,
    points: [(f64, f64); POINTS],
    bursts: usize,
    first_arrival_us: Option<i64>,
    threshold: f64,
    last_signal: f64,
    over_since_us: Option<i64>,
    last_update_us: Option<i64>,
    usage: Usage,
    queue: Queue,
}

/// How much longer packets take than the quickest did.
#[derive(Debug, Default)]
struct Queue {
    /// The least delay of this window, and of the one before it.
    least_us: [Option<i64>; 2],
    window_began_us: i64,
    /// The least delay of the last slices of time, newest last.
    recent_us: [Option<i64>; RECENT_SLICES],
    slice_began_us: i64,
    /// By how much a slice's least delay is off the line through the two before, on average: a queue that fills or drains is
    /// no jitter.
    jitter_us: i64,
}

impl Queue {
    fn on_arrival(&mut self, sent_us: u64, arrival_us: i64) {
        let delay = arrival_us.saturating_sub(i64::try_from(sent_us).unwrap_or(i64::MAX));
        let least = |known: Option<i64>| Some(known.map_or(delay, |least| least.min(delay)));
        let [current, before] = self.least_us;
        if arrival_us.saturating_sub(self.window_began_us) > BASE_WINDOW_US {
            (self.least_us, self.window_began_us) = ([Some(delay), current], arrival_us);
        } else {
            self.least_us = [least(current), before];
        }
        if arrival_us.saturating_sub(self.slice_began_us) > SLICE_US {
            if let [.., Some(first), Some(before), Some(last)] = self.recent_us {
                let bend = last.saturating_sub(before).saturating_sub(before.saturating_sub(first));
                let change = (bend.unsigned_abs() / 2).min(CHANGE_MAX_US).cast_signed();
                self.jitter_us = self.jitter_us.saturating_add(change.saturating_sub(self.jitter_us) / JITTER_SLICES);
            }
            self.recent_us.rotate_left(1);
            (self.recent_us[RECENT_SLICES - 1], self.slice_began_us) = (None, arrival_us);
        }
        self.recent_us[RECENT_SLICES - 1] = least(self.recent_us[RECENT_SLICES - 1]);
    }

    /// What even the quickest packet of the last so many slices waited. Nothing until all of them have heard of something.
    fn standing_us(&self, slices: usize) -> i64 {
        let mut recent = self.recent_us.iter().rev().take(slices);
        let recent = recent.try_fold(i64::MAX, |least, slice| Some(least.min((*slice)?)));
        let base = self.least_us.into_iter().flatten().min();
        recent.zip(base).map_or(0, |(recent, base)| recent.saturating_sub(base))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Normal,
    Over,
    Under,
}

/// Packets that left together: what stands between them is not the path's doing.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first_sent_us: u64,
    last_sent_us: u64,
    last_arrival_us: i64,
}

impl Default for DelayTrend {
    fn default() -> Self {
        Self {
            current: None,
            previous: None,
            accumulated_ms: 0.0,
            smoothed_ms: 0.0,
            points: [(0.0, 0.0); POINTS],
            bursts: 0,
            first_arrival_us: None,
            threshold: THRESHOLD_START,
            last_signal: 0.0,
            over_since_us: None,
            last_update_us: None,
            usage: Usage::Normal,
            queue: Queue::default(),
        }
    }
}

impl DelayTrend {
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// What stands in the path's queue: even the quickest packet of the last tenths of a second waited so long.
    pub(super) fn standing_queue_ms(&self) -> f64 {
        millis(self.queue.standing_us(RECENT_SLICES))
    }

    /// What the queue has grown or shrunk to, as early as that can be told from a picture's own way through it.
    pub(super) fn newest_queue_ms(&self) -> f64 {
        millis(self.queue.standing_us(NEWEST_SLICES))
    }

    /// How much the path delays at random, beyond what a bottleneck of this rate does by sending one packet after the
    /// other.
    pub(super) fn unrest_ms(&self, bits_per_second: f64) -> f64 {
        let packet_ms = PACKET_BITS / bits_per_second.max(1.0) * 1_000.0;
        (millis(self.queue.jitter_us) - packet_ms.max(QUIET_MS)).max(0.0)
    }

    /// The delay that the path has now is its own: less was sent, and it stayed.
    pub(super) fn accept_delay(&mut self) {
        self.queue.least_us = [None; 2];
    }

    /// One packet in order of sending. Says how the path is used when a burst is complete.
    pub(super) fn on_arrival(&mut self, sent_us: u64, arrival_us: i64) -> Option<Usage> {
        self.queue.on_arrival(sent_us, arrival_us);
        let Some(burst) = self.current.as_mut() else {
            self.current = Some(Burst { first_sent_us: sent_us, last_sent_us: sent_us, last_arrival_us: arrival_us });
            return None;
        };
        if sent_us < burst.first_sent_us {
            return None;
        }
        if sent_us.saturating_sub(burst.first_sent_us) <= BURST_US {
            burst.last_sent_us = burst.last_sent_us.max(sent_us);
            burst.last_arrival_us = burst.last_arrival_us.max(arrival_us);
            return None;
        }
        let complete = *burst;
        self.current = Some(Burst { first_sent_us: sent_us, last_sent_us: sent_us, last_arrival_us: arrival_us });
        let previous = self.previous.replace(complete)?;
        let sent =
            millis(i64::try_from(complete.last_sent_us.saturating_sub(previous.last_sent_us)).unwrap_or(i64::MAX));
        let arrived = millis(complete.last_arrival_us.saturating_sub(previous.last_arrival_us));
        if !(0.0..CLOCK_JUMP_MS).contains(&arrived) || sent > CLOCK_JUMP_MS {
            // The receiver's clock was changed, or nothing was sent for long: what came before says nothing.
            *self = Self { current: self.current, threshold: self.threshold, ..Self::default() };
            return None;
        }
        Some(self.on_burst(complete.last_arrival_us, arrived - sent))
    }

    fn on_burst(&mut self, arrival_us: i64, variation_ms: f64) -> Usage {
        let first = *self.first_arrival_us.get_or_insert(arrival_us);
        self.accumulated_ms += variation_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        self.points.rotate_left(1);
        if let Some(last) = self.points.last_mut() {
            *last = (millis(arrival_us.saturating_sub(first)), self.smoothed_ms);
        }
        self.bursts = self.bursts.saturating_add(1);
        if self.bursts < POINTS {
            return self.usage;
        }
        let bursts = f64::from(u32::try_from(self.bursts.min(BURSTS_COUNTED)).unwrap_or_default());
        let signal = slope(&self.points) * bursts * GAIN;
        self.detect(arrival_us, signal);
        self.adapt(arrival_us, signal);
        self.last_signal = signal;
        self.usage
    }

    fn detect(&mut self, arrival_us: i64, signal: f64) {
        if signal > self.threshold {
            let since = *self.over_since_us.get_or_insert(arrival_us);
            // A single late burst is not congestion; nor is a queue that already drains.
            let lasting = arrival_us.saturating_sub(since) >= OVERUSE_US;
            if lasting && signal >= self.last_signal {
                self.usage = Usage::Over;
            }
            return;
        }
        self.over_since_us = None;
        self.usage = if signal < -self.threshold { Usage::Under } else { Usage::Normal };
    }

    /// Follows the signal slowly, so that a path with much jitter, or one shared with greedy flows, is not taken for
    /// congested for ever.
    fn adapt(&mut self, arrival_us: i64, signal: f64) {
        let elapsed = self.last_update_us.map_or(0.0, |last| millis(arrival_us.saturating_sub(last)));
        self.last_update_us = Some(arrival_us);
        let distance = signal.abs() - self.threshold;
        if distance > OUTLIER {
            return;
        }
        let rate = if distance < 0.0 { ADAPT_DOWN } else { ADAPT_UP };
        self.threshold =
            (self.threshold + rate * distance * elapsed.clamp(0.0, 100.0)).clamp(THRESHOLD_MIN, THRESHOLD_MAX);
    }
}

/// Least squares: milliseconds of delay gained per millisecond.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = f64::from(u32::try_from(points.len()).unwrap_or(1).max(1));
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (covariance, variance) = points.iter().fold((0.0, 0.0), |(covariance, variance), (x, y)| {
        (covariance + (x - mean_x) * (y - mean_y), variance + (x - mean_x) * (x - mean_x))
    });
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

fn millis(micros: i64) -> f64 {
    let micros = i32::try_from(micros).unwrap_or(if micros < 0 { i32::MIN } else { i32::MAX });
    f64::from(micros) / 1_000.0
}

const BASE_WINDOW_US: i64 = 15_000_000;
const SLICE_US: i64 = 50_000;
const QUIET_MS: f64 = 8.0;
/// A large packet.
const PACKET_BITS: f64 = 9_600.0;
const JITTER_SLICES: i64 = 16;
const CHANGE_MAX_US: u64 = 200_000;
const RECENT_SLICES: usize = 4;
const NEWEST_SLICES: usize = 2;
const BURST_US: u64 = 5_000;
const POINTS: usize = 20;
const BURSTS_COUNTED: usize = 60;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const THRESHOLD_START: f64 = 12.5;
const THRESHOLD_MIN: f64 = 6.0;
const THRESHOLD_MAX: f64 = 600.0;
const ADAPT_UP: f64 = 0.0087;
const ADAPT_DOWN: f64 = 0.039;
const OUTLIER: f64 = 15.0;
const OVERUSE_US: i64 = 10_000;
const CLOCK_JUMP_MS: f64 = 3_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a packet every 10 ms over a path whose delay in µs is `delay(n)`.
    fn run(trend: &mut DelayTrend, packets: std::ops::Range<u64>, delay: impl Fn(u64) -> i64) -> Vec<Usage> {
        packets.filter_map(|n| trend.on_arrival(n * 10_000, (n * 10_000) as i64 + delay(n))).collect()
    }

    #[test]
    fn a_steady_path_is_normal() {
        let usages = run(&mut DelayTrend::default(), 0..500, |_| 40_000);
        assert!(usages.iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn jitter_without_a_trend_is_normal() {
        let usages = run(&mut DelayTrend::default(), 0..2_000, |n| 40_000 + (n * 7_919 % 13) as i64 * 500);
        assert!(usages.iter().all(|usage| *usage != Usage::Over));
    }

    #[test]
    fn a_filling_queue_is_overuse_and_a_draining_one_underuse() {
        let mut trend = DelayTrend::default();
        run(&mut trend, 0..100, |_| 40_000);
        // The queue grows by 1 ms every 10 ms: 10 % too much.
        let filling = run(&mut trend, 100..200, |n| 40_000 + (n as i64 - 100) * 1_000);
        let noticed = filling.iter().position(|usage| *usage == Usage::Over).expect("overuse is noticed");
        assert!(noticed < 40, "noticed after {noticed} bursts");
        let draining = run(&mut trend, 200..260, |n| 140_000 - (n as i64 - 200) * 1_600);
        assert!(draining.contains(&Usage::Under));
        let after = run(&mut trend, 260..500, |_| 44_000);
        assert_eq!(after.last(), Some(&Usage::Normal));
    }

    #[test]
    fn a_queue_that_fills_is_no_unrest_and_a_delay_that_swings_is() {
        let mut trend = DelayTrend::default();
        run(&mut trend, 0..300, |n| 40_000 + n as i64 * 2_500);
        assert!(trend.unrest_ms(4_000_000.0) < 1.0);
        let mut trend = DelayTrend::default();
        run(&mut trend, 0..300, |n| 120_000 - (n % 20) as i64 * 4_000);
        assert!(trend.unrest_ms(4_000_000.0) > 8.0);
        assert!(trend.unrest_ms(100_000.0) < 1.0, "so long a slow bottleneck takes for a packet");
    }

    #[test]
    fn a_jump_of_the_receivers_clock_is_forgotten() {
        let mut trend = DelayTrend::default();
        run(&mut trend, 0..100, |_| 40_000);
        let after = run(&mut trend, 100..300, |_| 3_600_000_000);
        assert!(after.iter().all(|usage| *usage == Usage::Normal));
    }
}
