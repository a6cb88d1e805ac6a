//! Is a segment just what was to be expected? (Header prediction: Van Jacobson, 1990; RFC 7323, appendix on header prediction)
//!
//! Nearly every segment of an established connection is the next data, or acknowledges some of what is in flight, and says nothing else.
//! Then most of what [`super::input`] looks for cannot be there: one look finds that out, and what is left to do follows here. The two
//! ways do the same to such a segment; a test holds them against each other.

use super::connection::Connection;
use super::image::flag;
use super::outcome::Outcome;
use super::segment::{Flags, Segment};
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;

/// With one of these, a connection is not simply open in both directions, or has more to look for.
const UNUSUAL: u32 = flag::RESET_RECEIVED | flag::FIN_QUEUED | flag::ECN | bit::FIN_SEEN | bit::DONE;

impl Connection<'_> {
    /// Takes a segment in if it is as expected; if not nothing has happened.
    #[inline(always)]
    pub(crate) fn as_predicted(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) -> bool {
        let len = segment.payload.len() as u32;
        let fits = len == 0 || self.data_limit().ahead_of(segment.seq) >= len;
        if !fits || !self.tcb.predicts(segment) || !self.recovery.is_calm() || self.recovery.tail.is_some() {
            return false;
        }
        self.heard(now, segment);
        self.tcb.take_window(segment);
        if segment.ack != self.tcb.snd_una {
            self.take_plain_ack(now, segment, out);
        }
        self.tcb.timers.stop(Timer::Reorder);
        self.tcb.take_probe(self.recovery.loss.timeouts, out);
        if len != 0 {
            self.append(segment.payload);
            out.readable = true;
            self.tcb.ack_data(now, segment, false);
        }
        self.tune(now, segment);
        true
    }

    /// It acknowledges new data, nothing is lost, and the peer has reported nothing.
    #[inline]
    fn take_plain_ack(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) {
        let acked = segment.ack.since(self.tcb.snd_una);
        let before = (self.recovery.sent.in_flight(), self.recovery.rate.lost());
        let echo = self.tcb.echo_of(segment);
        let delivery = self.recovery.hear_acked(now, segment.ack, echo);
        self.advance(segment, out);
        self.time(now, segment, acked, &delivery);
        let rto = self.tcb.rtt.rto();
        self.grow(now, acked, before.0, rto);
        let loss = &mut self.recovery.loss;
        loss.dup_acks = 0;
        loss.recover = loss.recover.later(segment.ack.minus(1));
        self.rearm(now, rto);
        self.report(now, acked, before, &delivery);
    }
}

impl Tcb {
    /// Is it the next segment of an open connection, with nothing in its header but what the connection's segments always have? Without
    /// SACK, acknowledgements have to be counted.
    #[inline]
    fn predicts(&self, segment: &Segment<'_>) -> bool {
        let is_plain = segment.flags.0 & !Flags::PSH.0 == Flags::ACK.0 && segment.sack.is_empty();
        let is_open = self.bits & (UNUSUAL | flag::SACK) == flag::SACK && self.ooo.is_empty();
        let is_next = segment.seq == self.rcv_nxt && self.rcv_nxt.ge(self.rcv_wup) && self.rcv_nxt.le(self.rcv_adv);
        let acks_flight = segment.ack.ge(self.snd_una) && segment.ack.le(self.snd_nxt);
        let has_window = segment.window != 0 && self.snd_wnd != 0;
        is_plain & is_open & is_next & acks_flight & has_window && self.is_fresh(segment)
    }

    /// Does its timestamp follow the newest one, if it has one?
    #[inline]
    fn is_fresh(&self, segment: &Segment<'_>) -> bool {
        let Some(ts) = segment.timestamps.filter(|_| self.has(flag::TIMESTAMPS)) else { return true };
        self.has(flag::TS_RECENT) && (ts.val.wrapping_sub(self.ts_recent) as i32) >= 0
    }
}

#[cfg(test)]
mod tests;
