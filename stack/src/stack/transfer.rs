//! The program's bytes in and out of a connection.

use super::Stack;
use crate::tcp::Instant;

impl Stack {
    /// Queues bytes for sending and sends what may go. Returns how many were taken; 0 when the send queue is full.
    /// `more` is MSG_MORE. `None`: the slot holds no live connection.
    pub fn send(&mut self, slot: u32, now: Instant, data: &[u8], more: bool) -> Option<usize> {
        let now = self.not_back(now);
        let taken = self.connection(slot)?.send(now, data, more);
        if taken > 0 {
            self.tally(slot, 0, taken);
            self.touch(slot);
        }
        Some(taken)
    }

    /// Copies received bytes out. With `peek` they stay, else they are consumed and the window may open.
    pub fn recv(&mut self, slot: u32, out: &mut [u8], peek_at: Option<usize>) -> Option<usize> {
        let mut connection = self.connection(slot)?;
        let copied = match peek_at {
            Some(offset) => return Some(connection.peek(offset, out)),
            None => connection.recv(out),
        };
        let owes_ack = connection.tcb.owes_ack();
        self.after_taking(slot, copied, owes_ack);
        Some(copied)
    }

    /// Consumes bytes without copying (MSG_TRUNC, tcp(7)).
    pub fn discard(&mut self, slot: u32, len: usize) -> Option<usize> {
        let mut connection = self.connection(slot)?;
        let discarded = connection.discard(len);
        let owes_ack = connection.tcb.owes_ack();
        self.after_taking(slot, discarded, owes_ack);
        Some(discarded)
    }

    fn after_taking(&mut self, slot: u32, taken: usize, owes_ack: bool) {
        self.tally(slot, taken, 0);
        if owes_ack {
            self.touch(slot);
        }
    }

    /// Counts what the program took and gave, for `underpass ss`.
    fn tally(&mut self, slot: u32, taken: usize, given: usize) {
        if let Some(record) = self.record_mut(slot) {
            record.bytes_in = record.bytes_in.wrapping_add(taken as u64);
            record.bytes_out = record.bytes_out.wrapping_add(given as u64);
        }
    }

    /// Changes an option of a live connection and lets it act on the change (uncorking sends).
    pub fn with_connection<R>(
        &mut self,
        slot: u32,
        now: Instant,
        change: impl FnOnce(&mut crate::tcp::Connection<'_>) -> R,
    ) -> Option<R> {
        let result = change(&mut self.connection(slot)?);
        self.touch(slot);
        self.send_touched(now);
        Some(result)
    }
}
