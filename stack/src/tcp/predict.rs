//! Is a segment just what was to be expected? (Header prediction: Van Jacobson, 1990; RFC 7323, appendix on header prediction)
//!
//! Nearly every segment of an established connection is the next data, or acknowledges some of what is in flight, and says nothing else.
//! Then most of what [`super::input`] looks for cannot be there: one look finds that out, and what is left to do follows here. The two
//! ways do the same to such a segment; a test holds them against each other.

use super::connection::Connection;
use super::image::flag;
use super::rate::Delivery;
use super::segment::{Flags, Segment, Timestamps};
use super::sent::Run;
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
    /// Takes a segment in if it is as expected. `sum` is asked for that of all but its data, if its checksum was not verified.
    #[inline(always)]
    pub(crate) fn predict(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        sum: impl FnOnce() -> Option<Sum>,
    ) -> Prediction {
        let len = segment.payload.len() as u32;
        let is_calm = self.recovery.is_calm() & self.recovery.tail().is_none() & !self.tcb.awaits_probe();
        if !(is_calm & self.tcb.predicts(segment)) {
            return Prediction::Missed;
        }
        if len != 0 && self.data_limit().ahead_of(segment.seq) < len {
            return Prediction::Missed;
        }
        let sum = sum();
        let is_right = if len == 0 { sum.is_none_or(Sum::is_valid) } else { self.copy_in(segment.payload, sum) };
        if !is_right {
            return Prediction::Corrupt;
        }
        let is_pushed = segment.flags.has(Flags::PSH);
        let writable = self.take_foreseen(now, segment.ack, segment.window, (len, is_pushed), segment.timestamps);
        Prediction::Met { writable }
    }

    /// What a segment changes that is as expected, and whose data lies in the ring. Says whether there is more send space.
    #[inline(always)]
    fn take_foreseen(
        &mut self,
        now: Instant,
        ack: SeqNr,
        window: u16,
        (len, is_pushed): (u32, bool),
        timestamps: Option<Timestamps>,
    ) -> bool {
        let (seq, acked) = (self.tcb.rcv_nxt, ack.since(self.tcb.snd_una));
        self.recovery.tally.predicted(acked, len);
        self.tcb.heard(now, seq, timestamps);
        self.tcb.take_window(seq, ack, window);
        let writable = acked != 0 && self.take_plain_ack(now, ack, timestamps);
        self.tcb.timers.stop(Timer::Reorder);
        if len != 0 {
            self.extend(len);
            self.tcb.ack_data(now, len, is_pushed, false);
        }
        self.tune(now, timestamps, len);
        writable
    }

    /// It acknowledges new data, nothing is lost, and the peer has reported nothing. Says whether there is more send space.
    #[inline(never)]
    fn take_plain_ack(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>) -> bool {
        // Nothing is lost or known to have arrived: all of it is in the network.
        let pipe = self.recovery.sent.span();
        if self.tcb.cc.goes_by_rate() {
            return self.take_ack_in_pieces(now, ack, timestamps, pipe);
        }
        match self.recovery.sent.take_piece(ack) {
            Some(run) => self.take_run_ack(now, ack, timestamps, pipe, &run),
            None => self.take_longer_ack(now, ack, timestamps, pipe),
        }
    }

    /// All that it acknowledges was sent once, piece by piece.
    #[inline(always)]
    fn take_run_ack(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>, pipe: u32, run: &Run) -> bool {
        let delivery = Delivery::of(run);
        self.recovery.rack.arrived_in_order(now, run);
        self.hear_delivery(now, &delivery);
        self.follow_ack(now, ack, timestamps, pipe, &delivery)
    }

    /// The same where it is not just the oldest piece.
    #[inline(never)]
    fn take_longer_ack(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>, pipe: u32) -> bool {
        match self.recovery.sent.take_run(ack) {
            Some(run) => self.take_run_ack(now, ack, timestamps, pipe, &run),
            None => self.take_ack_in_pieces(now, ack, timestamps, pipe),
        }
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
        let tcb = &mut *self.tcb;
        let rto = tcb.rtt.rto();
        if !tcb.ecn.is_reduced() {
            let told = tcb.told(now, acked, pipe);
            tcb.cc.on_foreseen_ack(&told, rto, self.recovery.sent.departures());
        }
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
    /// SACK, acknowledgements have to be counted. Few branches: nearly always all of it is so.
    #[inline(always)]
    fn predicts(&self, segment: &Segment<'_>) -> bool {
        let is_plain = (segment.flags.0 & !Flags::PSH.0 == Flags::ACK.0) & segment.sack.is_empty();
        let is_open = (self.bits & (UNUSUAL | flag::SACK) == flag::SACK) & self.ooo.is_empty();
        // Each after, or at, the other.
        let order = [
            (self.rcv_nxt, self.rcv_wup),
            (self.rcv_adv, self.rcv_nxt),
            (segment.ack, self.snd_una),
            (self.snd_nxt, segment.ack),
        ];
        let is_in_order = order.iter().fold(0, |all, (later, earlier)| all | later.since(*earlier)) as i32 >= 0;
        let has_window = (segment.window != 0) & (self.snd_wnd != 0);
        is_plain & is_open & (segment.seq == self.rcv_nxt) & is_in_order & has_window && self.is_fresh(segment)
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
