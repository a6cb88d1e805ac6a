//! What follows in the kernel where the sender has turned there, for a reader that looks at it before it has read the ring.

use std::os::fd::RawFd;

use super::Rx;
use crate::buffers::Scatter;
use crate::carry::kernel;

impl Rx {
    /// Shows, behind the ring's bytes, those that the kernel has of the time after; they stay where they are. `before` bytes of its queue came
    /// before the ring's. Nothing, if the sender has not turned to the kernel.
    pub fn show_beyond(&self, fd: RawFd, into: &mut Scatter<'_, '_>, before: usize) {
        if !self.comes_home() {
            return;
        }
        // In this order: what is beyond the copies was sent after their number was stated.
        let queued = kernel::queued(fd);
        let copies = self.copies_ahead().left(self.view.their_copies(), self.capacity()) as usize;
        let early = self.early.len().saturating_sub(copies);
        let skip = before + copies.saturating_sub(self.early.len());
        let beyond = queued.saturating_sub(skip);
        if into.has_no_places() {
            into.done += early.min(into.left());
        }
        let (one, two) = self.early.as_slices();
        into.put(&one[copies.min(one.len())..]);
        into.put(&two[copies.saturating_sub(one.len()).min(two.len())..]);
        // Nothing shown is no error: the next call will say.
        let _ = kernel::show(fd, into, skip, beyond);
    }
}
