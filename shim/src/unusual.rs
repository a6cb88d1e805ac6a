//! Is anything out of the ordinary in this process? One load tells the short ways of calls (`call/young`, `call/short`) that they may be taken.

use std::sync::atomic::{AtomicU32, Ordering::*};

/// Something for which calls take the long way.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Unusual {
    /// The options say so, or have not been read.
    Options = 1,
    /// A thread of the process was cancelled.
    Cancelled = 2,
    /// Demotions or leftovers wait to be settled.
    Work = 4,
}

/// In a cache line that is hardly ever written.
#[repr(align(64))]
struct Flags(AtomicU32);

static NOW: Flags = Flags(AtomicU32::new(Unusual::Options as u32));

impl Flags {
    fn has(&self, what: Unusual) -> bool {
        self.0.load(Relaxed) & what as u32 != 0
    }

    fn raise(&self, what: Unusual) {
        if !self.has(what) {
            self.0.fetch_or(what as u32, SeqCst);
        }
    }

    fn lower(&self, what: Unusual) -> bool {
        self.has(what) && self.0.fetch_and(!(what as u32), SeqCst) & what as u32 != 0
    }
}

/// Is there anything of the kind?
#[inline(always)]
pub fn any() -> bool {
    NOW.0.load(Relaxed) != 0
}

/// Is there this?
pub fn has(what: Unusual) -> bool {
    NOW.has(what)
}

/// From now on there is.
pub fn raise(what: Unusual) {
    NOW.raise(what);
}

/// From now on there is not. Was there?
pub fn lower(what: Unusual) -> bool {
    NOW.lower(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_and_goes_by_itself() {
        let all = [Unusual::Options, Unusual::Cancelled, Unusual::Work];
        let flags = Flags(AtomicU32::new(0));
        for what in all {
            assert!(!flags.has(what));
            flags.raise(what);
            flags.raise(what);
            assert!(flags.has(what));
        }
        for (n, what) in all.into_iter().enumerate() {
            assert!(flags.lower(what) && !flags.lower(what));
            assert!(all[n + 1..].iter().all(|&other| flags.has(other)));
        }
        assert_eq!(flags.0.load(Relaxed), 0);
    }

    #[test]
    fn the_constructor_has_read_the_options() {
        assert!(!has(Unusual::Options));
    }
}
