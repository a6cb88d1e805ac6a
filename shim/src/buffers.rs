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

    /// No places: bytes are thrown away (recv(2), MSG_TRUNC without a buffer).
    pub fn discarding(len: usize) -> Self {
        Self { bufs: &mut [], index: 0, at: 0, done: 0, len }
    }

    /// Is there nowhere to put bytes?
    pub fn has_no_places(&self) -> bool {
        self.bufs.is_empty() && self.len > 0
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

    /// Fills places with bytes, as far as there is room; says with how many.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let mut put = 0;
        while put < bytes.len()
            && let Some(room) = self.next()
        {
            let n = room.len().min(bytes.len() - put);
            room[..n].copy_from_slice(&bytes[put..put + n]);
            put += n;
            self.advance(n);
        }
        put
    }

    /// Nothing is filled, as in the beginning.
    pub fn restart(&mut self) {
        (self.index, self.at, self.done) = (0, 0, 0);
    }

    /// Is there more than one place left?
    pub fn is_scattered(&self) -> bool {
        self.bufs.iter().skip(self.index).filter(|buf| !buf.is_empty()).count() > 1
    }

    /// Takes back the last `n` bytes received, as if they had not been.
    pub fn retract(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n);
        while bytes.len() < n {
            if self.at == 0 {
                let Some(index) = self.index.checked_sub(1) else { break };
                (self.index, self.at) = (index, self.bufs[index].len());
                continue;
            }
            let Some(buf) = self.bufs.get(self.index) else { break };
            let take = self.at.min(n - bytes.len());
            // From the back to the front, turned round at the end.
            bytes.extend(buf[self.at - take..self.at].iter().rev());
            self.at -= take;
        }
        self.done -= bytes.len();
        bytes.reverse();
        bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_too_early_is_taken_back_across_places() {
        let (mut a, mut b, mut c) = ([0u8; 3], [0u8; 0], [0u8; 4]);
        let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b), IoSliceMut::new(&mut c)];
        let mut into = Scatter::new(&mut bufs);
        for bytes in [&b"abc"[..], b"de"] {
            into.next().unwrap()[..bytes.len()].copy_from_slice(bytes);
            into.advance(bytes.len());
        }
        assert_eq!(into.retract(4), b"bcde");
        assert_eq!((into.done, into.left()), (1, 6));
        assert_eq!(into.next().unwrap().len(), 2);
        assert_eq!(into.retract(0), b"");
        into.restart();
        assert_eq!((into.put(b"ABCDEFGH"), into.done, into.left()), (7, 7, 0));
        assert_eq!((a, c), (*b"ABC", *b"DEFG"));
    }
}
