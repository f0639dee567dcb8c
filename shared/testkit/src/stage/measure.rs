//! How is measured: CPU time of this thread, medians and ranges.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread, less what reading it costs.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    reading_ns: u64,
}

impl Stopwatch {
    pub fn calibrated() -> Self {
        let reading = || {
            let start = thread_cpu();
            (thread_cpu() - start).as_nanos() as u64
        };
        Self { reading_ns: (0..1_000).map(|_| reading()).min().unwrap_or_default() }
    }

    pub fn ns(self, work: impl FnOnce()) -> u64 {
        let start = thread_cpu();
        work();
        ((thread_cpu() - start).as_nanos() as u64).saturating_sub(self.reading_ns)
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Median of the medians of passes, and the range of all runs.
#[derive(Debug, Clone, Default)]
pub struct Passes(Vec<Vec<f64>>);

impl Passes {
    pub fn start_pass(&mut self) {
        self.0.push(Vec::new());
    }

    pub fn add(&mut self, value: f64) {
        self.0.last_mut().expect("a pass has started").push(value);
    }

    pub fn median(&self) -> f64 {
        median(self.0.iter().map(|pass| median(pass.clone())).collect())
    }

    /// `median (min–max)` with this many decimals.
    pub fn show(&self, decimals: usize) -> String {
        let all = || self.0.iter().flatten().copied();
        let (min, max) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        format!("{:.decimals$} ({min:.decimals$}–{max:.decimals$})", self.median())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
