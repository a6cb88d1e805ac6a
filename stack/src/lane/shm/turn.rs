//! Where one direction's bytes go, the kernel or the ring, and how its reader follows without a mark in the stream.
//!
//! The sender counts the bytes that it has given to each. "After X bytes in the kernel mine are in the ring" is stated in `ENTER_AT`,
//! "after Y bytes in the ring mine are in the kernel" in `LEAVE_AT`; `TURN` counts the statements. The reader takes X bytes from
//! the kernel before it turns to the ring, and the ring's first Y bytes before it turns back. A sender turns to the ring only
//! when the reader has said that it looks there, and has followed every turn before.
//!
//! A sender may go to the ring and back while the reader is in a call to the kernel, which then returns bytes of before and of after.
//! So the reader looks at `TURN` once more when the kernel has answered ([`Inbound::in_order`]), and keeps for later what came
//! too early. An end of the kernel's stream is one only if nothing has been stated by then.

use super::Corrupt;
use super::layout::flag;
use super::layout::line::{ENTER_AT, FLAGS, LEAVE_AT, SEEN, TURN};
use super::word::{Ordering::*, Word};

/// The sender's part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outbound {
    turn: u64,
}

impl Outbound {
    /// Do the bytes go to the ring?
    #[inline]
    pub fn is_in_ring(&self) -> bool {
        self.turn % 2 == 1
    }

    /// Has the reader followed every turn?
    pub fn is_followed(&self, theirs: &[Word]) -> bool {
        theirs[SEEN].load(Acquire) == self.turn
    }

    /// May the bytes go to the ring from now on?
    pub fn may_enter(&self, theirs: &[Word]) -> bool {
        let flags = theirs[FLAGS].load(Acquire);
        let wanted = flags & (flag::READY | flag::RECALL | flag::ENDED) == flag::READY;
        !self.is_in_ring() && wanted && self.is_followed(theirs)
    }

    /// From byte `kernel_bytes` of the kernel's stream on, bytes are in the ring.
    pub fn enter(&mut self, mine: &[Word], kernel_bytes: u64) {
        debug_assert!(!self.is_in_ring());
        mine[ENTER_AT].store(kernel_bytes, Relaxed);
        self.turn += 1;
        mine[TURN].store(self.turn, Release);
    }

    /// From byte `ring_bytes` of the ring's stream on, bytes are in the kernel.
    pub fn leave(&mut self, mine: &[Word], ring_bytes: u64) {
        debug_assert!(self.is_in_ring());
        mine[LEAVE_AT].store(ring_bytes, Relaxed);
        self.turn += 1;
        mine[TURN].store(self.turn, Release);
    }
}

/// What the reader has to do before it reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: go on where you are.
    Stay,
    /// Once so many bytes have come through the kernel and have been read, turn to the ring.
    ToRing(u64),
    /// Once so many bytes of the ring have been read, turn to the kernel.
    ToKernel(u64),
}

/// The reader's part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inbound {
    seen: u64,
}

impl Inbound {
    /// Are the bytes read from the ring?
    #[inline]
    pub fn is_in_ring(&self) -> bool {
        self.seen % 2 == 1
    }

    /// What the sender has stated next.
    #[inline]
    pub fn next(&self, theirs: &[Word]) -> Result<Turn, Corrupt> {
        let turn = theirs[TURN].load(Acquire);
        match turn.wrapping_sub(self.seen) {
            0 => Ok(Turn::Stay),
            // The sender may leave before the reader has come to the ring, but not enter again.
            1 | 2 if !self.is_in_ring() => Ok(Turn::ToRing(theirs[ENTER_AT].load(Relaxed))),
            1 => Ok(Turn::ToKernel(theirs[LEAVE_AT].load(Relaxed))),
            _ => Err(Corrupt),
        }
    }

    /// How many of `received` bytes, which the kernel has given just now after `read` others, are to be read before the ring's. The
    /// rest comes after them: the sender has been in the ring since the reader last looked.
    pub fn in_order(&self, theirs: &[Word], read: u64, received: usize) -> Result<usize, Corrupt> {
        let Turn::ToRing(at) = self.next(theirs)? else { return Ok(received) };
        let left = at.checked_sub(read).ok_or(Corrupt)?;
        Ok(left.min(received as u64) as usize)
    }

    /// The reader has turned.
    pub fn follow(&mut self, mine: &[Word]) {
        self.seen += 1;
        mine[SEEN].store(self.seen, Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn line() -> Vec<Word> {
        (0..8).map(|_| Word::new(0)).collect()
    }

    #[test]
    fn a_sender_turns_only_to_a_reader_who_looks() {
        let (sender, reader) = (line(), line());
        let mut out = Outbound::default();
        assert!(!out.may_enter(&reader));
        reader[FLAGS].store(flag::READY, Relaxed);
        assert!(out.may_enter(&reader));
        out.enter(&sender, 100);
        assert!(out.is_in_ring() && !out.may_enter(&reader));
        out.leave(&sender, 7);
        // The reader has not followed yet.
        assert!(!out.may_enter(&reader));
        let mut inbound = Inbound::default();
        assert_eq!(inbound.next(&sender), Ok(Turn::ToRing(100)));
        inbound.follow(&reader);
        assert!(!out.may_enter(&reader));
        assert_eq!(inbound.next(&sender), Ok(Turn::ToKernel(7)));
        inbound.follow(&reader);
        assert_eq!(inbound.next(&sender), Ok(Turn::Stay));
        assert!(out.may_enter(&reader));
        reader[FLAGS].store(flag::READY | flag::RECALL, Relaxed);
        assert!(!out.may_enter(&reader));
    }

    #[test]
    fn kernel_bytes_of_after_the_ring_are_told_apart() {
        let (sender, reader) = (line(), line());
        let (mut out, mut inbound) = (Outbound::default(), Inbound::default());
        assert_eq!(inbound.in_order(&sender, 0, 50), Ok(50));
        out.enter(&sender, 100);
        out.leave(&sender, 7);
        assert_eq!(inbound.in_order(&sender, 40, 50), Ok(50));
        assert_eq!(inbound.in_order(&sender, 40, 80), Ok(60));
        assert_eq!(inbound.in_order(&sender, 101, 1), Err(Corrupt));
        inbound.follow(&reader);
        inbound.follow(&reader);
        assert_eq!(inbound.in_order(&sender, 100, 20), Ok(20));
    }

    #[test]
    fn turns_that_cannot_be_are_refused() {
        let sender = line();
        let inbound = Inbound::default();
        for turn in [3, 4, u64::MAX] {
            sender[TURN].store(turn, Relaxed);
            assert_eq!(inbound.next(&sender), Err(Corrupt), "{turn}");
        }
    }
}
