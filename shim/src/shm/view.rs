//! One side's view of a channel's shared pages.

use underpass_stack::lane::shm::Word;
use underpass_stack::lane::shm::layout::{LINE_WORDS, copies_at, line_at, ring_at, wants_at};
use underpass_stack::mem::Shared;
use underpass_stack::mem::shared::SharedBytes;

/// A channel as one of its two sides sees it.
pub struct View {
    shared: Shared,
    side: usize,
    capacity: usize,
}

impl View {
    /// The view of side 0 or 1 of a channel with rings of `capacity` bytes.
    pub fn new(shared: Shared, side: usize, capacity: usize) -> Self {
        Self { shared, side, capacity }
    }

    /// Bytes that each ring holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Which side.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Where the channel lies in this process's memory.
    pub fn address(&self) -> u64 {
        self.shared.address()
    }

    fn line(&self, side: usize) -> &[Word] {
        self.shared.words(line_at(side, self.capacity), LINE_WORDS)
    }

    /// The line that we store to.
    #[inline]
    pub fn mine(&self) -> &[Word] {
        self.line(self.side)
    }

    /// The line that the other side stores to.
    #[inline]
    pub fn theirs(&self) -> &[Word] {
        self.line(1 - self.side)
    }

    /// What we say of copies.
    pub fn my_copies(&self) -> &[Word] {
        self.shared.words(copies_at(self.side, self.capacity), LINE_WORDS)
    }

    /// What the other side says of copies.
    pub fn their_copies(&self) -> &[Word] {
        self.shared.words(copies_at(1 - self.side, self.capacity), LINE_WORDS)
    }

    /// What we want to be told.
    pub fn my_wants(&self) -> &[Word] {
        self.shared.words(wants_at(self.side, self.capacity), LINE_WORDS)
    }

    /// What the other side wants to be told.
    #[inline]
    pub fn their_wants(&self) -> &[Word] {
        self.shared.words(wants_at(1 - self.side, self.capacity), LINE_WORDS)
    }

    /// The ring that our bytes go into.
    #[inline]
    pub fn my_ring(&self) -> SharedBytes<'_> {
        self.shared.bytes(ring_at(self.side, self.capacity), self.capacity)
    }

    /// The ring that our bytes come from.
    #[inline]
    pub fn their_ring(&self) -> SharedBytes<'_> {
        self.shared.bytes(ring_at(1 - self.side, self.capacity), self.capacity)
    }
}
