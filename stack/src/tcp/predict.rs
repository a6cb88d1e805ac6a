//! Is a segment just what was to be expected? (Header prediction: Van Jacobson, 1990; RFC 7323, appendix on header prediction)
//!
//! Nearly every segment of an established connection is the next data, or acknowledges some of what is in flight, and says nothing else.
//! Then most of what [`super::input`] looks for cannot be there: one look finds that out, and what is left to do follows here. The two
//! ways do the same to such a segment; a test holds them against each other.

use super::connection::Connection;
use super::image::flag;
use super::rate::Delivery;
use super::segment::{Flags, Segment, Timestamps};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use crate::wire::checksum::Sum;

/// With one of these, a connection is not simply open in both directions, or has more to look for.
const UNUSUAL: u32 = flag::RESET_RECEIVED | flag::FIN_QUEUED | flag::ECN | bit::FIN_SEEN | bit::DONE;

/// Was a segment as expected?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prediction {
    /// No, and nothing has happened.
    Missed,
    /// Yes, but its data is not what its checksum says, and nothing has happened.
    Corrupt,
    /// Yes, and it was taken in.
    Met {
        /// It acknowledged data: there is more send space.
        writable: bool,
    },
}

impl Connection<'_> {
    /// Takes a segment in if it is as expected. `sum` is that of all but its data, if its checksum was not verified.
    #[inline(always)]
    pub(crate) fn predict(&mut self, now: Instant, segment: &Segment<'_>, sum: Option<Sum>) -> Prediction {
        let len = segment.payload.len() as u32;
        let is_calm = self.recovery.is_calm() & self.recovery.tail.is_none() & !self.tcb.awaits_probe();
        if !is_calm || !self.tcb.predicts(segment) {
            return Prediction::Missed;
        }
        if len == 0 {
            if sum.is_some_and(|sum| !sum.is_valid()) {
                return Prediction::Corrupt;
            }
        } else if self.data_limit().ahead_of(segment.seq) < len {
            return Prediction::Missed;
        } else if !self.copy_in(segment.payload, sum) {
            return Prediction::Corrupt;
        }
        let acked = segment.ack.since(self.tcb.snd_una);
        self.recovery.tally.predicted(acked, len);
        self.heard(now, segment);
        self.tcb.take_window(segment);
        let writable = acked != 0 && self.take_plain_ack(now, segment.ack, segment.timestamps);
        self.tcb.timers.stop(Timer::Reorder);
        if len != 0 {
            self.extend(len);
            self.tcb.ack_data(now, segment, false);
        }
        self.tune(now, segment.timestamps, len);
        Prediction::Met { writable }
    }

    /// It acknowledges new data, nothing is lost, and the peer has reported nothing. Says whether there is more send space.
    #[inline(never)]
    fn take_plain_ack(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>) -> bool {
        let pipe = self.recovery.sent.in_flight();
        let run = if self.tcb.cc.goes_by_rate() { None } else { self.recovery.sent.take_run(ack) };
        let Some(run) = run else { return self.take_ack_in_pieces(now, ack, timestamps, pipe) };
        let delivery = Delivery::of(&run);
        self.recovery.rack.arrived_in_order(now, &run);
        self.hear_delivery(now, &delivery);
        self.follow_ack(now, ack, timestamps, pipe, &delivery)
    }

    /// The same where pieces have fared differently, or congestion control wants to know all of them.
    #[inline(never)]
    fn take_ack_in_pieces(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>, pipe: u32) -> bool {
        let acked = ack.since(self.tcb.snd_una);
        let echo = self.tcb.echo_of(timestamps);
        let delivery = self.recovery.hear_pieces(now, ack, echo);
        self.hear_delivery(now, &delivery);
        let before = (pipe, self.recovery.rate.lost());
        let writable = self.follow_ack(now, ack, timestamps, pipe, &delivery);
        self.report_rate(now, acked, before, &delivery);
        writable
    }

    #[inline(always)]
    fn hear_delivery(&mut self, now: Instant, delivery: &Delivery) {
        if let Some(rtt) = delivery.rtt(now) {
            self.recovery.rack.measured(now, rtt);
        }
        self.recovery.rate.on_delivery(now, delivery);
    }

    /// What follows from such an acknowledgement of what was in flight.
    #[inline(always)]
    fn follow_ack(
        &mut self,
        now: Instant,
        ack: SeqNr,
        timestamps: Option<Timestamps>,
        pipe: u32,
        delivery: &Delivery,
    ) -> bool {
        let acked = ack.since(self.tcb.snd_una);
        let writable = self.advance(ack);
        self.time(now, timestamps, acked, delivery);
        let rto = self.tcb.rtt.rto();
        self.grow(now, acked, pipe, rto);
        let loss = &mut self.recovery.loss;
        loss.dup_acks = 0;
        loss.recover = loss.recover.later(ack.minus(1));
        self.rearm(now, rto);
        self.note_delivery(now, delivery);
        writable
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
