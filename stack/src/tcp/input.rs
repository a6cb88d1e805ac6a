//! What does a segment mean? (RFC 9293, section 3.10.7.4, as hardened by RFC 5961)

use super::connection::Connection;
use super::image::flag;
use super::outcome::Outcome;
use super::predict::Prediction;
use super::segment::{Flags, Segment, Timestamps};
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;
use crate::stats::Counter;

/// The segment goes no further.
pub(crate) struct Stop;

impl Connection<'_> {
    /// A segment arrived for this connection. Answers come out of [`Connection::poll_transmit`].
    pub fn on_segment(&mut self, now: Instant, segment: &Segment<'_>) -> Outcome {
        match self.predict(now, segment, || None) {
            Prediction::Met { writable } => {
                Outcome { readable: !segment.payload.is_empty(), writable, ..Outcome::default() }
            }
            _ => self.take_unforeseen(now, segment),
        }
    }

    /// The same for a segment that was not foreseen; right for any.
    #[inline(never)]
    pub(crate) fn take_unforeseen(&mut self, now: Instant, segment: &Segment<'_>) -> Outcome {
        let mut out = Outcome::default();
        let (una, nxt) = (self.tcb.snd_una, self.tcb.rcv_nxt);
        self.recovery.tally.take_in(segment);
        self.examine(now, segment, &mut out);
        self.recovery.tally.progress(self.tcb.snd_una.ahead_of(una), self.tcb.rcv_nxt.ahead_of(nxt));
        out
    }

    /// What [`Connection::on_segment`] does with a segment that was not foreseen; right for any.
    pub(crate) fn examine(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) {
        // A step that stops has said why in `out`.
        let _ = self.steps(now, segment, out);
    }

    /// The steps of the RFC, in its order, after the timestamp check (RFC 7323, section 5.3). There is no third, which is
    /// about security compartments; the sixth comes early because urgent data must find the connection untouched.
    fn steps(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) -> Result<(), Stop> {
        if self.tcb.is_closed() {
            return Err(Stop);
        }
        self.tcb.check_paws(now, segment, out)?;
        self.check_sequence(now, segment, out)?; // first
        self.check_reset(now, segment, out)?; // second
        self.check_syn(now, segment)?; // fourth
        self.check_urgent(segment, out)?; // sixth
        self.check_ack(now, segment)?; // fifth
        self.tcb.heard(now, segment.seq, segment.timestamps);
        self.take_ack(now, segment, out);
        self.tcb.take_probe(self.recovery.loss.timeouts.into(), out);
        self.take_data(now, segment, out); // seventh
        self.take_fin(now, segment, out); // eighth
        self.tune(now, segment.timestamps, segment.payload.len() as u32);
        self.settle(now, out);
        Ok(())
    }

    /// First step: is the segment in the window? Like Linux, back to our last acknowledgement, so that acknowledgements
    /// which were overtaken by data still count.
    fn check_sequence(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) -> Result<(), Stop> {
        let tcb = &mut *self.tcb;
        if segment.end().ge(tcb.rcv_wup) && segment.seq.le(tcb.rcv_adv) {
            return Ok(());
        }
        let is_reset = segment.flags.has(Flags::RST);
        let is_duplicate = segment.end().lt(tcb.rcv_wup) && !segment.payload.is_empty();
        out.count(if is_duplicate { Counter::RxDuplicate } else { Counter::RxOutOfWindow });
        if is_duplicate {
            tcb.note_duplicate(segment.seq, segment.end());
        }
        if !is_reset {
            tcb.answer_stray(now, segment);
        }
        Err(Stop)
    }

    /// Second step: a reset counts at exactly `rcv_nxt`; elsewhere in the window it is answered (RFC 5961, section 3.2).
    fn check_reset(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) -> Result<(), Stop> {
        if !segment.flags.has(Flags::RST) {
            return Ok(());
        }
        if segment.seq == self.tcb.rcv_nxt {
            self.tcb.set(flag::RESET_RECEIVED);
            self.tcb.timers = Default::default();
            out.reset = true;
            out.count(Counter::ResetsReceived);
        } else if segment.seq.gt(self.tcb.rcv_nxt) {
            self.tcb.challenge(now);
        }
        Err(Stop)
    }

    /// Fourth step: no SYN belongs into a synchronised connection (RFC 5961, section 4.2).
    fn check_syn(&mut self, now: Instant, segment: &Segment<'_>) -> Result<(), Stop> {
        if segment.flags.has(Flags::SYN) {
            self.tcb.challenge(now);
            return Err(Stop);
        }
        Ok(())
    }

    /// Sixth step: urgent data is the kernel's.
    fn check_urgent(&mut self, segment: &Segment<'_>, out: &mut Outcome) -> Result<(), Stop> {
        if segment.flags.has(Flags::URG) {
            out.urgent = true;
            out.count(Counter::RxUrgent);
            return Err(Stop);
        }
        Ok(())
    }
}

impl Tcb {
    /// An acceptable segment came: the peer is alive.
    #[inline(always)]
    pub(crate) fn heard(&mut self, now: Instant, seq: SeqNr, timestamps: Option<Timestamps>) {
        self.heard_at = now;
        self.probes = 0;
        self.take_timestamp(now, seq, timestamps);
    }
}
