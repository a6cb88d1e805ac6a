//! A channel's outgoing direction: to the kernel, or into the ring.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::lane::shm::layout::{flag, line, want};
use underpass_stack::lane::shm::{Corrupt, Outbound, Sender, copies, full_fence, notice};

use super::history;
use super::view::View;
use crate::errno::{Errno, Result};
use crate::{carry, sys};

/// The writing end.
pub struct Tx {
    view: Arc<View>,
    outbound: Outbound,
    sender: Sender,
    /// Bytes taken back from the ring that the kernel has not taken yet, in front of all others.
    backlog: Vec<u8>,
    /// Bytes of the backlog that the kernel has.
    flushed: usize,
    /// The bytes stay in the kernel.
    pinned: bool,
    /// What was left in the ring is in the kernel, too.
    copied: bool,
}

/// Where bytes may go now.
pub enum Way {
    /// Into the ring.
    Ring,
    /// To the kernel.
    Kernel,
    /// Nowhere: the kernel has not taken the backlog.
    Blocked,
}

impl Tx {
    /// Nothing written yet.
    pub fn new(view: Arc<View>) -> Self {
        let sender = Sender::new(view.capacity());
        let (outbound, backlog) = (Outbound::default(), Vec::new());
        Self { view, outbound, sender, backlog, flushed: 0, pinned: false, copied: false }
    }

    /// Do the bytes go to the ring?
    #[inline]
    pub fn is_in_ring(&self) -> bool {
        self.outbound.is_in_ring()
    }

    /// Bytes that the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.sender.capacity()
    }

    /// Bytes written to the ring so far.
    pub fn bytes(&self) -> u64 {
        self.sender.tail()
    }

    /// Has the kernel everything that was taken back from the ring?
    pub fn is_flushed(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Bytes that the kernel has still to get.
    pub fn owed(&self) -> usize {
        self.backlog.len() - self.flushed
    }

    /// From now on the kernel carries this direction. False: it was so already.
    pub fn pin(&mut self) -> bool {
        !std::mem::replace(&mut self.pinned, true)
    }

    /// Does the kernel carry it for good?
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    #[inline]
    fn their_flags(&self) -> u64 {
        self.view.theirs()[line::FLAGS].load(Acquire)
    }

    /// Finds out where the next bytes go, turning to the ring or to the kernel where it is time.
    #[inline]
    pub fn way(&mut self, fd: RawFd) -> std::result::Result<Way, Corrupt> {
        if self.is_in_ring() {
            let flags = self.their_flags();
            if flags & (flag::RECALL | flag::ENDED) == 0 {
                return Ok(Way::Ring);
            }
            self.recall()?;
        }
        if !self.flush(fd).unwrap_or(true) {
            return Ok(Way::Blocked);
        }
        if !self.pinned
            && self.outbound.may_enter(self.view.theirs())
            && let Some(written) = history::bytes_written(fd)
        {
            self.outbound.enter(self.view.mine(), written);
            return Ok(Way::Ring);
        }
        Ok(Way::Kernel)
    }

    /// Bytes that fit into the ring.
    #[inline]
    pub fn space(&self) -> std::result::Result<usize, Corrupt> {
        self.sender.space(self.view.theirs())
    }

    /// Copies bytes into the ring.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> std::result::Result<usize, Corrupt> {
        self.sender.push(self.view.theirs(), &self.view.my_ring(), bytes)
    }

    /// Shows them to the reader. Returns the inbox to tell.
    #[inline]
    pub fn publish(&self) -> Option<usize> {
        self.sender.publish(self.view.mine());
        notice::claim(&self.view.their_wants()[want::DATA])
    }

    /// Wants to be told in inbox `place` when room is made; look once more afterwards.
    pub fn arm(&self, place: usize) {
        notice::arm(&self.view.my_wants()[want::SPACE], place, super::places::GENERAL);
    }

    /// Turns to the kernel for good, after what has been written; what has not been read goes there once more, if there is room for it, so
    /// that the reader finds it in either. Returns the inbox to tell. Waits for nothing and allocates nothing.
    pub fn leave(&mut self, fd: RawFd) -> Option<usize> {
        self.pinned = true;
        if !self.is_in_ring() {
            return None;
        }
        let tail = self.sender.tail();
        let unread = self.sender.unread(self.view.theirs()).unwrap_or(0);
        let wanted = unread > 0 && self.their_flags() & flag::ENDED == 0;
        let room = if wanted { Room::make(fd, unread) } else { None };
        let count = if room.is_some() { unread as u64 } else { 0 };
        copies::announce(self.view.my_copies(), count);
        self.outbound.leave(self.view.mine(), tail);
        if count > 0 {
            full_fence();
            // A reader that closes looks for copies after it has said so.
            let sent = if self.their_flags() & flag::ENDED == 0 { self.copy(fd, tail.wrapping_sub(count)) } else { 0 };
            copies::settle(self.view.my_copies(), count, sent);
            self.copied = true;
        }
        notice::claim(&self.view.their_wants()[want::DATA])
    }

    /// Gives the kernel what lies in the ring from stream position `from` on. Returns how much it has taken.
    fn copy(&self, fd: RawFd, from: u64) -> u64 {
        // An error is the program's to be told, by its next call: sending would use it up.
        if carry::kernel::ready(fd, libc::POLLOUT) & (libc::POLLERR | libc::POLLHUP) != 0 {
            return 0;
        }
        let (ring, (first, rest)) = (self.view.my_ring(), self.sender.places(from));
        let spans = [ring.span(first), ring.span(rest)];
        sys::send_spans(fd, &spans, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).map_or(0, |sent| sent as u64)
    }

    /// Turns to the kernel with what the reader has not read: it reads no more. (It has said so, or it is dead.)
    pub fn recall(&mut self) -> std::result::Result<(), Corrupt> {
        if !self.is_in_ring() {
            return Ok(());
        }
        let head = self.view.theirs()[line::HEAD].load(Acquire);
        let unread = self.sender.tail().wrapping_sub(head);
        if unread > self.capacity() as u64 {
            return Err(Corrupt);
        }
        // Sent after all, bytes that nobody reads would take the reset's place: a failing send uses the socket's error up.
        let wanted = self.their_flags() & flag::DISCARDED == 0;
        self.backlog = vec![0; if wanted { unread as usize } else { 0 }];
        self.flushed = 0;
        self.sender.take_back(&self.view.my_ring(), head, &mut self.backlog);
        copies::announce(self.view.my_copies(), 0);
        self.outbound.leave(self.view.mine(), head);
        Ok(())
    }

    /// What the reader said it wants to be told about turns.
    pub fn tell(&self) -> Option<usize> {
        notice::claim(&self.view.their_wants()[want::DATA])
    }

    /// Gives the backlog to the kernel, as much as it takes. True: all of it. A connection that has failed loses it, as it would have
    /// lost its send queue.
    pub fn flush(&mut self, fd: RawFd) -> Result<bool> {
        while self.flushed < self.backlog.len() {
            // An error is the program's to be told, by its next call: sending would use it up.
            if carry::kernel::ready(fd, libc::POLLOUT) & (libc::POLLERR | libc::POLLHUP) != 0 {
                break;
            }
            match sys::send(fd, &self.backlog[self.flushed..], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
                Ok(n) => self.flushed += n,
                Err(Errno(libc::EAGAIN)) => return Ok(false),
                Err(errno) => {
                    self.settle();
                    return Err(errno);
                }
            }
        }
        self.settle();
        Ok(true)
    }

    /// Nothing is owed any more.
    fn settle(&mut self) {
        (self.backlog, self.flushed) = (Vec::new(), 0);
    }

    /// SIOCOUTQ: bytes that have not reached the peer's side. Half of the ring stands for the peer's receive queue, what is in there
    /// has; the rest waits as in a send queue.
    pub fn queued(&self, kernel: c_int) -> usize {
        let unread = self.sender.unread(self.view.theirs()).unwrap_or(0);
        let in_ring = self.is_in_ring() || !self.copied && !self.outbound.is_followed(self.view.theirs());
        let waiting = if in_ring { unread.saturating_sub(self.capacity() / 2) } else { 0 };
        waiting + self.owed() + kernel.max(0) as usize
    }

    /// Does the peer still look at the ring?
    pub fn is_heard(&self) -> bool {
        self.their_flags() & (flag::RECALL | flag::ENDED) == 0
    }
}

/// Room in the kernel's send buffer.
struct Room {
    _made: Option<sys::LargerSendBuffer>,
}

impl Room {
    /// For so many bytes at once, and the bookkeeping. The buffer may be a small one that the program has chosen, in front of a large ring.
    fn make(fd: RawFd, bytes: usize) -> Option<Self> {
        let needed = bytes + bytes / 8 + 16 * 1024;
        if sys::send_room(fd) >= needed {
            return Some(Self { _made: None });
        }
        let made = sys::LargerSendBuffer::new(fd, needed).ok()?;
        (sys::send_room(fd) >= needed).then_some(Self { _made: Some(made) })
    }
}
