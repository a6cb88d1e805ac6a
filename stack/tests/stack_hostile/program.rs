//! What programs do with their connections.

use super::player::Player;
use super::stream::{assert_is, bytes};

/// Most that is written or read at once, bytes.
const CHUNK: usize = 100_000;

impl Player<'_> {
    pub(super) fn write(&mut self) {
        let n = self.pick();
        let (len, kind) = (self.input.up_to(CHUNK), self.input.byte());
        let data = bytes(self.ends[n].own(), self.ends[n].written, len);
        let Some(slot) = self.ends[n].slot() else { return };
        let space = self.connection(n).map(|connection| connection.send_space());
        let taken = self.stack.send(slot, self.now, &data, kind % 8 == 0);
        assert_eq!(taken, space.map(|space| space.min(len)));
        let Some(taken) = taken else { return };
        let ends = &mut self.ends[n];
        assert!(taken == 0 || !ends.closed, "nothing can be written after the end");
        ends.written = ends.written.wrapping_add(taken as u32);
        if kind % 4 != 1 {
            self.stack.send_touched(self.now);
        }
    }

    pub(super) fn read(&mut self) {
        let n = self.pick();
        let (len, kind) = (self.input.up_to(CHUNK), self.input.byte());
        match kind % 8 {
            0 => self.peek(n, len),
            1 => self.discard(n, len),
            _ => self.receive(n, len),
        }
        if kind & 0x40 == 0 {
            self.stack.send_touched(self.now);
        }
    }

    /// The program reads up to `len` bytes.
    pub(super) fn receive(&mut self, n: usize, len: usize) {
        let Some(slot) = self.ends[n].slot() else { return };
        let unread = self.connection(n).map(|connection| connection.tcb.readable());
        let mut out = vec![0; len];
        let taken = self.stack.recv(slot, &mut out, None);
        assert_eq!(taken, unread.map(|unread| unread.min(len)));
        let ends = &mut self.ends[n];
        let taken = taken.unwrap_or(0);
        assert_is(ends.peers(), ends.read, &out[..taken], "what was read");
        ends.read = ends.read.wrapping_add(taken as u32);
    }

    fn peek(&mut self, n: usize, len: usize) {
        let from = self.input.up_to(CHUNK);
        let Some(slot) = self.ends[n].slot() else { return };
        let mut out = vec![0; len];
        let seen = self.stack.recv(slot, &mut out, Some(from)).unwrap_or(0);
        let ends = &self.ends[n];
        assert_is(ends.peers(), ends.read.wrapping_add(from as u32), &out[..seen], "what was looked at");
    }

    fn discard(&mut self, n: usize, len: usize) {
        let Some(slot) = self.ends[n].slot() else { return };
        let taken = self.stack.discard(slot, len).unwrap_or(0);
        assert!(taken <= len);
        self.ends[n].read = self.ends[n].read.wrapping_add(taken as u32);
    }

    pub(super) fn settings(&mut self) {
        let (n, now) = (self.pick(), self.now);
        let (kind, on) = (self.input.byte(), self.input.byte() % 2 == 0);
        let amount = u32::from(self.input.byte()) << (self.input.byte() % 20);
        let Some(slot) = self.ends[n].slot() else { return };
        self.stack.with_connection(slot, now, |connection| match kind % 8 {
            0 => connection.set_nodelay(on),
            1 => connection.set_cork(on),
            2 => connection.set_quickack(on),
            3 => connection.set_keepalive(now, on, amount, amount / 4, u32::from(kind >> 3)),
            4 => connection.set_user_timeout(amount),
            5 => connection.set_notsent_lowat(amount),
            6 => connection.tcb.limit_pacing(if on { u64::MAX } else { u64::from(amount) }),
            _ => connection.stop_growing(),
        });
    }

    /// The program shuts its side down.
    pub(super) fn close(&mut self) {
        let (n, now) = (self.pick(), self.now);
        let Some(slot) = self.ends[n].slot() else { return };
        if self.input.byte() % 4 == 0
            && self.stack.with_connection(slot, now, |connection| connection.shutdown_write(now)).is_some()
        {
            self.ends[n].closed = true;
        }
    }
}
