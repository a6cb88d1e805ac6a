//! A channel's incoming direction: from the kernel, then from the ring, as the sender has stated.

mod beyond;
mod home;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;

use libc::c_int;
use std::sync::atomic::Ordering::*;
use underpass_stack::lane::shm::layout::{flag, line, want};
use underpass_stack::lane::shm::{Copies, Corrupt, Inbound, Receiver, Turn, notice};

pub use self::home::Home;
use super::history;
use super::view::View;
use crate::buffers::Scatter;
use crate::{sys, wait};

/// The reading end.
pub struct Rx {
    view: Arc<View>,
    inbound: Inbound,
    receiver: Receiver,
    /// Bytes that the kernel has given of its stream, ever. Counted here while the socket is on the lane: what the kernel says of its
    /// queue stops at urgent data.
    read: u64,
    /// Bytes that the kernel gave before their turn: the ring's come first.
    early: VecDeque<u8>,
    /// Bytes that were read from the ring, and come through the kernel once more.
    copies: Copies,
    /// The sender was asked to take back what is in the ring.
    recalled: bool,
    /// Bytes read when the sender's want of room was last looked after.
    looked_after: u64,
    /// Empty looks since the kernel was last looked at.
    empty: u32,
}

/// Turns that are followed at once, at most.
const TURNS: usize = 4;
/// The kernel is looked at once in so many reads that find the ring empty, whoever may have written there.
const LOOK_EVERY: u32 = 16;

impl Rx {
    /// Nothing read yet.
    pub fn new(view: Arc<View>) -> Self {
        let receiver = Receiver::new(view.capacity());
        Self {
            view,
            inbound: Inbound::default(),
            receiver,
            read: 0,
            early: VecDeque::new(),
            copies: Copies::default(),
            recalled: false,
            looked_after: 0,
            empty: 0,
        }
    }

    /// The socket comes to the lane: from here on the kernel's stream is read through this. False: how much of it has been read is not to
    /// be known now.
    pub fn begin(&mut self, fd: RawFd) -> bool {
        let read = history::bytes_read(fd);
        self.read = read.unwrap_or(0);
        self.set_flags(if read.is_some() { flag::READY } else { 0 });
        read.is_some()
    }

    /// The kernel has given so many bytes of its stream.
    pub fn count(&mut self, n: usize) {
        self.read += n as u64;
    }

    /// Are bytes read from the ring now?
    #[inline]
    pub fn is_in_ring(&self) -> bool {
        self.inbound.is_in_ring()
    }

    /// Bytes that the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.receiver.capacity()
    }

    /// Bytes read from the ring so far.
    pub fn bytes(&self) -> u64 {
        self.receiver.head()
    }

    /// Follows the sender's turns as far as the bytes read allow. Returns how many bytes the kernel's stream has before the next turn,
    /// if there is one.
    #[inline]
    pub fn follow(&mut self) -> Result<Option<u64>, Corrupt> {
        for _ in 0..TURNS {
            match self.inbound.next(self.view.theirs())? {
                Turn::Stay => return Ok(None),
                // What came too early belongs behind the turn.
                Turn::ToRing(at) => match at.checked_sub(self.read - self.early.len() as u64) {
                    Some(0) => self.inbound.follow(self.view.mine()),
                    Some(left) => return Ok(Some(left)),
                    None => return Err(Corrupt),
                },
                Turn::ToKernel(at) => {
                    let left = at.wrapping_sub(self.receiver.head());
                    if left == 0 {
                        self.inbound.follow(self.view.mine());
                        self.meet_copies()?;
                    } else if left > self.receiver.available(self.view.theirs())? as u64 {
                        return Err(Corrupt);
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
        // A sender that goes to and fro while it is followed waits for the next call.
        Ok(None)
    }

    /// Has the sender stated that its bytes go elsewhere after those at hand?
    #[inline]
    pub fn is_turning(&self) -> bool {
        self.inbound.next(self.view.theirs()) != Ok(Turn::Stay)
    }

    /// Bytes at hand in the ring. None once they have been recalled, unless the sender had left before.
    #[inline]
    pub fn available(&self) -> Result<usize, Corrupt> {
        if self.recalled && self.view.theirs()[line::TURN].load(Acquire) % 2 == 1 {
            return Ok(0);
        }
        self.receiver.available(self.view.theirs())
    }

    /// The kernel has given (or shown, `peeked`) the last `received` bytes of `into`. Those that came before their turn are taken out
    /// again and kept for later.
    pub fn put_in_order(&mut self, into: &mut Scatter<'_, '_>, received: usize, peeked: bool) -> Result<(), Corrupt> {
        let kept = self.inbound.in_order(self.view.theirs(), self.read, received)?;
        let early = into.retract(received - kept);
        if !peeked {
            self.count(received);
            self.early.extend(early);
        }
        Ok(())
    }

    /// Bytes that the kernel gave too early, now that it is their turn.
    pub fn take_early(&mut self, into: &mut Scatter<'_, '_>, flags: c_int) {
        if self.early.is_empty() {
            return;
        }
        let n = if flags & libc::MSG_TRUNC != 0 {
            let n = self.early.len().min(into.left());
            into.done += n;
            n
        } else {
            into.put(self.early.make_contiguous())
        };
        if flags & libc::MSG_PEEK == 0 {
            self.early.drain(..n);
        }
    }

    /// Are there any?
    pub fn has_early(&self) -> bool {
        !self.early.is_empty() && !self.is_in_ring()
    }

    /// Asks the sender to take back what is in the ring. For good: what it has taken back must not be read there.
    pub fn recall(&mut self) {
        self.recalled = true;
        self.set_flags(flag::RECALL);
    }

    /// Takes up to `available` bytes out of the ring. Returns the inbox to tell of the room made.
    pub fn take(&mut self, into: &mut Scatter<'_, '_>, available: usize, discard: bool) -> Option<usize> {
        let (view, mut taken) = (&*self.view, 0);
        if discard {
            taken = available.min(into.left());
            into.done += taken;
        } else {
            taken += self.copy(into, available);
        }
        self.receiver.consume(view.mine(), taken);
        // The other side sleeps only when, as it sees it, two thirds of the ring are unread. So it cannot sleep unnoticed before so
        // many bytes have been read since it was last looked after.
        let head = self.receiver.head();
        if head.wrapping_sub(self.looked_after) < self.capacity() as u64 / 3 {
            return None;
        }
        self.looked_after = head;
        notice::claim(&view.their_wants()[want::SPACE])
    }

    /// Copies up to `available` bytes, which stay in the ring.
    pub fn copy(&self, into: &mut Scatter<'_, '_>, available: usize) -> usize {
        let (theirs, ring) = (self.view.theirs(), self.view.their_ring());
        let mut offset = 0;
        while offset < available
            && let Some(room) = into.next()
        {
            let n = room.len().min(available - offset);
            self.receiver.peek(theirs, &ring, offset, &mut room[..n]);
            offset += n;
            into.advance(n);
        }
        offset
    }

    /// Looks for a moment, under the direction's lock. Has something come?
    #[inline]
    pub fn comes_soon(&self) -> bool {
        let looks = wait::brief_looks();
        (0..looks).any(|_| {
            sys::relax();
            self.available().map_or(true, |n| n > 0) || self.is_turning()
        })
    }

    /// Is it time to look at the kernel, although the bytes are in the ring?
    pub fn is_due(&mut self) -> bool {
        self.empty += 1;
        self.empty % LOOK_EVERY == 0
    }

    /// Wants to be told in inbox `place` when bytes come; look once more afterwards.
    pub fn arm(&self, place: usize) {
        notice::arm(&self.view.my_wants()[want::DATA], place, super::places::GENERAL);
    }

    /// Says that this side looks at the ring, or that it does so no more ([`flag`]).
    pub fn set_flags(&self, flags: u64) {
        self.view.mine()[line::FLAGS].store(flags, Release);
    }

    /// Has the other side ended the channel?
    pub fn is_ended(&self) -> bool {
        self.view.theirs()[line::FLAGS].load(Acquire) & flag::ENDED != 0
    }

    /// SIOCINQ: bytes that a read would find, kernel's and ring's.
    pub fn queued(&self, kernel: c_int) -> usize {
        let ring = if self.is_in_ring() || self.is_turning() { self.available().unwrap_or(0) } else { 0 };
        ring + self.early.len() + self.without_copies(kernel.max(0) as u64) as usize
    }

    /// The view, for people.
    pub fn view(&self) -> &View {
        &self.view
    }
}
