//! One direction's bytes: a ring with one sending and one receiving side.
//!
//! Positions count bytes since the beginning and never go back. Whenever the sender finds the ring empty it begins again at
//! its start (`BASE`), so that a conversation of small messages stays in the same few cache lines, and an idle connection in a page.

use std::ops::Range;

use super::Corrupt;
use super::layout::line::{BASE, HEAD, TAIL};
use super::word::{Ordering::*, Word};
use crate::mem::Bytes;

/// The sending side. Its own words are only copies for the other side to read.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    capacity: u64,
    tail: u64,
    base: u64,
}

impl Sender {
    /// Nothing sent yet, into a ring of `capacity` bytes (a power of two).
    pub fn new(capacity: usize) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self { capacity: capacity as u64, tail: 0, base: 0 }
    }

    /// Bytes sent so far.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes that a ring holds.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Bytes that the other side has not taken yet.
    #[inline]
    pub fn unread(&self, theirs: &[Word]) -> Result<usize, Corrupt> {
        let unread = self.tail.wrapping_sub(theirs[HEAD].load(Acquire));
        if unread > self.capacity { Err(Corrupt) } else { Ok(unread as usize) }
    }

    /// Bytes that fit now.
    #[inline]
    pub fn space(&self, theirs: &[Word]) -> Result<usize, Corrupt> {
        Ok(self.capacity() - self.unread(theirs)?)
    }

    /// Copies as much of `bytes` as fits; the other side sees it after [`Sender::publish`].
    #[inline]
    pub fn push(&mut self, theirs: &[Word], ring: &impl Bytes, bytes: &[u8]) -> Result<usize, Corrupt> {
        let unread = self.unread(theirs)?;
        if unread == 0 {
            self.base = self.tail;
        }
        let n = bytes.len().min(self.capacity() - unread);
        let at = self.place(self.tail);
        let first = n.min(self.capacity() - at);
        ring.write(at, &bytes[..first]);
        if first < n {
            ring.write(0, &bytes[first..n]);
        }
        self.tail = self.tail.wrapping_add(n as u64);
        Ok(n)
    }

    /// Makes what was pushed visible.
    #[inline]
    pub fn publish(&self, mine: &[Word]) {
        mine[BASE].store(self.base, Relaxed);
        mine[TAIL].store(self.tail, Release);
    }

    /// Copies what the other side has not taken, from stream position `from` on, back into `out`; returns how much.
    pub fn take_back(&self, ring: &impl Bytes, from: u64, out: &mut [u8]) -> usize {
        let (first, rest) = self.places(from);
        let n = (first.len() + rest.len()).min(out.len());
        let before = first.len().min(n);
        ring.read(first.start, &mut out[..before]);
        ring.read(rest.start, &mut out[before..n]);
        n
    }

    /// Where in the ring lies what was sent from stream position `from` on: up to its end, and on from its start.
    pub fn places(&self, from: u64) -> (Range<usize>, Range<usize>) {
        let left = self.tail.wrapping_sub(from).min(self.capacity) as usize;
        let at = self.place(from);
        let first = left.min(self.capacity() - at);
        (at..at + first, 0..left - first)
    }

    fn place(&self, position: u64) -> usize {
        (position.wrapping_sub(self.base) & (self.capacity - 1)) as usize
    }
}

/// The receiving side.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    capacity: u64,
    head: u64,
}

impl Receiver {
    /// Nothing taken yet, from a ring of `capacity` bytes (a power of two).
    pub fn new(capacity: usize) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self { capacity: capacity as u64, head: 0 }
    }

    /// Bytes taken so far.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Bytes that a ring holds.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Bytes at hand.
    #[inline]
    pub fn available(&self, theirs: &[Word]) -> Result<usize, Corrupt> {
        let available = theirs[TAIL].load(Acquire).wrapping_sub(self.head);
        if available > self.capacity { Err(Corrupt) } else { Ok(available as usize) }
    }

    /// Copies bytes that are at hand, from the `offset`th on; the caller knows [`Receiver::available`] and asks for no more.
    #[inline]
    pub fn peek(&self, theirs: &[Word], ring: &impl Bytes, offset: usize, out: &mut [u8]) {
        // The base stands still while the ring is not empty.
        let base = theirs[BASE].load(Relaxed);
        let at = (self.head.wrapping_add(offset as u64).wrapping_sub(base) & (self.capacity - 1)) as usize;
        let first = out.len().min(self.capacity() - at);
        ring.read(at, &mut out[..first]);
        if first < out.len() {
            ring.read(0, &mut out[first..]);
        }
    }

    /// Takes bytes out of the ring: the sender may use their place again.
    #[inline]
    pub fn consume(&mut self, mine: &[Word], n: usize) {
        self.head = self.head.wrapping_add(n as u64);
        mine[HEAD].store(self.head, Release);
    }
}

#[cfg(all(test, not(loom)))]
#[path = "ring_tests.rs"]
mod tests;
