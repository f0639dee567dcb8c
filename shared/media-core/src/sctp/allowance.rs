//! How much data a client may send us: a token bucket of bytes that holds one second's worth.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Allowance {
    bytes_per_second: u64,
    /// A message is taken whole while anything is left, so this may be below zero.
    left: i64,
    filled: Instant,
}

impl Allowance {
    /// 0 bytes per second means no limit.
    pub fn new(now: Instant, bytes_per_second: u64) -> Self {
        Self { bytes_per_second, left: signed(bytes_per_second), filled: now }
    }

    pub fn is_left(&mut self, now: Instant) -> bool {
        if self.bytes_per_second == 0 {
            return true;
        }
        let passed = now.saturating_duration_since(self.filled);
        let earned = passed.as_nanos().saturating_mul(self.bytes_per_second.into()) / NANOS_PER_SECOND;
        // Time that earned no whole byte yet stays on the clock.
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(earned).min(signed(self.bytes_per_second));
            self.filled = now;
        }
        self.left > 0
    }

    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub_unsigned(bytes as u64);
    }

    /// When something is left again.
    pub fn ready_at(&self) -> Instant {
        let missing = u128::from(1_i64.saturating_sub(self.left).max(0).unsigned_abs());
        let wait = missing.saturating_mul(NANOS_PER_SECOND).div_ceil(self.bytes_per_second.max(1).into());
        self.filled.checked_add(Duration::from_nanos_u128(wait)).unwrap_or(self.filled)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_there_at_once_and_the_rest_comes_with_time() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start, 1_000);
        assert!(allowance.is_left(start));
        allowance.spend(1_500);
        assert!(!allowance.is_left(start));
        let ready = allowance.ready_at();
        assert_eq!(ready.duration_since(start), Duration::from_millis(501));
        assert!(!allowance.is_left(ready - Duration::from_millis(1)));
        assert!(allowance.is_left(allowance.ready_at()), "what it waits for has come by then");
    }

    #[test]
    fn nothing_is_saved_beyond_a_second_and_zero_is_no_limit() {
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        let mut allowance = Allowance::new(start, 1_000);
        assert!(allowance.is_left(later));
        allowance.spend(1_000);
        assert!(!allowance.is_left(later));
        let mut unlimited = Allowance::new(start, 0);
        unlimited.spend(usize::MAX);
        assert!(unlimited.is_left(start));
    }
}
