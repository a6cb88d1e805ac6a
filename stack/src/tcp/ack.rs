//! What does an acknowledgement tell? (RFC 9293, section 3.10.7.4, fifth; RFC 5681, section 3)

use std::sync::atomic::{Ordering, compiler_fence};

use super::cc::Ack;
use super::connection::Connection;
use super::image::flag;
use super::input::Stop;
use super::loss::{Flight, Phase};
use super::outcome::Outcome;
use super::segment::{Flags, Segment};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use crate::stats::Counter;

impl Tcb {
    /// What loss recovery needs to know.
    pub(crate) fn flight_view(&self) -> Flight {
        Flight { una: self.snd_una, nxt: self.snd_nxt, mss: self.mss, sack: self.has(flag::SACK) }
    }

    /// Bytes in the network.
    pub(crate) fn pipe(&self) -> u32 {
        self.loss.pipe(self.flight_view())
    }
}

impl Connection<'_> {
    /// Fifth step, first half: is the acknowledgement one that an honest peer could send (RFC 5961, section 5.2)?
    pub(crate) fn check_ack(&mut self, now: Instant, segment: &Segment<'_>) -> Result<(), Stop> {
        if !segment.flags.has(Flags::ACK) {
            return Err(Stop);
        }
        let tcb = &mut *self.tcb;
        let too_old = segment.ack.lt(tcb.snd_una.minus(tcb.max_window));
        if too_old || segment.ack.gt(tcb.snd_nxt) {
            tcb.challenge(now);
            return Err(Stop);
        }
        Ok(())
    }

    /// Fifth step, second half: what it acknowledges, and the window it offers.
    pub(crate) fn take_ack(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) {
        let tcb = &mut *self.tcb;
        if segment.ack.lt(tcb.snd_una) {
            return;
        }
        let window_changed = tcb.take_window(segment);
        let news = tcb.take_sack(segment.sack);
        if segment.ack.gt(tcb.snd_una) {
            tcb.advance(now, segment, out);
        } else if tcb.is_duplicate(segment, window_changed, news) {
            let probed = tcb.has(bit::PROBED);
            if tcb.loss.duplicate(tcb.flight_view(), probed) {
                tcb.enter_recovery(out);
            }
        }
    }
}

impl Tcb {
    /// Takes the peer's window from a segment that is newer than the last one that brought it. True if it changed.
    fn take_window(&mut self, segment: &Segment<'_>) -> bool {
        let window = u32::from(segment.window) << self.snd_wscale.min(14);
        let newer = segment.ack.gt(self.snd_una)
            || segment.seq.gt(self.snd_wl1)
            || (segment.seq == self.snd_wl1 && (window > self.snd_wnd || window == 0));
        if !newer {
            return false;
        }
        let changed = window != self.snd_wnd;
        self.max_window = self.max_window.max(window);
        self.snd_wl1 = segment.seq;
        self.snd_wnd = window;
        changed
    }

    /// Takes the blocks of a SACK option. True if they told anything new.
    fn take_sack(&mut self, blocks: &[u8]) -> bool {
        if blocks.is_empty() || !self.has(flag::SACK) {
            return false;
        }
        let before = self.loss.sacked_bytes();
        let view = self.flight_view();
        for block in blocks.chunks_exact(8) {
            let number =
                |at: usize| SeqNr(u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
            self.loss.sack(number(0), number(4), view);
        }
        self.loss.sacked_bytes() != before
    }

    /// Is this a duplicate acknowledgement? With SACK, one that tells of new gaps (RFC 6675, section 2), else one that is
    /// the same in every way (RFC 5681, section 2).
    fn is_duplicate(&self, segment: &Segment<'_>, window_changed: bool, news: bool) -> bool {
        let is_bare = segment.payload.is_empty() && !segment.flags.has(Flags::FIN);
        let repeats = !self.has(flag::SACK) && is_bare && !window_changed;
        self.flight() > 0 && (news || repeats)
    }

    /// New data is acknowledged.
    fn advance(&mut self, now: Instant, segment: &Segment<'_>, out: &mut Outcome) {
        let ack = segment.ack;
        let acked = ack.since(self.snd_una);
        let before = self.pipe();
        let data_before = self.snd_una;
        compiler_fence(Ordering::Release);
        self.snd_una = ack;
        out.writable = data_before.lt(ack.earlier(self.snd_end));
        let timed = self.rtt.acked(ack, now);
        if !timed && !self.rtt.is_timing() {
            self.sample_echo(now, segment);
        }
        let phase = self.loss.phase();
        let probed = self.has(bit::PROBED);
        let view = self.flight_view();
        self.loss.progress(view, acked);
        let (srtt, una, nxt) = (self.rtt.smoothed(), self.snd_una, self.snd_nxt);
        let told = Ack { now, acked, flight: before, mss: self.mss, srtt, una, nxt };
        match phase {
            Phase::Open => self.cc.on_ack(told),
            // Much of what is acknowledged now left the network long ago (RFC 3465, section 2.3).
            Phase::Loss => self.cc.on_ack(Ack { acked: acked.min(self.mss), flight: self.cc.cwnd(), ..told }),
            Phase::Recovery => (),
        }
        if phase == Phase::Open && self.loss.has_sacked() && self.loss.open_to_recovery(view, probed) {
            self.enter_recovery(out);
        }
        self.clear(bit::PROBED);
        self.keep_marks_close();
        self.rearm(now);
    }

    /// Marks that lie behind must not fall so far behind that they look like being ahead.
    fn keep_marks_close(&mut self) {
        self.snd_sml = self.snd_sml.later(self.snd_una);
        self.push_end = self.push_end.later(self.snd_una);
    }

    /// Loss was seen: reduce the window and send again what is missing.
    fn enter_recovery(&mut self, out: &mut Outcome) {
        out.count(Counter::FastRetransmits);
        if !self.lost_probe(out) {
            self.cc.on_loss(self.flight(), self.mss);
        }
        self.rtt.cancel();
        self.timers.stop(Timer::LossProbe);
        self.clear(bit::PROBED | bit::LOSS_PROBE);
    }
}
