//! Bytes over the last three seconds, in ten buckets: a key frame is no change of rate.

use std::time::{Duration, Instant};

#[derive(Debug, Default, Clone)]
pub(crate) struct RateMeter {
    epoch: Option<Instant>,
    /// Number of the bucket that is being filled, counted from the epoch.
    current: u64,
    buckets: [u64; BUCKETS],
}

impl RateMeter {
    pub(crate) fn add(&mut self, now: Instant, bytes: usize) {
        let epoch = *self.epoch.get_or_insert(now);
        let bucket = number(epoch, now);
        if bucket > self.current {
            let skipped = self.current.saturating_add(1)..=bucket;
            // At most one turn around the ring, whatever the pause was.
            for stale in skipped.take(BUCKETS) {
                self.set(stale, |bytes| *bytes = 0);
            }
            self.current = bucket;
        }
        let bytes = u64::try_from(bytes).unwrap_or_default();
        self.set(self.current, |sum| *sum = sum.saturating_add(bytes));
    }

    /// The average over the last three seconds, or over the meter's life if that is shorter.
    pub(crate) fn bits_per_second(&self, now: Instant) -> u64 {
        let Some(epoch) = self.epoch else { return 0 };
        let newest = number(epoch, now);
        let oldest = newest.saturating_sub(WINDOW_BUCKETS.saturating_sub(1));
        let filled = oldest..=self.current;
        let bytes = filled.take(BUCKETS).fold(0u64, |sum, bucket| sum.saturating_add(self.get(bucket)));
        let life = now.saturating_duration_since(epoch).clamp(BUCKET, WINDOW);
        let millis = u64::try_from(life.as_millis()).unwrap_or(1_000);
        bytes.saturating_mul(8_000).checked_div(millis).unwrap_or_default()
    }

    fn get(&self, bucket: u64) -> u64 {
        position(bucket).and_then(|at| self.buckets.get(at)).copied().unwrap_or_default()
    }

    fn set(&mut self, bucket: u64, change: impl FnOnce(&mut u64)) {
        if let Some(sum) = position(bucket).and_then(|at| self.buckets.get_mut(at)) {
            change(sum);
        }
    }
}

fn number(epoch: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_millis()).unwrap_or_default() / BUCKET_MS
}

fn position(bucket: u64) -> Option<usize> {
    usize::try_from(bucket % WINDOW_BUCKETS).ok()
}

const BUCKETS: usize = 10;
const WINDOW_BUCKETS: u64 = 10;
const BUCKET_MS: u64 = 300;
const BUCKET: Duration = Duration::from_millis(BUCKET_MS);
const WINDOW: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_measured_early_and_late() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        for ms in (0..9_000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            meter.add(now, 1_250);
            if ms > 600 {
                let rate = meter.bits_per_second(now);
                assert!((900_000..=1_100_000).contains(&rate), "{rate} after {ms} ms");
            }
        }
    }

    #[test]
    fn silence_brings_the_rate_to_zero_within_three_seconds() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        meter.add(start, 100_000);
        assert!(meter.bits_per_second(start + Duration::from_millis(2_600)) > 0);
        assert_eq!(meter.bits_per_second(start + Duration::from_millis(3_000)), 0);
        meter.add(start + Duration::from_secs(3_600), 375);
        assert_eq!(meter.bits_per_second(start + Duration::from_secs(3_600)), 1_000);
    }
}
