//! The system's allocator, counting.
//!
//! `unsafe` here: the allocator's interface. Everything is handed on as it came.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocations, and bytes allocated and not freed, of this thread: the test runner's threads allocate too.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
pub struct Counting;

/// Allocations of this thread so far.
#[allow(dead_code, reason = "each test uses one of the two")]
pub fn count() -> usize {
    COUNT.get()
}

/// Bytes that this thread has allocated and not freed.
#[allow(dead_code, reason = "each test uses one of the two")]
pub fn live() -> isize {
    LIVE.get()
}

fn note(allocations: usize, bytes: isize) {
    // Gone while a thread ends.
    let _ = COUNT.try_with(|count| count.set(count.get() + allocations));
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

// SAFETY: every call is the system allocator's own, with the caller's promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}
