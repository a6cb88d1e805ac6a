//! A reader's way from the ring to the kernel, and the copies that it meets there.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use underpass_stack::lane::shm::copies::overtake;
use underpass_stack::lane::shm::layout::line;
use underpass_stack::lane::shm::{Copies, Corrupt, Overtake, Turn};

use super::Rx;
use crate::shm::history;
use crate::sys;

/// Pieces of copies that are thrown away at once, at most.
const PIECES: usize = 64;

/// Whether a reader that wants to be in the kernel is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// What comes next comes from the kernel.
    There,
    /// The sender has still to do something, or the kernel.
    NotYet,
    /// What is in the ring is nowhere else, and will not be.
    Never,
}

impl Rx {
    /// Follows a sender that has turned to the kernel there, as far as what the ring still holds is in the kernel, too. `gone`: the other
    /// process is no more.
    pub fn go_home(&mut self, fd: RawFd, gone: bool) -> Result<Home, Corrupt> {
        if !self.early.is_empty() {
            return Ok(Home::NotYet);
        }
        if gone {
            // Nobody takes anything back.
            self.recalled = false;
        }
        while let Turn::ToRing(_) | Turn::ToKernel(_) = self.inbound.next(self.view.theirs())? {
            if self.sends_to_ring() {
                return self.home_of_a_ring(gone);
            }
            let (theirs, copies) = (self.view.theirs(), self.view.their_copies());
            match overtake(theirs, copies, self.receiver.head(), self.capacity())? {
                // Before the ring comes what the kernel had first: nothing of it may be taken for a copy.
                Overtake::Now(copies)
                    if !self.is_in_ring() && copies.left(self.view.their_copies(), self.capacity()) > 0 =>
                {
                    return Err(Corrupt);
                }
                Overtake::Now(copies) => {
                    self.inbound.follow(self.view.mine());
                    self.copies = copies;
                }
                Overtake::Later if !gone => return Ok(Home::NotYet),
                Overtake::Later | Overtake::Never => return Ok(Home::Never),
            }
        }
        if self.is_in_ring() {
            return self.home_of_a_ring(gone);
        }
        Ok(if self.drop_copies(fd) { Home::There } else { Home::NotYet })
    }

    /// The sender has not turned to the kernel: it is to take the bytes back. A dead one's are the last.
    fn home_of_a_ring(&self, gone: bool) -> Result<Home, Corrupt> {
        Ok(match gone {
            false => Home::NotYet,
            true if self.available()? == 0 => Home::There,
            true => Home::Never,
        })
    }

    fn sends_to_ring(&self) -> bool {
        self.view.theirs()[line::TURN].load(Acquire) % 2 == 1
    }

    /// The ring has been read to the sender's turn to the kernel, which gives copies of its last bytes first.
    pub(super) fn meet_copies(&mut self) -> Result<(), Corrupt> {
        self.copies = Copies::all(self.view.their_copies(), self.capacity())?;
        let came = self.copies.left(self.view.their_copies(), self.capacity()).min(self.early.len() as u64);
        self.early.drain(..came as usize);
        self.copies.throw_away(came);
        Ok(())
    }

    /// Throws away what the kernel has of bytes that were read from the ring. True: no more of them come. The stream's end and errors
    /// stay for whoever reads on.
    pub fn drop_copies(&mut self, fd: RawFd) -> bool {
        if !self.copies.are_due() {
            return true;
        }
        for _ in 0..PIECES {
            if self.copies_left() == 0 {
                self.copies = Copies::default();
                return true;
            }
            let queued = queued(fd);
            // Looked at after the queue: what is beyond it was sent later than its last change.
            let piece = queued.min(self.copies_left());
            if piece > 0 {
                let Ok(count @ 1..) = sys::discard(fd, piece as usize) else { return false };
                self.count(count);
                self.copies.throw_away(count as u64);
            } else if queued == 0 {
                if !history::is_ended(fd) {
                    return false;
                }
                if self::queued(fd) == 0 {
                    // Nothing follows the end.
                    self.copies = Copies::default();
                }
            }
        }
        false
    }

    /// Copies that have still to be thrown away.
    fn copies_left(&self) -> u64 {
        self.copies.left(self.view.their_copies(), self.capacity())
    }

    /// Of `queued` bytes in the kernel's queue, those that are for the program.
    pub(super) fn without_copies(&self, queued: u64) -> u64 {
        queued.saturating_sub(self.copies_ahead().left(self.view.their_copies(), self.capacity()))
    }

    /// Copies in the kernel's queue, also those of bytes that are still to be read from the ring.
    pub(super) fn copies_ahead(&self) -> Copies {
        if !self.comes_home() {
            return self.copies;
        }
        Copies::all(self.view.their_copies(), self.capacity()).unwrap_or_default()
    }

    /// Has the sender turned to the kernel, perhaps after one more turn, where the reader is not yet?
    pub(super) fn comes_home(&self) -> bool {
        self.is_turning() && !self.sends_to_ring()
    }

    /// The socket is going to be closed, everything having been read. May the sender still give copies to the kernel, which then would take
    /// them for unread?
    pub fn expects_copies(&mut self, fd: RawFd) -> bool {
        self.follow().is_ok_and(|_| !self.is_in_ring()) && !self.drop_copies(fd)
    }
}

/// SIOCINQ.
fn queued(fd: RawFd) -> u64 {
    sys::queue_length(fd, libc::FIONREAD).map_or(0, u64::from)
}
