//! How much of a subscriber's repairs and video may leave now.
//!
//! Two buckets: the narrow one spreads what comes at once at somewhat more than the estimate, the wide one holds the average
//! to the estimate. An ordinary picture passes both whole, so that it leaves as one run; a key frame is spread.

use std::time::{Duration, Instant};

use crate::ingress::after;

#[derive(Debug)]
pub(crate) struct Pacer {
    bits_per_second: u64,
    backlog_bytes: usize,
    peak: Bucket,
    average: Bucket,
    filled: Instant,
    /// Nothing paced leaves before the router's timer says so: runs would fall apart otherwise.
    held: bool,
}

/// Bytes that may leave; below zero when a packet was larger than what was left.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes: i64,
    /// Of the estimate, in percent.
    rate_percent: u64,
    depth: Duration,
}

impl Pacer {
    pub(crate) fn new(now: Instant, bits_per_second: u64) -> Self {
        let (peak, average) = (PEAK, AVERAGE);
        let mut pacer = Self { bits_per_second, backlog_bytes: 0, peak, average, filled: now, held: false };
        pacer.set_rate(now, bits_per_second, PEAK.rate_percent);
        pacer.peak.bytes = pacer.peak.capacity(bits_per_second);
        pacer.average.bytes = pacer.average.capacity(bits_per_second);
        pacer
    }

    /// The estimate is a new one, or what may leave at once is.
    pub(crate) fn set_rate(&mut self, now: Instant, bits_per_second: u64, peak_percent: u64) {
        self.refill(now);
        let before = std::mem::replace(&mut self.bits_per_second, bits_per_second.max(BITS_PER_SECOND_MIN));
        self.peak.rate_percent = peak_percent;
        if self.bits_per_second < before {
            // What a wider path earned must not flood this one.
            self.peak.bytes = self.peak.bytes.min(0);
            self.average.bytes = self.average.bytes.min(0);
        }
        let backlog = self.average.share(self.bits_per_second, BACKLOG);
        self.backlog_bytes = usize::try_from(backlog).unwrap_or_default().max(BACKLOG_BYTES_MIN);
    }

    pub(crate) fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        // Less than this earns no byte at the lowest rate, and would be forgotten.
        if elapsed < Duration::from_millis(1) {
            return;
        }
        self.filled = now;
        for bucket in [&mut self.peak, &mut self.average] {
            bucket.earn(self.bits_per_second, elapsed);
        }
    }

    /// Bytes that may leave now.
    pub(crate) fn allowance(&self) -> usize {
        if self.held { 0 } else { usize::try_from(self.peak.bytes.min(self.average.bytes)).unwrap_or_default() }
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        for bucket in [&mut self.peak, &mut self.average] {
            // Audio leaves whatever is left; how far that overdraws is bounded, so that video is not held for ever.
            bucket.bytes = bucket.bytes.saturating_sub(bytes).max(OVERDRAFT_MAX);
        }
    }

    /// Holds what is left until the time this says; `None` if it is held already.
    pub(crate) fn hold(&mut self) -> Option<Instant> {
        if std::mem::replace(&mut self.held, true) {
            return None;
        }
        let wait =
            |bucket: &Bucket| bucket.time_until(bucket.share(self.bits_per_second, INTERVAL), self.bits_per_second);
        Some(after(self.filled, wait(&self.peak).max(wait(&self.average)).clamp(INTERVAL, HOLD_MAX)))
    }

    pub(crate) fn release(&mut self, now: Instant) {
        self.held = false;
        self.refill(now);
    }

    /// Bytes of video that may wait.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }
}

impl Bucket {
    fn earn(&mut self, bits_per_second: u64, elapsed: Duration) {
        let earned = self.share(bits_per_second, elapsed);
        self.bytes = self.bytes.saturating_add(earned).min(self.capacity(bits_per_second));
    }

    fn capacity(&self, bits_per_second: u64) -> i64 {
        self.share(bits_per_second, self.depth)
    }

    /// Bytes earned in that time.
    fn share(&self, bits_per_second: u64, time: Duration) -> i64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let rate = bits_per_second.saturating_mul(self.rate_percent) / 800;
        i64::try_from(rate.saturating_mul(micros) / 1_000_000).unwrap_or(i64::MAX)
    }

    fn time_until(&self, bytes: i64, bits_per_second: u64) -> Duration {
        let missing = u64::try_from(bytes.saturating_sub(self.bytes)).unwrap_or_default();
        let rate = bits_per_second.saturating_mul(self.rate_percent) / 800;
        Duration::from_micros(missing.saturating_mul(1_000_000).checked_div(rate).unwrap_or_default())
    }
}

/// An ordinary picture is a thirtieth of a second, and passes whole.
const PEAK: Bucket = Bucket { bytes: 0, rate_percent: 150, depth: Duration::from_millis(40) };
/// A little above the estimate, so that a backlog ends.
const AVERAGE: Bucket = Bucket { bytes: 0, rate_percent: 105, depth: Duration::from_millis(250) };
/// What is held leaves in portions of so much time.
const INTERVAL: Duration = Duration::from_millis(10);
const HOLD_MAX: Duration = Duration::from_millis(500);
/// Video waits for no longer than about this.
const BACKLOG: Duration = Duration::from_secs(1);
const BACKLOG_BYTES_MIN: usize = 16 * 1024;
const OVERDRAFT_MAX: i64 = -16 * 1024;
const BITS_PER_SECOND_MIN: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `bytes` in packets of 1,000 as the pacer allows, and says when each left, in ms.
    fn play(bits_per_second: u64, bytes: usize) -> Vec<u128> {
        let start = Instant::now();
        let (mut pacer, mut now, mut left) = (Pacer::new(start, bits_per_second), start, bytes);
        let mut sent = Vec::new();
        while left > 0 {
            while left > 0 && pacer.allowance() > 0 {
                pacer.spend(1_000);
                left = left.saturating_sub(1_000);
                sent.push((now - start).as_millis());
            }
            let at = pacer.hold().unwrap();
            assert!(at > now && at <= now + HOLD_MAX);
            now = at;
            pacer.release(now);
        }
        sent
    }

    #[test]
    fn an_ordinary_picture_leaves_whole_and_a_key_frame_is_spread() {
        assert_eq!(play(2_000_000, 8_000), [0; 8]);
        let key = play(2_000_000, 60_000);
        // 60 KB at 3 Mb/s, less what leaves at once.
        assert!((90..=180).contains(key.last().unwrap()), "{key:?}");
        let portions = key.iter().filter(|at| **at > 0).fold(std::collections::BTreeMap::new(), |mut counts, at| {
            *counts.entry(at).or_insert(0) += 1;
            counts
        });
        let mut portions: Vec<_> = portions.into_values().collect();
        // The last is what is left.
        portions.pop();
        assert!(portions.iter().all(|packets| (2..=5).contains(packets)), "{portions:?}");
    }

    #[test]
    fn what_goes_on_and_on_is_held_to_the_estimate() {
        let sent = play(500_000, 625_000);
        let seconds = *sent.last().unwrap() as f64 / 1_000.0;
        assert!((9.0..=9.6).contains(&seconds), "5 Mb at 525 kb/s took {seconds} s");
    }

    #[test]
    fn audio_cannot_hold_video_for_ever() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 1_000_000);
        for _ in 0..10_000 {
            pacer.spend(100);
        }
        pacer.release(start + Duration::from_millis(200));
        assert!(pacer.allowance() > 0);
    }

    #[test]
    fn the_backlog_follows_the_estimate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 1_000_000);
        assert_eq!(pacer.backlog_bytes(), 131_250);
        pacer.set_rate(start, 0, 150);
        assert_eq!(pacer.backlog_bytes(), BACKLOG_BYTES_MIN);
        assert!(pacer.hold().unwrap() <= start + HOLD_MAX, "a rate of nothing does not divide by it");
    }
}
