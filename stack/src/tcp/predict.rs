//! Is a segment just what was to be expected? (Header prediction: Van Jacobson, 1990; RFC 7323, appendix on header prediction)
//!
//! Nearly every segment of an established connection is the next data, or acknowledges some of what is in flight, and says nothing else.
//! Then most of what [`super::input`] looks for cannot be there: one look finds that out, and what is left to do follows here. The two
//! ways do the same to such a segment; a test holds them against each other.

use super::cc::{Ack, Algorithm};
use super::connection::Connection;
use super::image::flag;
use super::rack::Rack;
use super::rate::Rate;
use super::recovery::Recovery;
use super::segment::{Flags, Segment, Timestamps};
use super::sent::{Record, Run};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use super::train::Brought;
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
        if !self.foresees(segment) {
            return Prediction::Missed;
        }
        self.take_checked(now, segment, sum()).map_or(Prediction::Corrupt, |writable| Prediction::Met { writable })
    }

    /// Is a segment as expected, as far as its headers say?
    #[inline(always)]
    pub(crate) fn foresees(&self, segment: &Segment<'_>) -> bool {
        let len = segment.payload.len() as u32;
        let is_met = self.tcb.predicts(segment, self.recovery.troubles());
        if !is_met || self.recovery.tail().is_some() || self.tcb.awaits_probe() {
            return false;
        }
        len == 0 || self.data_limit().ahead_of(segment.seq) >= len
    }

    /// Takes a segment in that is as expected; `sum` is that of all but its data, if its checksum was not verified. Says whether there is more
    /// send space. `None`: its data is not what its checksum says, and nothing has happened.
    #[inline(always)]
    pub(crate) fn take_checked(&mut self, now: Instant, segment: &Segment<'_>, sum: Option<Sum>) -> Option<bool> {
        let len = segment.payload.len() as u32;
        let Segment { ack, window, timestamps, flags, .. } = *segment;
        // Each in a way of its own: one that knows that there is no data asks for it nowhere.
        if len == 0 {
            let brought = Brought { len: 0, largest: 0, is_pushed: false, acks: 1 };
            return sum.is_none_or(Sum::is_valid).then(|| self.take_foreseen(now, ack, window, timestamps, brought));
        }
        let brought = Brought { len, largest: len, is_pushed: flags.has(Flags::PSH), acks: 1 };
        self.copy_in(segment.payload, sum).then(|| self.take_foreseen(now, ack, window, timestamps, brought))
    }

    /// What a segment changes that is as expected, and whose data lies in the ring. Says whether there is more send space.
    #[inline(always)]
    fn take_foreseen(
        &mut self,
        now: Instant,
        ack: SeqNr,
        window: u16,
        timestamps: Option<Timestamps>,
        brought: Brought,
    ) -> bool {
        self.recovery.tally.predicted(ack.since(self.tcb.snd_una), brought.len);
        self.tcb.take_window(self.tcb.rcv_nxt, ack, window);
        self.take_in(now, ack, timestamps, brought)
    }

    /// The same of a segment, or of several taken for one, whose window is known and which were counted.
    #[inline(always)]
    pub(super) fn take_in(
        &mut self,
        now: Instant,
        ack: SeqNr,
        timestamps: Option<Timestamps>,
        Brought { len, largest, is_pushed, acks }: Brought,
    ) -> bool {
        self.tcb.heard(now, self.tcb.rcv_nxt, timestamps);
        let writable = ack != self.tcb.snd_una && self.take_plain_ack(now, ack, timestamps, acks);
        self.tcb.timers.stop(Timer::Reorder);
        if len != 0 {
            self.extend(len);
            self.tcb.ack_data(now, largest, is_pushed, false);
        }
        self.tune(now, timestamps, largest);
        writable
    }

    /// It acknowledges new data, nothing is lost, and the peer has reported nothing. Says whether there is more send space.
    #[inline(never)]
    fn take_plain_ack(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>, acks: u32) -> bool {
        let Recovery { sent, rack, rate, .. } = &mut *self.recovery;
        let Some(piece) = sent.plain_piece(ack).filter(|_| self.tcb.cc.algorithm() == Algorithm::Cubic) else {
            return self.take_longer_ack(now, ack, timestamps, acks);
        };
        let len = ack.since(piece.start);
        let rtt = hear_run(self.tcb, rack, rate, now, (len, ack), piece);
        self.tcb.time(now, (len, ack), timestamps, rtt);
        sent.drop_oldest(len);
        self.follow_ack::<true>(now, ack, acks)
    }

    /// The same where it is not just the oldest piece, or congestion control another than the default.
    #[inline(never)]
    fn take_longer_ack(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>, acks: u32) -> bool {
        if self.tcb.cc.goes_by_rate() {
            return self.take_ack_in_pieces(now, ack, timestamps, acks);
        }
        let Recovery { sent, rack, rate, .. } = &mut *self.recovery;
        let Some(Run { len, first_end, last }) = sent.take_run(ack) else {
            return self.take_ack_in_pieces(now, ack, timestamps, acks);
        };
        let rtt = hear_run(self.tcb, rack, rate, now, (len, first_end), &last);
        self.tcb.time(now, (len, ack), timestamps, rtt);
        self.follow_ack::<false>(now, ack, acks)
    }

    /// The same where pieces have fared differently, or congestion control wants to know all of them.
    #[inline(never)]
    fn take_ack_in_pieces(&mut self, now: Instant, ack: SeqNr, timestamps: Option<Timestamps>, acks: u32) -> bool {
        let acked = ack.since(self.tcb.snd_una);
        // Nothing is lost or known to have arrived: all of it is in the network.
        let before = (self.recovery.sent.span(), self.recovery.rate.lost());
        let echo = self.tcb.echo_of(timestamps);
        let delivery = self.recovery.hear_pieces(now, ack, echo);
        let rtt = delivery.rtt(now);
        if let Some(rtt) = rtt {
            self.recovery.rack.measured(now, rtt);
        }
        self.recovery.rate.on_delivery(now, &delivery);
        self.tcb.time(now, (acked, ack), timestamps, rtt);
        let writable = self.follow_ack::<false>(now, ack, acks);
        self.note_delivery(now, &delivery);
        self.report_rate(now, acked, before, &delivery);
        writable
    }

    /// What follows from such an acknowledgement of what was in flight; `CUBIC`: it is known that congestion control is the default one.
    /// It came in so many segments.
    #[inline(always)]
    fn follow_ack<const CUBIC: bool>(&mut self, now: Instant, ack: SeqNr, acks: u32) -> bool {
        let acked = ack.since(self.tcb.snd_una);
        let writable = self.advance(ack);
        let tcb = &mut *self.tcb;
        let rto = tcb.rtt.rto();
        if !tcb.ecn.is_reduced() {
            let told = Ack { acks, ..tcb.told(now, acked, self.recovery.sent.reached()) };
            let departures = self.recovery.sent.departures();
            if CUBIC {
                tcb.cc.on_cubic_ack(&told, rto, departures);
            } else {
                tcb.cc.on_ack(&told, rto, departures);
            }
        }
        let loss = &mut self.recovery.loss;
        loss.dup_acks = 0;
        loss.recover = loss.recover.later(ack.minus(1));
        self.tcb.rearm_calmly(now, rto);
        debug_assert!(
            self.recovery.sent.is_sound(self.tcb.snd_una, self.tcb.snd_nxt),
            "{:?} is not what is in flight",
            self.recovery
        );
        writable
    }
}

/// All that was acknowledged was sent once, piece by piece: so many bytes, not 0, whose first piece ends there, and the last of which is this.
/// Returns its round trip, ns.
#[inline(always)]
fn hear_run(
    tcb: &mut Tcb,
    rack: &mut Rack,
    rate: &mut Rate,
    now: Instant,
    (len, first_end): (u32, SeqNr),
    last: &Record,
) -> Option<u64> {
    rack.arrived_in_order(now, first_end, last);
    let sent_at = last.stamp.sent_at;
    let rtt = sent_at.is_set().then(|| now.nanos_since(sent_at));
    if let Some(rtt) = rtt {
        rack.measured(now, rtt);
    }
    rate.on_delivered(now, len, sent_at);
    tcb.note_rate(&rate.measured_by(now, &last.stamp, rack.min_rtt()));
    rtt
}

impl Tcb {
    /// Is it the next segment of an open connection, with nothing in its header but what the connection's segments always have? Without
    /// SACK, acknowledgements have to be counted. `troubles` is 0 if there are none. Few branches: nearly always all of it is so, and one word says
    /// it.
    #[inline(always)]
    fn predicts(&self, segment: &Segment<'_>, troubles: u32) -> bool {
        const SIGN: u32 = 1 << 31;
        let flags = u32::from(segment.flags.0 & !Flags::PSH.0 ^ Flags::ACK.0);
        let bits = self.bits & (UNUSUAL | flag::SACK) ^ flag::SACK;
        let unlike = troubles | flags | bits | self.ooo.count() | (segment.seq.0 ^ self.rcv_nxt.0);
        // Each after, or at, the other.
        let order = [
            (self.rcv_nxt, self.rcv_wup),
            (self.rcv_adv, self.rcv_nxt),
            (segment.ack, self.snd_una),
            (self.snd_nxt, segment.ack),
        ];
        let steps = order.iter().fold(0, |all, (later, earlier)| all | later.since(*earlier));
        let has_window = segment.window != 0 && self.snd_wnd != 0;
        (unlike | steps & SIGN) == 0 && has_window && segment.sack.is_empty() && self.is_fresh(segment)
    }

    /// Does its timestamp follow the newest one, if it has one?
    #[inline]
    fn is_fresh(&self, segment: &Segment<'_>) -> bool {
        let Some(ts) = segment.timestamps.filter(|_| self.has(flag::TIMESTAMPS)) else { return true };
        self.has(flag::TS_RECENT) && (ts.val.wrapping_sub(self.ts_recent) as i32) >= 0
    }
}

#[cfg(test)]
pub(super) mod tests;
