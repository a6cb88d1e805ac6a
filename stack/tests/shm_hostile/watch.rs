//! Which bytes of the shared pages a step of ours has changed.

use std::ops::Range;

use super::pages::{LEN, Pages};

/// The pages as they were.
pub struct Watch(Vec<u8>);

impl Watch {
    pub fn new(pages: &Pages) -> Self {
        let mut copy = vec![0; LEN];
        pages.copy(&mut copy);
        Self(copy)
    }

    /// Nothing has changed since outside of `allowed`.
    pub fn check(&mut self, pages: &Pages, allowed: &[Range<usize>]) {
        let mut now = vec![0; LEN];
        pages.copy(&mut now);
        for range in allowed {
            self.0[range.clone()].copy_from_slice(&now[range.clone()]);
        }
        if self.0 != now {
            let changed = (0..LEN).find(|&at| self.0[at] != now[at]);
            panic!("a byte changed that is none of this step's: {changed:?}");
        }
    }
}
