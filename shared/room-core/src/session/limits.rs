//! The session's own measures: how often a client may speak and how large its attributes may grow.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A token bucket on virtual time.
#[derive(Debug)]
pub(super) struct Bucket {
    per_window: f64,
    window: Duration,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant, per_window: u32, window: Duration, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { per_window: f64::from(per_window), window, burst, tokens: burst, filled: now }
    }

    /// False when less than this is in the bucket.
    pub(super) fn take(&mut self, now: Instant, amount: f64) -> bool {
        let passed =
            now.saturating_duration_since(self.filled).as_secs_f64() / self.window.as_secs_f64().max(f64::EPSILON);
        self.tokens = (self.tokens + passed * self.per_window).min(self.burst);
        self.filled = now;
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }
}

/// Size of the attributes after merging: an empty value deletes its key.
pub(super) fn merged_bytes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> usize {
    let kept = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let added = new.iter().filter(|(_, value)| !value.is_empty());
    kept.chain(added).map(|(key, value)| key.len().saturating_add(value.len())).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 200, Duration::from_secs(10), 400);
        assert_eq!((0..500).filter(|_| bucket.take(start, 1.0)).count(), 400);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| bucket.take(later, 1.0)).count(), 20);
    }

    #[test]
    fn deleted_attributes_do_not_count() {
        let old = BTreeMap::from([("a".to_owned(), "12345".to_owned()), ("b".to_owned(), "1".to_owned())]);
        let new = BTreeMap::from([("a".to_owned(), String::new()), ("c".to_owned(), "12".to_owned())]);
        assert_eq!(merged_bytes(&old, &new), 2 + 3);
    }
}
