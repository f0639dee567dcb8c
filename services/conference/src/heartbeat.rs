//! Loops that show they still turn, and the one that does not: what `/healthz` is about.

use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A loop that shows it still turns. Whoever holds it beats at least once a second; it is forgotten when dropped.
#[derive(Debug)]
pub struct Heartbeat(Arc<Pulse>);

#[derive(Debug)]
struct Pulse {
    name: &'static str,
    /// Milliseconds since the first heartbeat of this process.
    last_ms: AtomicU64,
}

impl Heartbeat {
    /// `name` is what `/healthz` says when it stops.
    pub fn start(name: &'static str, now: Instant) -> Self {
        let pulse = Arc::new(Pulse { name, last_ms: AtomicU64::new(since_start_ms(now)) });
        pulses().push(pulse.clone());
        Self(pulse)
    }

    pub fn beat(&self, now: Instant) {
        self.0.last_ms.store(since_start_ms(now), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        pulses().retain(|pulse| !Arc::ptr_eq(pulse, &self.0));
    }
}

/// The loop that has not turned for [`STALLED_AFTER`], if any.
pub(crate) fn stalled(now: Instant) -> Option<&'static str> {
    let silent_ms = |pulse: &Pulse| since_start_ms(now).saturating_sub(pulse.last_ms.load(Ordering::Relaxed));
    let limit_ms = u64::try_from(STALLED_AFTER.as_millis()).unwrap_or(u64::MAX);
    pulses().iter().find(|pulse| silent_ms(pulse) > limit_ms).map(|pulse| pulse.name)
}

/// How often a loop beats.
pub(crate) const BEAT_INTERVAL: Duration = Duration::from_millis(500);
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Touched when loops start and end, and by probes.
fn pulses() -> MutexGuard<'static, Vec<Arc<Pulse>>> {
    static PULSES: Mutex<Vec<Arc<Pulse>>> = Mutex::new(Vec::new());
    PULSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn since_start_ms(now: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(now.saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stops_turning_is_named_until_it_is_gone() {
        let start = Instant::now();
        let heartbeat = Heartbeat::start("test loop", start);
        assert_eq!(stalled(start + STALLED_AFTER), None);
        let later = start + STALLED_AFTER + Duration::from_millis(10);
        assert_eq!(stalled(later), Some("test loop"));
        heartbeat.beat(later);
        assert_eq!(stalled(later), None);
        drop(heartbeat);
        assert_eq!(stalled(later + STALLED_AFTER * 2), None);
    }
}
