//! One direction of a channel whose bytes loom watches: reading one while the other side writes it is an error.

use loom::cell::UnsafeCell;
use underpass_stack::lane::shm::layout::LINE_WORDS;
use underpass_stack::lane::shm::{Receiver, Sender, Word};
use underpass_stack::mem::Bytes;

/// The ring's bytes.
pub struct Area(Vec<UnsafeCell<u8>>);

// SAFETY: loom checks every access to the cells.
unsafe impl Sync for Area {}
// SAFETY: as above.
unsafe impl Send for Area {}

impl Bytes for Area {
    fn write(&self, at: usize, bytes: &[u8]) {
        for (cell, &byte) in self.0[at..at + bytes.len()].iter().zip(bytes) {
            // SAFETY: loom panics if anybody else uses the byte at the same time.
            cell.with_mut(|to| unsafe { *to = byte });
        }
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        for (cell, byte) in self.0[at..at + out.len()].iter().zip(out) {
            // SAFETY: as in `write`.
            *byte = cell.with(|from| unsafe { *from });
        }
    }
}

/// The words of both sides and the ring of the sending one.
pub struct Channel {
    pub sender: Vec<Word>,
    pub receiver: Vec<Word>,
    /// What the sending side says of copies.
    pub copies: Vec<Word>,
    pub ring: Area,
}

impl Channel {
    pub fn new(capacity: usize) -> Self {
        let ring = Area((0..capacity).map(|_| UnsafeCell::new(0)).collect());
        Self { sender: words(LINE_WORDS), receiver: words(LINE_WORDS), copies: words(2), ring }
    }

    pub fn capacity(&self) -> usize {
        self.ring.0.len()
    }

    /// Puts as much as fits into the ring and shows it.
    pub fn send(&self, sender: &mut Sender, bytes: &[u8]) -> usize {
        let n = sender.push(&self.receiver, &self.ring, bytes).unwrap();
        sender.publish(&self.sender);
        n
    }

    /// Takes at most `most` bytes.
    pub fn receive(&self, receiver: &mut Receiver, most: usize) -> Vec<u8> {
        let n = receiver.available(&self.sender).unwrap().min(most);
        let mut out = vec![0; n];
        receiver.peek(&self.sender, &self.ring, 0, &mut out);
        if n > 0 {
            receiver.consume(&self.receiver, n);
        }
        out
    }
}

/// So many words, all zero.
pub fn words(count: usize) -> Vec<Word> {
    (0..count).map(|_| Word::new(0)).collect()
}
