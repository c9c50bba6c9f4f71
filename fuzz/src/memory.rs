//! How much memory a call has held at its peak. What C libraries take is libFuzzer's to bound (`-malloc_limit_mb`).

#![allow(unsafe_code, reason = "an allocator is unsafe by its trait; this one hands every call on to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

fn note(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call goes to the system's allocator as it came; constant thread-locals without destructors neither allocate
// nor panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(-layout.size().cast_signed());
        // SAFETY: `memory` came from one of the two above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Runs `judged`, which may hold at most `bytes` at any time.
///
/// # Panics
/// When it held more.
pub fn at_most<T>(bytes: usize, judged: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let outcome = judged();
    let peak = PEAK.get() - before;
    assert!(peak <= bytes.cast_signed(), "{peak} bytes were held, and {bytes} are allowed");
    outcome
}
