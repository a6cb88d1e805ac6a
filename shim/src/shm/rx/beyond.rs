//! What follows in the kernel where the sender has turned there, for a reader that looks at it before it has read the ring.

use std::os::fd::RawFd;

use underpass_stack::lane::shm::{Copies, Turn};

use super::Rx;
use crate::buffers::Scatter;
use crate::shm::history;
use crate::sys;

impl Rx {
    /// Shows, behind the ring's bytes, those that the kernel has of the time after; they stay where they are. False: the sender has not turned
    /// to the kernel, or nothing follows any more.
    pub fn show_beyond(&self, fd: RawFd, into: &mut Scatter<'_, '_>) -> bool {
        let Ok(Turn::ToKernel(_)) = self.inbound.next(self.view.theirs()) else { return false };
        // In this order: what is beyond the copies was sent after their number was stated.
        let queued = sys::queue_length(fd, libc::FIONREAD).unwrap_or(0) as usize;
        let Ok(copies) = Copies::all(self.view.their_copies(), self.capacity()) else { return false };
        let copies = copies.left(self.view.their_copies(), self.capacity()) as usize;
        let (one, two) = self.early.as_slices();
        let early = one.len() + two.len();
        let shown = copies.min(one.len());
        put(into, &one[shown..]);
        put(into, &two[copies.saturating_sub(one.len()).min(two.len())..]);
        let copies = copies.saturating_sub(early);
        if queued > copies && into.left() > 0 {
            show_queue(fd, into, copies, queued - copies);
        }
        !history::is_ended(fd)
    }
}

/// Shows at most `len` bytes of the kernel's queue, after the first `skip`.
fn show_queue(fd: RawFd, into: &mut Scatter<'_, '_>, skip: usize, len: usize) {
    let len = len.min(into.left());
    if into.has_no_places() {
        into.done += len;
        return;
    }
    // A peek begins at the front: SO_PEEK_OFF is for TCP since Linux 6.9 only.
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(skip + len).is_err() {
        return;
    }
    bytes.resize(skip + len, 0);
    let got = sys::recv(fd, &mut bytes, libc::MSG_PEEK | libc::MSG_DONTWAIT).unwrap_or(0);
    put(into, bytes.get(skip..got).unwrap_or_default());
}

/// Copies as much as there is room for.
fn put(into: &mut Scatter<'_, '_>, mut bytes: &[u8]) {
    if into.has_no_places() {
        into.done += bytes.len().min(into.left());
        return;
    }
    while !bytes.is_empty()
        && let Some(room) = into.next()
    {
        let (now, later) = bytes.split_at(room.len().min(bytes.len()));
        room[..now.len()].copy_from_slice(now);
        into.advance(now.len());
        bytes = later;
    }
}
