//! Where does received data go?

use std::sync::atomic::{Ordering, compiler_fence};

use super::connection::Connection;
use super::outcome::Outcome;
use super::segment::{Flags, Segment};
use super::seq::SeqNr;
use super::tcb::bit;
use super::time::Instant;
use super::timer::Timer;
use crate::mem::ring;
use crate::stats::Counter;
use crate::wire::checksum::Sum;

impl Connection<'_> {
    /// Seventh step: the segment's data (RFC 9293, section 3.10.7.4).
    pub(crate) fn take_data(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) {
        if segment.payload.is_empty() {
            return;
        }
        self.tcb.take_cwr(segment);
        let end = segment.seq.plus(segment.payload.len() as u32);
        let start = segment.seq.later(self.tcb.rcv_nxt);
        let limit = self.data_limit();
        if !start.lt(end) || !start.lt(limit) {
            return self.no_news(segment.seq, end, out);
        }
        if segment.seq.lt(self.tcb.rcv_nxt) {
            self.tcb.note_duplicate(segment.seq, self.tcb.rcv_nxt);
            self.tcb.set(bit::ACK_NOW);
        }
        let offset = start.since(segment.seq) as usize;
        let len = end.earlier(limit).since(start) as usize;
        let data = &segment.payload[offset..offset + len];
        self.tcb.take_mark(segment, self.tcb.rcv_nxt);
        if start == self.tcb.rcv_nxt {
            self.append(data);
            out.readable = true;
            let fills_gap = !self.tcb.ooo.is_empty();
            if fills_gap {
                self.join_up();
            }
            let is_pushed = segment.flags.has(Flags::PSH);
            self.tcb.ack_data(now, segment.payload.len() as u32, is_pushed, fills_gap);
        } else {
            self.set_aside(start, data, out);
        }
    }

    /// Data at or beyond this is not accepted: the promised window, the ring, the peer's own FIN.
    #[inline]
    pub(crate) fn data_limit(&self) -> SeqNr {
        let ring_end = self.tcb.rcv_read.plus(self.rcv.len() as u32);
        let limit = self.tcb.rcv_adv.earlier(ring_end);
        if self.tcb.has(bit::FIN_SEEN) { limit.earlier(self.tcb.rcv_fin) } else { limit }
    }

    /// All of it was here before, or none of it is allowed: say where we stand.
    fn no_news(&mut self, start: SeqNr, end: SeqNr, out: &mut Outcome) {
        let is_duplicate = end.le(self.tcb.rcv_nxt);
        if is_duplicate {
            self.tcb.note_duplicate(start, end);
        }
        out.count(if is_duplicate { Counter::RxDuplicate } else { Counter::RxOutOfWindow });
        self.tcb.set(bit::ACK_NOW);
    }

    /// The bytes first, then the number that makes them readable.
    #[inline]
    pub(crate) fn append(&mut self, data: &[u8]) {
        self.copy_in(data, None);
        self.extend(data.len() as u32);
    }

    /// Copies the next bytes of the stream to their place, where nobody looks before [`Connection::extend`] makes them readable. False
    /// if they are not what their checksum says, whose `sum` of all before them is given.
    #[inline(always)]
    pub(crate) fn copy_in(&mut self, data: &[u8], sum: Option<Sum>) -> bool {
        self.copy_to(self.next_place(), data, sum)
    }

    /// The place of the next byte of the stream in the receive ring.
    #[inline(always)]
    pub(crate) fn next_place(&self) -> u32 {
        if self.is_drained() { 0 } else { self.tcb.rcv_place(self.tcb.rcv_nxt.0) }
    }

    /// As [`Connection::copy_in`], to a place at or behind the next byte's.
    #[inline(always)]
    pub(crate) fn copy_to(&mut self, place: u32, data: &[u8], sum: Option<Sum>) -> bool {
        match sum {
            None => {
                ring::write(self.rcv, place, data);
                true
            }
            Some(sum) => match ring::place(self.rcv, place, data.len()) {
                Some(place) => sum.plus_copied(place, data).is_valid(),
                None => self.copy_in_pieces(place, data, sum),
            },
        }
    }

    /// The same where the place is in two pieces.
    #[inline(never)]
    fn copy_in_pieces(&mut self, place: u32, data: &[u8], sum: Sum) -> bool {
        ring::write(self.rcv, place, data);
        sum.plus(data).is_valid()
    }

    /// The next `len` bytes lie at their place, and can be read from now on.
    #[inline]
    pub(crate) fn extend(&mut self, len: u32) {
        let nxt = self.tcb.rcv_nxt;
        if self.is_drained() {
            self.tcb.rcv_base = nxt;
        }
        compiler_fence(Ordering::Release);
        self.tcb.rcv_nxt = nxt.plus(len);
    }

    /// Is the receive ring empty, so that what comes next may lie anywhere in it?
    #[inline]
    fn is_drained(&self) -> bool {
        self.tcb.rcv_nxt == self.tcb.rcv_read && self.tcb.ooo.is_empty()
    }

    /// What was set aside may continue the stream now.
    fn join_up(&mut self) {
        let nxt = self.tcb.rcv_nxt;
        // The pieces do not touch each other, so at most one contains `nxt`.
        if let Some(piece) = self.ahead().holding(nxt) {
            compiler_fence(Ordering::Release);
            self.tcb.rcv_nxt = nxt.later(piece.end);
        }
        let nxt = self.tcb.rcv_nxt;
        self.ahead().trim(nxt);
        self.tcb.forget_recent();
    }

    /// Out of order: kept at its place in the ring, unless there are too many pieces.
    fn set_aside(&mut self, start: SeqNr, data: &[u8], out: &mut Outcome) {
        out.count(Counter::RxOutOfOrder);
        let seldom = self.recovery.seldom();
        seldom.out_of_order = seldom.out_of_order.wrapping_add(1);
        self.tcb.ack_gap();
        let end = start.plus(data.len() as u32);
        if let Some(held) = self.ahead().holding(start).filter(|held| end.le(held.end)) {
            self.tcb.note_recent(held);
            return self.tcb.note_duplicate(start, end);
        }
        self.write_missing(start, end, data);
        if let Some(piece) = self.ahead().insert(start, end) {
            self.tcb.note_recent(piece);
        }
    }

    /// Of what overlaps, the bytes that came first stay, as in Linux.
    fn write_missing(&mut self, start: SeqNr, end: SeqNr, data: &[u8]) {
        let mut at = start;
        while let Some(gap) = self.ahead().gap(at, end) {
            let (from, to) = (gap.start.since(start) as usize, gap.end.since(start) as usize);
            let Some(bytes) = data.get(from..to) else { return };
            ring::write(self.rcv, self.tcb.rcv_place(gap.start.0), bytes);
            at = gap.end;
        }
    }

    /// Eighth step: the FIN bit. It counts once everything before it has arrived.
    pub(crate) fn take_fin(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) {
        if segment.flags.has(Flags::FIN) {
            self.note_fin(now, segment);
        }
        let tcb = &mut *self.tcb;
        if !tcb.has(bit::FIN_SEEN) || tcb.rcv_nxt != tcb.rcv_fin {
            return;
        }
        compiler_fence(Ordering::Release);
        tcb.rcv_nxt = tcb.rcv_fin.plus(1);
        tcb.rcv_adv = tcb.rcv_adv.later(tcb.rcv_nxt);
        tcb.set(bit::ACK_NOW);
        // Nobody waits for this any more, and TIME-WAIT has its whole time.
        tcb.timers.stop(Timer::TimeWait);
        out.peer_fin = true;
    }

    /// Remembers where the peer's data ends. A FIN beyond the window, before data that we hold, or at another place than
    /// the first one is not believed.
    fn note_fin(&mut self, now: Instant, segment: &Segment<'_>) {
        let top = self.ahead().highest();
        let tcb = &mut *self.tcb;
        let at = segment.seq.plus(segment.payload.len() as u32);
        if tcb.has(bit::FIN_SEEN) {
            // Again: our acknowledgement may have been lost, and TIME-WAIT starts anew.
            tcb.set(bit::ACK_NOW);
            return self.linger(now);
        }
        let holds_more = top.is_some_and(|top| top.gt(at));
        if at.lt(tcb.rcv_nxt) || at.gt(tcb.rcv_adv) || holds_more {
            return;
        }
        tcb.rcv_fin = at;
        compiler_fence(Ordering::Release);
        tcb.set(bit::FIN_SEEN);
        // Data out of order before it is answered already.
        if at != tcb.rcv_nxt && segment.payload.is_empty() {
            tcb.set(bit::ACK_NOW);
        }
    }
}
