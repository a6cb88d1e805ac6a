//! Was the end of a flight lost? (RFC 8985, section 7: tail loss probes)

use super::connection::Connection;
use super::heard::Heard;
use super::image::flag;
use super::loss::Phase;
use super::segment::SegmentOut;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;

const MS: u64 = 1_000_000;
/// Added to the probe timeout: for the peer's processing; and for its delayed acknowledgement if one segment is out.
const PROBE_SLACK: u64 = 2 * MS;
const PROBE_SLACK_SINGLE: u64 = 45 * MS;

/// A probe that went out; the RFC's names in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// `snd_nxt` then [end_seq].
    end: SeqNr,
    /// Bytes that were sent again [is_retrans]; 0: it was new data.
    resent: u32,
}

impl Tail {
    /// What was sent again.
    pub fn resent(&self) -> Option<(SeqNr, SeqNr)> {
        (self.resent != 0).then(|| (self.end.minus(self.resent), self.end))
    }
}

impl Connection<'_> {
    /// Plans a probe, which finds a lost end of a flight long before a timeout does (section 7.2).
    #[inline(always)]
    pub(crate) fn plan_tail_probe(&mut self, now: Instant) {
        if self.recovery.loss.phase == Phase::Open && self.recovery.sent.sacked() == 0 {
            self.plan_calm_tail_probe(now);
        }
    }

    /// The same where nothing is lost, and nothing delivered beyond a gap.
    #[inline(always)]
    pub(crate) fn plan_calm_tail_probe(&mut self, now: Instant) {
        let (tcb, recovery) = (&mut *self.tcb, &*self.recovery);
        let is_out = recovery.tail().is_some_and(|tail| tail.end.gt(tcb.snd_una));
        // After an import, a series of timeouts may go on in the phase Open.
        let is_silent = recovery.loss.timeouts != 0;
        if is_out || is_silent || !tcb.has(flag::SACK) {
            return;
        }
        let Some(srtt) = tcb.rtt.smoothed() else { return };
        let at = tcb.tail_probe_at(now, srtt);
        if tcb.timers.is_set_after(Timer::Retransmit, at) {
            tcb.timers.set(Timer::LossProbe, at);
        } else {
            tcb.timers.stop(Timer::LossProbe);
        }
    }

    /// The probe that is due (section 7.3): new data if there is some, else the last segment again.
    pub(crate) fn tail_probe(&mut self, now: Instant) -> Option<SegmentOut> {
        if !self.tcb.has(bit::LOSS_PROBE) {
            return None;
        }
        self.tcb.clear(bit::LOSS_PROBE);
        let flight = self.tcb.flight();
        if flight == 0 {
            return None;
        }
        self.tcb.timers.set(Timer::Retransmit, self.timeout_at(now));
        // Told before it goes out, so that sending it plans no other.
        self.recovery.rare().tail = Some(Tail { end: self.tcb.snd_nxt.plus(1), resent: 0 });
        let (probe, resent) = match self.new_data(now, true) {
            Some(new) => (new, 0),
            None => {
                let blocks = self.tcb.sack_blocks();
                let end = self.tcb.snd_nxt;
                let len = flight.min(self.tcb.room_for_data(&blocks));
                (self.send_again(now, end.minus(len), end, blocks), len)
            }
        };
        self.recovery.rare().tail = Some(Tail { end: self.tcb.snd_nxt, resent });
        Some(probe)
    }

    /// Does an acknowledgement answer the probe (section 7.4.2)? If the probe was needed, that was a loss, and the window has to pay. True if it
    /// reports the probe as a duplicate.
    pub(crate) fn answer_tail(&mut self, heard: &Heard) -> bool {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        let Some(tail) = recovery.tail().filter(|tail| tcb.snd_una.ge(tail.end)) else { return false };
        let is_reported = tail.resent != 0 && heard.duplicate.is_some_and(|(_, end)| end == tail.end);
        let arrived_twice = is_reported || heard.is_bare_repeat;
        let repaired = tail.resent != 0 && !arrived_twice && tcb.snd_una.gt(tail.end);
        if tail.resent == 0 || arrived_twice || repaired {
            recovery.forget_tail();
        }
        if repaired {
            recovery.end_undo();
            tcb.reduce_for_loss();
        }
        is_reported
    }
}

impl Tcb {
    /// When to probe what is in flight; `srtt` is the smoothed round-trip time, ns.
    #[inline(always)]
    pub(crate) fn tail_probe_at(&self, now: Instant, srtt: u64) -> Instant {
        let slack = if self.flight() <= self.mss { PROBE_SLACK_SINGLE } else { PROBE_SLACK };
        now.after(2 * srtt + slack)
    }
}
