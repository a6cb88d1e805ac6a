//! What does an acknowledgement mean for recovery? (RFC 8985; RFC 6582 where the peer sends no SACK; RFC 5681, section 3.2)
//!
//! Losses are marked in the records ([`super::sent`]): by [`super::rack`] with SACK, by counting duplicates without. What may go out is
//! [`super::prr`]'s to say, whether it all was a mistake, [`super::undo`]'s.

use super::connection::Connection;
use super::heard::Heard;
use super::image::flag;
use super::outcome::Outcome;
use super::prr::Prr;
use super::recovery::Recovery;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use super::undo::Frto;
use crate::stats::Counter;

/// Duplicate acknowledgements that mean loss (RFC 5681, section 3.2).
pub(super) const DUP_THRESH: u32 = 3;

/// Where loss recovery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// What recovery remembers beside the records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    pub phase: Phase,
    /// Recovery ends when everything before this is acknowledged.
    pub recover: SeqNr,
    /// Duplicate acknowledgements in a row where there is no SACK; each stands for a segment that has left the network.
    pub dup_acks: u32,
    /// Retransmission timeouts since the peer last acknowledged something new.
    pub timeouts: u8,
    /// The timeout's back-off was taken over with what is in flight. Of that nothing can be measured without timestamps, so that waiting for a
    /// measurement (Karn's algorithm) might never end where the connection moves often: the next ACK of something new ends it.
    pub inherited: bool,
    /// Timeouts since the peer was last heard of, if only to say that its window is closed.
    pub silent: u8,
    /// The oldest segment goes out again without regard to the window (RFC 6675, section 5, 4.3; RFC 6582, section 3.2, step 3).
    pub urgent: bool,
}

impl Loss {
    /// Nothing is known to be lost, `una` is the oldest unacknowledged number; it was waited for in vain so many times.
    pub fn new(una: SeqNr, timeouts: u8) -> Self {
        Self { recover: una.minus(1), timeouts, inherited: timeouts != 0, ..Self::default() }
    }

    /// Goes on with a recovery that another began.
    pub fn resume(self, phase: Phase, recover: SeqNr, urgent: bool) -> Self {
        Self { phase, recover, urgent, ..self }
    }
}

impl Recovery {
    /// Bytes in the network.
    pub(crate) fn pipe(&self, tcb: &Tcb) -> u32 {
        let by_count = self.loss.dup_acks != 0 && !tcb.has(flag::SACK);
        let left = if by_count { self.loss.dup_acks.saturating_mul(tcb.mss) } else { 0 };
        self.sent.in_flight().saturating_sub(left)
    }

    /// May `len` more bytes go into the network? A single segment may in any case.
    pub(crate) fn allows(&self, tcb: &Tcb, len: u32) -> bool {
        let pipe = self.pipe(tcb);
        let by_prr = self.loss.phase == Phase::Recovery && tcb.cc.recovers_by_prr();
        let fits = if by_prr {
            self.rare.as_deref().is_some_and(|rare| rare.prr.allows(len))
        } else {
            pipe.saturating_add(len) <= tcb.cc.cwnd()
        };
        pipe == 0 || fits
    }

    /// A timeout: everything counts as lost but what was sent so recently that its acknowledgement may still come (RFC 8985,
    /// section 6.3).
    pub(crate) fn begin_loss(&mut self, tcb: &mut Tcb, now: Instant) {
        let first = self.loss.timeouts == 0;
        let fresh = self.loss.phase != Phase::Recovery;
        if fresh && (first || self.loss.phase == Phase::Open) {
            self.begin_undo(tcb.snd_una, tcb.cc.save());
        }
        // Once in a window of data, as Linux (tcp_enter_loss): what fast recovery or a mark has reduced stays.
        let reduced = match self.loss.phase {
            Phase::Recovery => true,
            Phase::Open => tcb.ecn.covers_losses(tcb.snd_una),
            Phase::Loss => false,
        };
        tcb.cc.on_timeout(tcb.mss, first && !reduced);
        tcb.window_reduced();
        // A peer that has what it does not acknowledge has dropped it (RFC 2018, section 8).
        if self.sent.records().next().is_some_and(|record| record.sacked) {
            self.sent.forget_sacked();
        }
        let Self { sent, rack, rate, .. } = self;
        let mut lost = sent.lose_range(tcb.snd_una, tcb.snd_una.plus(tcb.mss).earlier(tcb.snd_nxt));
        lost += sent.lose(|record| Some(!tcb.has(flag::SACK) || rack.due(record, 0) <= now));
        rate.on_lost(lost);
        self.frto = if fresh { Frto::Resent } else { Frto::Off };
        self.forget_tail();
        let (timeouts, silent) = (self.loss.timeouts.saturating_add(1), self.loss.silent.saturating_add(1));
        let (recover, inherited) = (tcb.snd_nxt, self.loss.inherited);
        self.loss = Loss { phase: Phase::Loss, recover, timeouts, inherited, silent, urgent: true, ..Loss::default() };
    }

    /// What was lost was too large for the path, which says nothing of congestion: what is lost goes again, as the window allows.
    /// Only this recovery is no reason to take anything back.
    pub(crate) fn repair(&mut self, tcb: &mut Tcb) {
        self.end_undo();
        self.frto = Frto::Off;
        self.forget_tail();
        if tcb.cc.goes_by_rate() {
            // Remembers the window, which comes back in the end.
            tcb.cc.on_loss(tcb.mss);
        }
        self.loss = Loss { phase: Phase::Loss, recover: tcb.snd_nxt, dup_acks: 0, urgent: true, ..self.loss };
        tcb.timers.stop(Timer::LossProbe);
        tcb.clear(bit::LOSS_PROBE);
    }

    /// Declares `[start, end)` lost.
    fn lose(&mut self, start: SeqNr, end: SeqNr) {
        let lost = self.sent.lose_range(start, end);
        self.rate.on_lost(lost);
    }
}

impl Connection<'_> {
    /// What an acknowledgement says about losses; `acked` new bytes have been taken off already.
    pub(crate) fn judge(&mut self, now: Instant, heard: &Heard, out: &mut Outcome) {
        let probed = self.answer_tail(heard);
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        if let Some((start, end)) = heard.duplicate {
            recovery.rare().undo.on_duplicate(start, end);
            // A probe goes by a timer, which says nothing of order.
            if !probed {
                recovery.rack.duplicate(tcb.snd_una, tcb.snd_nxt);
            }
            let segments = end.ahead_of(start).div_ceil(tcb.mss.max(1));
            let seldom = recovery.seldom();
            seldom.dsack_dups = seldom.dsack_dups.wrapping_add(segments);
        }
        match recovery.loss.phase {
            Phase::Open => self.in_open(heard),
            Phase::Recovery => self.in_recovery(heard),
            Phase::Loss => self.in_loss(now, heard),
        }
        if let Some(rare) = self.recovery.rare.as_deref_mut().filter(|_| self.recovery.loss.phase != Phase::Loss) {
            rare.seldom.end_timeout(now);
        }
        self.detect(now, heard.delivery.bytes, out);
        self.share_out(heard);
    }

    /// The acknowledgement is one for fast recovery to answer: how much may go out?
    fn share_out(&mut self, heard: &Heard) {
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        if recovery.loss.phase != Phase::Recovery {
            return;
        }
        let prr = &mut recovery.rare().prr;
        let delivered = if tcb.has(flag::SACK) {
            heard.delivery.bytes
        } else if heard.repeats {
            prr.guess(tcb.mss)
        } else {
            prr.learn(heard.delivery.bytes)
        };
        let safe = heard.acked > 0 && recovery.rate.lost() == heard.lost_before;
        let pipe = recovery.pipe(tcb);
        recovery.rare().prr.on_ack(delivered, pipe, tcb.cc.ssthresh(), tcb.mss, safe);
    }

    fn in_open(&mut self, heard: &Heard) {
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        if heard.acked > 0 {
            recovery.loss.dup_acks = 0;
            // Stays close behind, so that it never looks like a number ahead.
            recovery.loss.recover = recovery.loss.recover.later(tcb.snd_una.minus(1));
        } else if heard.repeats {
            recovery.loss.dup_acks = recovery.loss.dup_acks.saturating_add(1);
        }
        if heard.duplicate.is_some() && recovery.undo().all_were_duplicates() {
            self.undo();
        }
    }

    fn in_recovery(&mut self, heard: &Heard) {
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        let una = tcb.snd_una;
        let late_original = heard.acked > 0 && recovery.undo().is_late_original(heard.echo);
        // The gap was filled before anything went out again, as where both acknowledgements arrived together.
        let needless = heard.acked > 0 && recovery.sent.lost() == 0 && recovery.undo().nothing_was_resent();
        if una.ge(recovery.loss.recover) {
            let undo = late_original || needless || recovery.undo().all_were_duplicates();
            return self.leave(undo);
        }
        if needless {
            recovery.rack.reordered();
            return self.leave(true);
        }
        if late_original {
            recovery.rack.reordered();
            let seldom = recovery.seldom();
            seldom.reordered = seldom.reordered.wrapping_add(1);
            // As long as something that was sent again is out, that may have been lost (Linux: tcp_try_undo_partial).
            if !recovery.sent.records().any(|record| record.resent && !record.sacked) {
                return self.leave(true);
            }
        }
        if heard.duplicate.is_some() && recovery.undo().all_were_duplicates() {
            return self.leave(true);
        }
        if !tcb.has(flag::SACK) {
            self.count_duplicates(heard);
        }
    }

    /// In fast recovery without SACK (RFC 6582, section 3.2, step 3).
    fn count_duplicates(&mut self, heard: &Heard) {
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        let loss = &mut recovery.loss;
        if heard.repeats {
            loss.dup_acks = loss.dup_acks.saturating_add(1);
        } else if heard.acked > 0 {
            let segments = heard.acked / tcb.mss.max(1);
            loss.dup_acks = loss.dup_acks.saturating_sub(segments.saturating_sub(1));
            loss.urgent = true;
            recovery.lose(tcb.snd_una, tcb.snd_una.plus(tcb.mss).earlier(tcb.snd_nxt));
        }
    }

    /// After a timeout (RFC 5682, section 3.1, as Linux does it with and without SACK).
    fn in_loss(&mut self, now: Instant, heard: &Heard) {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        let (una, nxt) = (tcb.snd_una, tcb.snd_nxt);
        if heard.acked > 0 {
            recovery.loss.dup_acks = 0;
        }
        let late_original = heard.acked > 0 && recovery.undo().is_late_original(heard.echo);
        if late_original {
            tcb.acquit_path(now);
        }
        // Step 3b: something of before the timeout has arrived that was not sent again.
        let spurious = recovery.frto != Frto::Off && heard.original;
        if late_original || spurious || recovery.undo().all_were_duplicates() {
            return self.leave(true);
        }
        if recovery.frto != Frto::Off {
            let arrived = heard.repeats || heard.delivery.sacked > 0;
            let recovered = una.ge(recovery.loss.recover);
            if nxt.gt(recovery.loss.recover) {
                if arrived {
                    recovery.frto = Frto::Off; // step 3a
                }
            } else if heard.acked > 0 && !recovered {
                let has_more = tcb.snd_end.gt(nxt) && tcb.snd_edge().gt(nxt);
                recovery.frto = if has_more { Frto::New } else { Frto::Off }; // step 2b
            }
        }
        if heard.repeats && nxt.gt(recovery.loss.recover) {
            // New data has arrived beyond what is missing, and makes room for that.
            recovery.loss.dup_acks = recovery.loss.dup_acks.saturating_add(1);
        }
        if una.ge(recovery.loss.recover) {
            self.leave(false);
        }
    }

    /// Marks what is lost, and enters recovery if something is. `delivered` is what was delivered just now.
    fn detect(&mut self, now: Instant, delivered: u32, out: &mut Outcome) {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        if !tcb.has(flag::SACK) {
            // Duplicates of our own retransmissions look the same (RFC 6582, section 3.2, step 2).
            let above = tcb.snd_una.gt(recovery.loss.recover) && tcb.flight() != 0;
            if recovery.loss.phase == Phase::Open && recovery.loss.dup_acks >= DUP_THRESH && above {
                recovery.lose(tcb.snd_una, tcb.snd_una.plus(tcb.mss).earlier(tcb.snd_nxt));
                self.enter_recovery(0, out);
            }
            return;
        }
        if recovery.loss.phase == Phase::Open && recovery.sent.sacked() == 0 && recovery.sent.lost() == 0 {
            return tcb.timers.stop(Timer::Reorder);
        }
        // Gaps are known: no probe has to find one (RFC 8985, section 7.2).
        tcb.timers.stop(Timer::LossProbe);
        tcb.clear(bit::LOSS_PROBE);
        let much = recovery.sent.sacked() > (DUP_THRESH - 1) * tcb.mss;
        let window = recovery.rack.window(recovery.loss.phase != Phase::Open || much, tcb.rtt.smoothed());
        let found = recovery.rack.detect(now, &mut recovery.sent, window);
        recovery.rate.on_lost(found.lost);
        match found.look_at {
            Some(at) => tcb.timers.set(Timer::Reorder, at),
            None => tcb.timers.stop(Timer::Reorder),
        }
        if recovery.loss.phase == Phase::Open && recovery.sent.lost() != 0 {
            self.enter_recovery(delivered, out);
        }
    }

    /// The reordering timer ran out (RFC 8985, section 6.3): what it waited for is lost.
    pub(crate) fn on_reorder(&mut self, now: Instant, out: &mut Outcome) {
        let before = self.recovery.rate.lost();
        self.detect(now, 0, out);
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        if recovery.rate.lost() != before && recovery.loss.phase == Phase::Recovery {
            let pipe = recovery.pipe(tcb);
            recovery.rare().prr.on_ack(tcb.mss, pipe, tcb.cc.ssthresh(), tcb.mss, false);
        }
        self.report_loss(now, before);
    }

    /// Loss was seen: reduce the window and send again what is missing.
    fn enter_recovery(&mut self, delivered: u32, out: &mut Outcome) {
        out.count(Counter::FastRetransmits);
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        if tcb.lost_probe(recovery.sent.lost(), out) {
            if !tcb.has(flag::SACK) {
                // Three duplicates stand for a segment; this one was longer.
                recovery.lose(tcb.snd_una, tcb.probe_end());
            }
            return recovery.repair(tcb);
        }
        recovery.begin_undo(tcb.snd_una, tcb.cc.save());
        tcb.reduce_for_loss();
        let unheard = recovery.sent.span().saturating_sub(recovery.sent.sacked());
        recovery.rare().prr = Prr::new(unheard.saturating_add(delivered));
        recovery.loss = Loss { phase: Phase::Recovery, recover: tcb.snd_nxt, urgent: true, ..recovery.loss };
        recovery.forget_tail();
        tcb.timers.stop(Timer::LossProbe);
        tcb.clear(bit::LOSS_PROBE);
    }

    /// Recovery is over; `mistaken` if there was no loss.
    fn leave(&mut self, mistaken: bool) {
        let (tcb, recovery) = (&*self.tcb, &mut *self.recovery);
        // Without SACK, duplicates below `recover` must go on being passed over.
        let recover = recovery.loss.recover.earlier(tcb.snd_nxt).later(tcb.snd_una.minus(1));
        let kept = if tcb.has(flag::SACK) { tcb.snd_una.minus(1) } else { recover };
        recovery.loss = Loss { phase: Phase::Open, recover: kept, dup_acks: 0, urgent: false, ..recovery.loss };
        recovery.frto = Frto::Off;
        recovery.rack.recovered();
        if mistaken {
            self.undo();
        }
    }

    /// The window was reduced for nothing: back to what it was (RFC 4015, section 3.2).
    fn undo(&mut self) {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        let reduced = tcb.cc.ssthresh();
        if let Some(rare) = &recovery.rare {
            tcb.cc.undo(&rare.saved);
        }
        if tcb.cc.ssthresh() > reduced {
            tcb.withdraw_reduction();
        }
        tcb.rtt.forget_back_off();
        recovery.sent.forgive();
        recovery.end_undo();
        recovery.loss.timeouts = 0;
        recovery.loss.silent = 0;
    }
}
