//! What does an acknowledgement tell? (RFC 9293, section 3.10.7.4, fifth; RFC 5681, section 3)

use std::sync::atomic::{Ordering, compiler_fence};

use super::cc::{Ack, Told};
use super::connection::Connection;
use super::input::Stop;
use super::loss::Phase;
use super::outcome::Outcome;
use super::rate::Delivery;
use super::segment::{Flags, Segment, Timestamps};
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;

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
        if segment.ack.lt(self.tcb.snd_una) {
            return;
        }
        let window_changed = self.tcb.take_window(segment.seq, segment.ack, segment.window);
        self.take_feedback(segment);
        let heard = self.recovery.hear(now, self.tcb, segment, window_changed);
        self.note_marked(segment, heard.delivery.bytes);
        if heard.acked > 0 {
            out.writable = self.advance(segment.ack);
        } else if self.tcb.snd_wnd == 0 && self.tcb.flight() > 0 {
            // It shrank its window, and says so whatever it is sent (RFC 9293, section 3.8.6): it is there.
            self.recovery.loss.silent = 0;
            self.tcb.answered_by_window();
        }
        self.tcb.time(now, (heard.acked, self.tcb.snd_una), segment.timestamps, heard.delivery.rtt(now));
        self.grow(now, heard.acked, self.tcb.rtt.rto());
        self.judge(now, &heard, out);
        if heard.acked > 0 {
            self.rearm(now, self.tcb.rtt.rto());
        }
        self.report(now, heard.acked, (heard.pipe_before, heard.lost_before), &heard.delivery);
    }

    /// New data is acknowledged. Says whether there is more send space.
    #[inline]
    pub(crate) fn advance(&mut self, ack: SeqNr) -> bool {
        let tcb = &mut *self.tcb;
        let before = tcb.snd_una;
        compiler_fence(Ordering::Release);
        tcb.snd_una = ack;
        tcb.end_reduction(ack);
        tcb.keep_marks_close();
        if std::mem::take(&mut self.recovery.loss.inherited) {
            tcb.rtt.forget_back_off();
        }
        self.recovery.loss.timeouts = 0;
        self.recovery.loss.silent = 0;
        before.lt(ack.earlier(tcb.snd_end))
    }

    /// Lets the congestion window grow: `acked` new bytes; `rto` is the retransmission timeout, ns.
    #[inline(always)]
    pub(crate) fn grow(&mut self, now: Instant, acked: u32, rto: u64) {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        let phase = recovery.loss.phase;
        if acked == 0 || phase == Phase::Recovery {
            return;
        }
        match phase {
            // Much of what is acknowledged now left the network long ago (RFC 3465, section 2.3).
            Phase::Loss => {
                let told = tcb.told(now, acked.min(tcb.mss), tcb.cc.cwnd());
                tcb.cc.on_ack(&told, rto, recovery.sent.departures());
            }
            // A mark has reduced the window, and the losses of before say no more.
            _ if tcb.ecn.is_reduced() => (),
            _ => {
                let told = tcb.told(now, acked, recovery.sent.reached());
                tcb.cc.on_ack(&told, rto, recovery.sent.departures());
            }
        }
    }

    /// Tells congestion control what an acknowledgement says of the path; `before` are the bytes in the network, and those found lost,
    /// until it came.
    fn report(&mut self, now: Instant, acked: u32, before: (u32, u32), delivery: &Delivery) {
        if delivery.bytes == 0 && self.recovery.rate.lost() == before.1 {
            return;
        }
        self.note_delivery(now, delivery);
        self.report_rate(now, acked, before, delivery);
    }

    /// Remembers at what rate the peer received what an acknowledgement says was delivered.
    #[inline(always)]
    pub(crate) fn note_delivery(&mut self, now: Instant, delivery: &Delivery) {
        if delivery.bytes != 0 {
            let measured = self.recovery.rate.measured(now, delivery, self.recovery.rack.min_rtt());
            self.tcb.note_rate(&measured);
        }
        debug_assert!(
            self.recovery.sent.is_sound(self.tcb.snd_una, self.tcb.snd_nxt),
            "{:?} is not what is in flight",
            self.recovery
        );
    }

    /// Tells algorithms that go by rates.
    pub(crate) fn report_rate(&mut self, now: Instant, acked: u32, before: (u32, u32), delivery: &Delivery) {
        if !self.tcb.cc.goes_by_rate() {
            return;
        }
        let in_flight = (before.0, self.recovery.pipe(self.tcb));
        let recovery = &*self.recovery;
        let sample = recovery.rate.sample(now, delivery, before.1, in_flight, recovery.rack.min_rtt());
        let ack = self.tcb.told(now, acked, before.0);
        self.tell(&Told { ack, rate: sample });
    }

    /// Tells congestion control of losses that no acknowledgement showed; `before` is what had been lost until then.
    pub(crate) fn report_loss(&mut self, now: Instant, before: u32) {
        let rate = &self.recovery.rate;
        if rate.lost() != before {
            let pipe = self.recovery.pipe(self.tcb);
            let sample = rate.sample(now, &Delivery::default(), before, (pipe, pipe), None);
            let ack = self.tcb.told(now, 0, pipe);
            self.tell(&Told { ack, rate: sample });
        }
    }

    /// Lets congestion control decide by what was delivered or lost.
    fn tell(&mut self, told: &Told) {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        tcb.cc.on_delivery(told, recovery.loss.phase);
        if tcb.cc.goes_by_rate() {
            tcb.take_pacing_rate();
            if tcb.cc.is_probing_rtt() {
                recovery.rate.on_nothing_to_send(told.rate.in_flight);
            }
        }
    }
}

impl Tcb {
    /// Measures a round trip, at most one in the time of one, when so many bytes before `una` were acknowledged; `rtt` is that of what was
    /// delivered, ns, if it says one.
    #[inline(always)]
    pub(crate) fn time(
        &mut self,
        now: Instant,
        (acked, una): (u32, SeqNr),
        echo: Option<Timestamps>,
        rtt: Option<u64>,
    ) {
        if !self.rtt.is_due(una, now) {
            return;
        }
        let known = match rtt {
            Some(rtt) => {
                self.rtt.sample(rtt);
                true
            }
            None => acked > 0 && self.sample_echo(now, echo),
        };
        if known {
            self.rtt.next_after(self.snd_nxt, now);
        }
    }

    #[inline(always)]
    pub(crate) fn told(&self, now: Instant, acked: u32, flight: u32) -> Ack {
        let srtt = self.rtt.smoothed();
        Ack { now, acked, acks: 1, flight, mss: self.mss, srtt, una: self.snd_una, nxt: self.snd_nxt }
    }

    /// Takes the peer's window from a segment that is newer than the last one that brought it. True if it changed.
    #[inline(always)]
    pub(crate) fn take_window(&mut self, seq: SeqNr, ack: SeqNr, window: u16) -> bool {
        let window = self.scaled(window);
        let newer = ack.gt(self.snd_una)
            || seq.gt(self.snd_wl1)
            || (seq == self.snd_wl1 && (window > self.snd_wnd || window == 0));
        if !newer {
            return false;
        }
        let changed = window != self.snd_wnd;
        self.max_window = self.max_window.max(window);
        self.snd_wl1 = seq;
        self.snd_wnd = window;
        changed
    }

    /// What a window field of the peer says, bytes.
    #[inline(always)]
    pub(crate) fn scaled(&self, window: u16) -> u32 {
        u32::from(window) << self.snd_wscale.min(14)
    }

    /// Marks that lie behind must not fall so far behind that they look like being ahead.
    #[inline]
    fn keep_marks_close(&mut self) {
        self.snd_sml = self.snd_sml.later(self.snd_una);
        self.push_end = self.push_end.later(self.snd_una);
    }
}
