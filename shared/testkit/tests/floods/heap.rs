//! What this thread holds on the heap, so that a test that runs beside others can say what a flood left behind.
#![allow(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// Bytes this thread has allocated and nobody has freed, less those it freed for others.
pub fn live_bytes() -> i64 {
    LIVE.get()
}

fn count(allocated: usize, freed: usize) {
    // A thread that is ending has no count any more.
    let _ = LIVE.try_with(|live| live.set(live.get() + allocated as i64 - freed as i64));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
