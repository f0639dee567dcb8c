//! What is measured and how: CPU time of this thread, the heap, medians.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Counts what passes through it. The process has one thread, so plain sums are right.
#[derive(Debug)]
pub struct CountingAllocator;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);
static FREED_BYTES: AtomicU64 = AtomicU64::new(0);

impl CountingAllocator {
    /// Allocations so far, growing in place included.
    pub fn allocations() -> u64 {
        ALLOCATIONS.load(Ordering::Relaxed)
    }

    pub fn live_bytes() -> u64 {
        ALLOCATED_BYTES.load(Ordering::Relaxed) - FREED_BYTES.load(Ordering::Relaxed)
    }

    fn count(allocated: usize, freed: usize) {
        ALLOCATIONS.fetch_add(u64::from(allocated > 0), Ordering::Relaxed);
        ALLOCATED_BYTES.fetch_add(allocated as u64, Ordering::Relaxed);
        FREED_BYTES.fetch_add(freed as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of the caller.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size(), 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size(), 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count(new_size, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count(0, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What the C library has given out, which includes what the crypto library's C code holds and `malloc` adds.
pub fn malloc_bytes() -> u64 {
    // SAFETY: only reads the allocator's own statistics.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

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
