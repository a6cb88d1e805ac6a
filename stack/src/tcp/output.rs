//! What goes out next?

use super::connection::Connection;
use super::segment::{Kind, SackBlocks, SegmentOut};
use super::tcb::{State, bit};
use super::time::Instant;
use super::timer::Timer;

impl Connection<'_> {
    /// The next segment to put on the wire; it counts as sent from now on. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<SegmentOut> {
        if self.tcb.state() == State::Closed {
            return None;
        }
        self.tail_probe(now)
            .or_else(|| self.retransmission(now))
            .or_else(|| self.new_data(now, false))
            .or_else(|| self.window_or_keepalive_probe(now))
            .or_else(|| self.bare_ack(now))
    }

    /// What is lost, as the congestion window allows; the oldest byte at once.
    fn retransmission(&mut self, now: Instant) -> Option<SegmentOut> {
        let lost = self.tcb.loss.next_lost()?;
        let blocks = self.tcb.sack_blocks();
        let len = lost.end.since(lost.start).min(self.tcb.room_for_data(&blocks));
        let pipe = self.tcb.pipe();
        let must_wait = pipe != 0 && pipe.saturating_add(len) > self.tcb.cc.cwnd();
        if must_wait && !self.tcb.loss.head_is_due(self.tcb.snd_una) {
            return None;
        }
        let end = lost.start.plus(len);
        self.tcb.loss.resent(end, self.tcb.snd_nxt);
        Some(self.send_again(now, lost.start, end, blocks))
    }

    /// A tail loss probe (RFC 8985, section 7.3): new data if there is some, else the last segment again.
    fn tail_probe(&mut self, now: Instant) -> Option<SegmentOut> {
        if !self.tcb.has(bit::LOSS_PROBE) {
            return None;
        }
        self.tcb.clear(bit::LOSS_PROBE);
        if self.tcb.flight() == 0 {
            return None;
        }
        self.tcb.set(bit::PROBED);
        self.tcb.timers.set(Timer::Retransmit, self.tcb.timeout_at(now));
        self.new_data(now, true).or_else(|| {
            let blocks = self.tcb.sack_blocks();
            let end = self.tcb.snd_nxt;
            let len = self.tcb.flight().min(self.tcb.room_for_data(&blocks));
            Some(self.send_again(now, end.minus(len), end, blocks))
        })
    }

    /// Data that was never sent, then FIN. A `probe` ignores the congestion window.
    fn new_data(&mut self, now: Instant, probe: bool) -> Option<SegmentOut> {
        let tcb = &mut *self.tcb;
        let unsent = tcb.snd_end.ahead_of(tcb.snd_nxt);
        let fin_due = tcb.fin_queued() && !tcb.fin_sent();
        if unsent == 0 && !fin_due {
            return None;
        }
        let blocks = tcb.sack_blocks();
        let window = tcb.snd_edge().ahead_of(tcb.snd_nxt);
        let larger = if probe { None } else { tcb.plan_probe(now, unsent, window, &blocks) };
        let full = larger.unwrap_or_else(|| tcb.room_for_data(&blocks));
        let len = unsent.min(full).min(window);
        if window == 0 || !tcb.is_worth_sending(now, len, unsent, full) {
            tcb.wait_for_window(now, window, unsent);
            return None;
        }
        tcb.restart_after_idle(now);
        let pipe = tcb.pipe();
        if !probe && pipe != 0 && pipe.saturating_add(len) > tcb.cc.cwnd() {
            if larger.is_some() {
                tcb.drop_probe();
            }
            return None;
        }
        let with_fin = fin_due && len == unsent && window > len;
        let end = tcb.snd_nxt.plus(len + u32::from(with_fin));
        if larger.is_some() {
            tcb.probe_sent(tcb.snd_nxt, end);
        }
        Some(self.send_new(now, end, full, blocks))
    }

    /// A bare acknowledgement, if one is due.
    fn bare_ack(&mut self, now: Instant) -> Option<SegmentOut> {
        let tcb = &mut *self.tcb;
        let kind = if tcb.has(bit::CHALLENGE) {
            Kind::ChallengeAck
        } else if tcb.has(bit::ACK_LATE) {
            Kind::DelayedAck
        } else if tcb.has(bit::ACK_NOW) {
            Kind::Ack
        } else if tcb.dup_acks_due > 0 {
            tcb.dup_acks_due -= 1;
            Kind::Ack
        } else {
            return None;
        };
        // A peer that shrank its window would not look at a segment beyond it.
        let seq = tcb.snd_nxt.earlier(tcb.snd_edge().later(tcb.snd_una));
        let blocks = tcb.sack_blocks();
        Some(self.segment(now, seq, seq, blocks, kind))
    }

    /// An empty segment below the window, which the peer has to answer.
    fn window_or_keepalive_probe(&mut self, now: Instant) -> Option<SegmentOut> {
        let tcb = &mut *self.tcb;
        let kind = if tcb.has(bit::WINDOW_PROBE) {
            Kind::WindowProbe
        } else if tcb.has(bit::KEEPALIVE_PROBE) {
            Kind::KeepaliveProbe
        } else {
            return None;
        };
        tcb.clear(bit::WINDOW_PROBE | bit::KEEPALIVE_PROBE);
        let seq = tcb.snd_una.minus(1);
        Some(self.segment(now, seq, seq, SackBlocks::default(), kind))
    }
}
