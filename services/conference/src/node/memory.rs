//! Whether there is memory for more people: the container's limit counts where there is one, the machine's otherwise.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sysinfo::System;

/// Looks again when somebody asks, at most once per [`SAMPLE_INTERVAL`].
#[derive(Debug)]
pub(super) struct MemoryWatch {
    percent_max: u8,
    last: Mutex<Sample>,
}

#[derive(Debug)]
struct Sample {
    taken: Option<Instant>,
    is_short: bool,
    /// None where this system does not say what it has: then nothing is ever short.
    system: Option<System>,
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    used: u64,
    total: u64,
}

impl MemoryWatch {
    pub(super) fn new(percent_max: u8) -> Self {
        Self { percent_max, last: Mutex::new(Sample { taken: None, is_short: false, system: System::new().ok() }) }
    }

    /// More than the configured share is in use.
    pub(super) fn is_short(&self) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.taken.is_none_or(|taken| now.saturating_duration_since(taken) >= SAMPLE_INTERVAL) {
            last.taken = Some(now);
            last.is_short = last.system.as_mut().is_some_and(|system| usage(system).exceeds(self.percent_max));
        }
        last.is_short
    }
}

impl Usage {
    fn exceeds(self, percent: u8) -> bool {
        u128::from(self.used) * 100 > u128::from(self.total) * u128::from(percent)
    }
}

/// Page cache does not count: it is given back when somebody needs it.
fn usage(system: &mut System) -> Usage {
    system.refresh_memory();
    let machine =
        Usage { used: system.total_memory().saturating_sub(system.available_memory()), total: system.total_memory() };
    match system.cgroup_limits() {
        Some(container) if container.total_memory < machine.total => {
            Usage { used: container.rss, total: container.total_memory }
        }
        _ => machine,
    }
}

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_uses_some_of_it() {
        let Usage { used, total } = usage(&mut System::new().unwrap());
        assert!(0 < used && used < total, "{used} of {total}");
        assert!(!MemoryWatch::new(100).is_short());
        assert!(MemoryWatch::new(0).is_short());
    }

    #[test]
    fn the_share_is_exceeded_only_above_it() {
        let used = |used| Usage { used, total: 1_000 };
        assert!(!used(850).exceeds(85));
        assert!(used(851).exceeds(85));
        assert!(Usage { used: u64::MAX, total: u64::MAX }.exceeds(99));
    }
}
