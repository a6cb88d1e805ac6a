//! "We are inside the shim": calls that the library itself makes pass straight through the hooks.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// While one lives, hooks on this thread do nothing of their own.
pub struct Guard(());

impl Guard {
    /// Enters the shim.
    pub fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Is this thread inside the shim?
#[inline]
pub fn inside() -> bool {
    DEPTH.with(Cell::get) > 0
}
