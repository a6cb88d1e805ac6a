//! The program's side of a connection: bytes in, bytes out.

use std::sync::atomic::{Ordering, compiler_fence};

use super::recovery::Recovery;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use crate::mem::ring;

/// What is taken at once where TCP_NOTSENT_LOWAT allows less, bytes.
const LOWAT_CHUNK: usize = 16 << 10;

/// A connection at work: its state, its two rings, whose sizes are powers of two, and its transmissions.
///
/// Byte `seq` of a stream lies at [`Tcb::rcv_place`] or [`Tcb::snd_place`]. The send ring holds `[snd_una, snd_end)`; the receive ring holds
/// the unread bytes `[rcv_read, rcv_nxt)` and, further on, what arrived out of order.
///
/// Order of a pass: [`Connection::on_segment`] for all that came in, [`Connection::on_timer`] when [`Tcb::deadline`]
/// has passed, then [`Connection::poll_transmit`] until it says `None`.
#[derive(Debug)]
pub struct Connection<'a> {
    /// The state.
    pub tcb: &'a mut Tcb,
    /// The send ring.
    pub snd: &'a mut [u8],
    /// The receive ring.
    pub rcv: &'a mut [u8],
    /// Its transmissions.
    pub recovery: &'a mut Recovery,
}

impl Connection<'_> {
    /// Bytes that [`Connection::send`] would take now; 0 after [`Connection::shutdown_write`].
    pub fn send_space(&self) -> usize {
        if self.tcb.fin_queued() {
            return 0;
        }
        let space = self.send_limit().saturating_sub(self.tcb.snd_end.since(self.tcb.snd_una) as usize);
        match self.tcb.notsent_lowat as usize {
            0 => space,
            low if self.tcb.unsent() >= low => 0,
            // The kernel, too, takes whole buffers as long as less waits, so that small values do not make small writes.
            low => space.min((low - self.tcb.unsent()).max(LOWAT_CHUNK)),
        }
    }

    /// Has enough been sent that more is asked for (TCP_NOTSENT_LOWAT: less than half of it waits)?
    pub fn wants_more(&self) -> bool {
        let low = self.tcb.notsent_lowat as usize;
        low == 0 || 2 * self.tcb.unsent() < low
    }

    /// What an empty queue would take at once, bytes.
    pub fn most_at_once(&self) -> usize {
        match self.tcb.notsent_lowat as usize {
            0 => self.send_limit(),
            low => self.send_limit().min((low / 2).max(1)),
        }
    }

    /// Bytes that may wait to be acknowledged (SO_SNDBUF in spirit): what [`Tcb::limit_queue`] said, or the whole ring.
    pub fn send_limit(&self) -> usize {
        let limit = self.tcb.snd_limit as usize;
        // 0 wraps, and is none.
        if limit.wrapping_sub(1) < self.snd.len() { limit } else { self.snd.len() }
    }

    /// Queues bytes and returns how many: 0 when the ring is full. `more` is MSG_MORE: a last partial segment waits
    /// for the next send (or 200 ms).
    #[inline]
    pub fn send(&mut self, _now: Instant, data: &[u8], more: bool) -> usize {
        let len = data.len().min(self.send_space());
        if len == 0 {
            return 0;
        }
        let end = self.tcb.snd_end;
        if self.tcb.snd_una == end {
            self.tcb.snd_base = end;
            compiler_fence(Ordering::Release);
        }
        ring::write(self.snd, self.tcb.snd_place(end.0), &data[..len]);
        self.tcb.assign(bit::MORE, more && len == data.len());
        compiler_fence(Ordering::Release);
        self.tcb.snd_end = self.tcb.snd_end.plus(len as u32);
        len
    }

    /// Copies unread bytes out and consumes them; returns how many.
    #[inline]
    pub fn recv(&mut self, out: &mut [u8]) -> usize {
        let len = self.tcb.readable().min(self.rcv.len()).min(out.len());
        if len != 0 {
            ring::read(self.rcv, self.tcb.rcv_place(self.tcb.rcv_read.0), &mut out[..len]);
            self.consume(len);
        }
        len
    }

    /// Copies unread bytes from `offset` on, consuming nothing; returns how many.
    pub fn peek(&self, offset: usize, out: &mut [u8]) -> usize {
        let len = self.tcb.readable().min(self.rcv.len()).saturating_sub(offset).min(out.len());
        if len != 0 {
            let place = self.tcb.rcv_place(self.tcb.rcv_read.plus(offset as u32).0);
            ring::read(self.rcv, place, &mut out[..len]);
        }
        len
    }

    /// The unread bytes where they lie, in at most two pieces.
    pub fn unread(&self) -> (&[u8], &[u8]) {
        let len = self.tcb.readable().min(self.rcv.len());
        ring::slices(self.rcv, self.tcb.rcv_place(self.tcb.rcv_read.0), len)
    }

    /// Consumes up to `n` unread bytes (MSG_TRUNC, or after a look with `peek` or `unread`); returns how many.
    pub fn discard(&mut self, n: usize) -> usize {
        let len = n.min(self.tcb.readable());
        if len != 0 {
            self.consume(len);
        }
        len
    }

    /// The program has `len` bytes more.
    #[inline(always)]
    fn consume(&mut self, len: usize) {
        compiler_fence(Ordering::Release);
        self.tcb.rcv_read = self.tcb.rcv_read.plus(len as u32);
        self.after_read();
    }

    /// The data of a segment that [`Connection::poll_transmit`] returned: `len` bytes from `seq` on.
    #[inline(always)]
    pub fn payload(&self, seq: SeqNr, len: u32) -> (&[u8], &[u8]) {
        ring::slices(self.snd, self.tcb.snd_place(seq.0), (len as usize).min(self.snd.len()))
    }
}
