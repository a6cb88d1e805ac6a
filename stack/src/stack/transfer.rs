//! The program's bytes in and out of a connection.

use super::{Stack, conn_parts};
use crate::tcp::{Connection, Instant};

impl Stack {
    /// Queues bytes for sending and sends what may go. Returns how many were taken; 0 when the send queue is full.
    /// `more` is MSG_MORE. `None`: the slot holds no live connection.
    pub fn send(&mut self, slot: u32, now: Instant, data: &[u8], more: bool) -> Option<usize> {
        let now = self.not_back(now);
        let state = self.slots.get_mut(slot as usize)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot, state).filter(|(record, ..)| record.is_live())?;
        let taken = Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery }.send(now, data, more);
        // For `underpass ss`.
        record.bytes_out = record.bytes_out.wrapping_add(taken as u64);
        if taken > 0 && !state.touched {
            state.touched = true;
            self.touched.push(slot);
        }
        Some(taken)
    }

    /// Copies received bytes out. With `peek` they stay, else they are consumed and the window may open.
    pub fn recv(&mut self, slot: u32, out: &mut [u8], peek_at: Option<usize>) -> Option<usize> {
        if let Some(offset) = peek_at {
            return Some(self.connection(slot)?.peek(offset, out));
        }
        self.take(slot, |connection| connection.recv(out))
    }

    /// Consumes bytes without copying (MSG_TRUNC, tcp(7)).
    pub fn discard(&mut self, slot: u32, len: usize) -> Option<usize> {
        self.take(slot, |connection| connection.discard(len))
    }

    /// The program takes bytes, of which `take` says how many.
    #[inline(always)]
    fn take(&mut self, slot: u32, take: impl FnOnce(&mut Connection<'_>) -> usize) -> Option<usize> {
        let state = self.slots.get_mut(slot as usize)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot, state).filter(|(record, ..)| record.is_live())?;
        let taken = take(&mut Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery });
        // For `underpass ss`.
        record.bytes_in = record.bytes_in.wrapping_add(taken as u64);
        if record.tcb.owes_ack() && !state.touched {
            state.touched = true;
            self.touched.push(slot);
        }
        Some(taken)
    }

    /// Changes an option of a live connection and lets it act on the change (uncorking sends).
    pub fn with_connection<R>(
        &mut self,
        slot: u32,
        now: Instant,
        change: impl FnOnce(&mut Connection<'_>) -> R,
    ) -> Option<R> {
        let result = change(&mut self.connection(slot)?);
        self.touch(slot);
        self.send_touched(now);
        Some(result)
    }
}
