//! The atomics: loom's under `--cfg loom`, where the protocols are checked for every order of events.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64 as Word, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64 as Word, Ordering, fence};

/// Orders everything before it against everything after it: "I have stored this" before "have you stored that?".
#[inline]
pub fn full_fence() {
    fence(Ordering::SeqCst);
}
