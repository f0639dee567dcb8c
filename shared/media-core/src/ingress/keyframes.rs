//! When to ask a publisher for a key frame.

use std::time::{Duration, Instant};

use super::after;

/// One stream's picture loss indications: the first at once, then no more often than the interval, until a key frame is
/// there.
#[derive(Debug)]
pub(crate) struct KeyframeRequests {
    interval: Duration,
    needed: bool,
    /// Nothing may be sent before this.
    quiet_until: Option<Instant>,
}

impl KeyframeRequests {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, needed: false, quiet_until: None }
    }

    /// What lies between two requests from now on.
    pub(crate) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Somebody cannot decode without one.
    pub(crate) fn need(&mut self) {
        self.needed = true;
    }

    /// Nobody waits any more.
    pub(crate) fn withdraw(&mut self) {
        self.needed = false;
    }

    /// A key frame has begun; it serves everybody who asked.
    pub(crate) fn arrived(&mut self) {
        self.needed = false;
    }

    /// Whether to send a PLI now.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        if !self.needed || self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        self.quiet_until = Some(after(now, self.interval));
        true
    }

    /// When [`poll`](Self::poll) next says yes. `now` if it would at once.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.needed.then(|| self.quiet_until.unwrap_or(now))
    }
}

/// livekit-protocol: the smallest layer is cheap enough to be asked for more often.
pub(crate) const LOW_LAYER_INTERVAL: Duration = Duration::from_millis(500);
pub(crate) const LAYER_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn polls(requests: &mut KeyframeRequests, start: Instant, ms: std::ops::Range<u64>) -> Vec<u64> {
        ms.filter(|ms| requests.poll(start + Duration::from_millis(*ms))).collect()
    }

    #[test]
    fn a_need_is_told_at_once_and_retried_until_the_keyframe_comes() {
        let start = Instant::now();
        let mut requests = KeyframeRequests::new(LOW_LAYER_INTERVAL);
        assert_eq!(polls(&mut requests, start, 0..10), [0u64; 0]);
        requests.need();
        assert_eq!(requests.deadline(start), Some(start));
        assert_eq!(polls(&mut requests, start, 10..1_200), [10, 510, 1_010]);
        requests.arrived();
        assert_eq!(polls(&mut requests, start, 1_200..3_000), [0u64; 0]);
        assert_eq!(requests.deadline(start), None);
    }

    #[test]
    fn many_needs_within_the_interval_make_one_request() {
        let start = Instant::now();
        let mut requests = KeyframeRequests::new(LAYER_INTERVAL);
        let mut sent = Vec::new();
        for ms in 0..1_500 {
            requests.need();
            if requests.poll(start + Duration::from_millis(ms)) {
                sent.push(ms);
                requests.arrived();
            }
        }
        assert_eq!(sent, [0, 1_000]);
    }
}
