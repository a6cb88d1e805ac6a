//! The program's buffers of one call, and how far it has come in them.

use std::io::{IoSlice, IoSliceMut};

/// The places that a receiving call fills, in order.
pub struct Scatter<'a, 'b> {
    bufs: &'a mut [IoSliceMut<'b>],
    index: usize,
    at: usize,
    /// Bytes received.
    pub done: usize,
    /// Bytes that there is room for in all.
    pub len: usize,
}

impl<'a, 'b> Scatter<'a, 'b> {
    /// Nothing filled yet.
    pub fn new(bufs: &'a mut [IoSliceMut<'b>]) -> Self {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        Self { bufs, index: 0, at: 0, done: 0, len }
    }

    /// Bytes that there is still room for.
    pub fn left(&self) -> usize {
        self.len - self.done.min(self.len)
    }

    /// The next place with room.
    pub fn next(&mut self) -> Option<&mut [u8]> {
        while self.index < self.bufs.len() && self.at == self.bufs[self.index].len() {
            self.index += 1;
            self.at = 0;
        }
        self.bufs.get_mut(self.index).map(|buf| &mut buf[self.at..])
    }

    /// The next place was filled with so many bytes.
    pub fn advance(&mut self, n: usize) {
        self.at += n;
        self.done += n;
    }
}

/// The bytes of a sending call, in order.
pub struct Gather<'a> {
    /// Where they lie.
    pub bufs: &'a [IoSlice<'a>],
    /// Bytes sent.
    pub done: usize,
    /// Bytes in all.
    pub len: usize,
}

impl<'a> Gather<'a> {
    /// Nothing sent yet.
    pub fn new(bufs: &'a [IoSlice<'a>]) -> Self {
        Self { bufs, done: 0, len: bufs.iter().map(|buf| buf.len()).sum() }
    }

    /// Bytes still to be sent.
    pub fn left(&self) -> usize {
        self.len - self.done
    }

    /// The next bytes to send, and whether more follow.
    pub fn next(&self) -> Option<(&'a [u8], bool)> {
        let mut skip = self.done;
        for buf in self.bufs {
            if skip < buf.len() {
                let rest = &buf[skip..];
                return Some((rest, self.done + rest.len() < self.len));
            }
            skip -= buf.len();
        }
        None
    }
}
