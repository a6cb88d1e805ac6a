//! What a sender has left in the ring, once more through the kernel.
//!
//! Who shuts down, closes or exits takes nothing back any more; but the reader may have to hand the connection to a program that knows of no ring. So a
//! sender that turns to the kernel for good gives the kernel copies of what has not been read: behind the turn the kernel's stream begins
//! with the ring's last `COUNT` bytes before `LEAVE_AT`. Nothing has to be agreed on. A reader that goes on reading the ring throws the
//! copies away when it has come to the turn ([`Copies::all`]); one that has to be in the kernel goes there at once, and throws
//! away only the copies of what it has read ([`overtake`]).
//!
//! `COUNT` is stated before the turn, and lowered to what the kernel took of them before anything else is given to the kernel. So a reader
//! that looks at the kernel's queue first and at `COUNT` then takes no byte of what follows for a copy.

use super::Corrupt;
use super::layout::copies::{COUNT, SHORT, STATE, WHOLE};
use super::layout::line::LEAVE_AT;
use super::word::{Ordering::*, Word};

/// The sender is going to copy so many bytes; the turn comes next. `mine` is its line of copies.
pub fn announce(mine: &[Word], count: u64) {
    mine[COUNT].store(count, Relaxed);
    mine[STATE].store(0, Relaxed);
}

/// The kernel has taken `sent` of the `announced` bytes; what comes now is no copy any more.
pub fn settle(mine: &[Word], announced: u64, sent: u64) {
    mine[COUNT].store(sent, Release);
    mine[STATE].store(if sent == announced { WHOLE } else { SHORT }, Release);
}

/// Copies between a reader of the kernel's stream and what it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// There may be some.
    is_due: bool,
    /// The last of them, which are read instead of the ring's bytes.
    kept: u64,
    dropped: u64,
}

/// Whether a reader may leave a ring that its sender has left before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overtake {
    /// Yes; these copies come first.
    Now(Copies),
    /// Not yet: the sender is at it.
    Later,
    /// No: what is in the ring is nowhere else.
    Never,
}

impl Copies {
    /// The reader has read the whole ring. An error: there cannot be so many copies.
    pub fn all(theirs: &[Word], capacity: usize) -> Result<Self, Corrupt> {
        match theirs[COUNT].load(Acquire) {
            0 => Ok(Self::default()),
            count if count > capacity as u64 => Err(Corrupt),
            _ => Ok(Self { is_due: true, ..Self::default() }),
        }
    }

    /// May some come?
    pub fn are_due(&self) -> bool {
        self.is_due
    }

    /// How many bytes at the front of the kernel's queue are none of the reader's business; the queue was looked at before.
    pub fn left(&self, theirs: &[Word], capacity: usize) -> u64 {
        let count = theirs[COUNT].load(Acquire).min(capacity as u64);
        if self.is_due { count.saturating_sub(self.kept).saturating_sub(self.dropped) } else { 0 }
    }

    /// So many have been thrown away.
    pub fn throw_away(&mut self, count: u64) {
        self.dropped = self.dropped.saturating_add(count);
    }
}

/// May a reader that has taken `head` bytes of a ring of `capacity` leave it? The sender's turn to the kernel has been seen in its `line`;
/// `theirs` is its line of copies.
pub fn overtake(line: &[Word], theirs: &[Word], head: u64, capacity: usize) -> Result<Overtake, Corrupt> {
    let unread = line[LEAVE_AT].load(Relaxed).wrapping_sub(head);
    if unread == 0 {
        return Copies::all(theirs, capacity).map(Overtake::Now);
    }
    let state = theirs[STATE].load(Acquire);
    let count = theirs[COUNT].load(Acquire);
    if unread > capacity as u64 || count > capacity as u64 {
        return Err(Corrupt);
    }
    match state {
        WHOLE if count == 0 => Ok(Overtake::Never),
        WHOLE if unread > count => Err(Corrupt),
        WHOLE => Ok(Overtake::Now(Copies { is_due: true, kept: unread, dropped: 0 })),
        0 if count > 0 => Ok(Overtake::Later),
        _ => Ok(Overtake::Never),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn line() -> Vec<Word> {
        (0..8).map(|_| Word::new(0)).collect()
    }

    #[test]
    fn a_reader_of_the_whole_ring_drops_every_copy() {
        let theirs = line();
        assert_eq!(Copies::all(&theirs, 64), Ok(Copies::default()));
        announce(&theirs, 10);
        let mut copies = Copies::all(&theirs, 64).unwrap();
        assert_eq!(copies.left(&theirs, 64), 10);
        copies.throw_away(4);
        assert_eq!(copies.left(&theirs, 64), 6);
        // The kernel has not taken all of them.
        settle(&theirs, 10, 5);
        assert_eq!(copies.left(&theirs, 64), 1);
        copies.throw_away(1);
        assert_eq!(copies.left(&theirs, 64), 0);
    }

    #[test]
    fn a_reader_overtakes_when_all_are_in_the_kernel() {
        let (line, theirs) = (line(), line());
        line[LEAVE_AT].store(100, Relaxed);
        let overtake = |head| overtake(&line, &theirs, head, 64);
        assert_eq!(overtake(90), Ok(Overtake::Never), "nothing was copied");
        announce(&theirs, 30);
        assert_eq!(overtake(90), Ok(Overtake::Later));
        settle(&theirs, 30, 30);
        let Ok(Overtake::Now(copies)) = overtake(90) else { panic!("it may") };
        assert_eq!(copies.left(&theirs, 64), 20);
        let Ok(Overtake::Now(copies)) = overtake(70) else { panic!("it may") };
        assert_eq!(copies.left(&theirs, 64), 0);
        let Ok(Overtake::Now(copies)) = overtake(100) else { panic!("it may") };
        assert_eq!(copies.left(&theirs, 64), 30);
        announce(&theirs, 30);
        settle(&theirs, 30, 29);
        assert_eq!(overtake(90), Ok(Overtake::Never));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (line, theirs) = (line(), line());
        line[LEAVE_AT].store(100, Relaxed);
        announce(&theirs, 65);
        settle(&theirs, 65, 65);
        assert_eq!(Copies::all(&theirs, 64), Err(Corrupt));
        assert_eq!(overtake(&line, &theirs, 90, 64), Err(Corrupt));
        announce(&theirs, 5);
        settle(&theirs, 5, 5);
        // More is unread than was when the sender left; the reader is beyond it; too much is unread.
        for head in [90, 101, 30] {
            assert_eq!(overtake(&line, &theirs, head, 64), Err(Corrupt), "{head}");
        }
    }
}
