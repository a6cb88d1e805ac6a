//! What goes out next?

use super::connection::Connection;
use super::ecn::Codepoint;
use super::segment::{Flags, Kind, SackBlocks, SegmentOut};
use super::seq::SeqNr;
use super::tcb::bit;
use super::time::Instant;
use super::undo::Frto;

impl Connection<'_> {
    /// The next segment to put on the wire; it counts as sent from now on. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<SegmentOut> {
        if self.tcb.is_closed() {
            return None;
        }
        let may = self.may_transmit();
        let next = match self.foreseen_segment(now) {
            None => self.next_segment(now),
            Some(plain) => Some(plain.into()),
        };
        debug_assert!(may || next.is_none(), "what `may_transmit` does not know of");
        next
    }

    /// The same the long way, which is right for any, for who has just asked [`Connection::may_transmit`].
    pub(crate) fn next_segment(&mut self, now: Instant) -> Option<SegmentOut> {
        if self.tcb.is_closed() {
            return None;
        }
        let recovery = &*self.recovery;
        if self.tcb.has(PROBES) || recovery.sent.lost() != 0 || recovery.frto != Frto::Off {
            return self.probe_or_retransmission(now);
        }
        match self.new_data(now, false) {
            None => self.bare_ack(now),
            new => new,
        }
    }

    /// All that may go out, in the order of its urgency.
    #[cold]
    fn probe_or_retransmission(&mut self, now: Instant) -> Option<SegmentOut> {
        self.tail_probe(now)
            .or_else(|| self.retransmission(now))
            .or_else(|| self.new_data(now, false))
            .or_else(|| self.retransmission_after_all(now))
            .or_else(|| self.window_or_keepalive_probe(now))
            .or_else(|| self.bare_ack(now))
    }

    /// What is lost, as recovery allows; the oldest byte at once.
    fn retransmission(&mut self, now: Instant) -> Option<SegmentOut> {
        if self.recovery.sent.lost() == 0 || self.recovery.frto == Frto::New {
            return None;
        }
        let blocks = self.tcb.sack_blocks();
        let (start, end) = self.recovery.sent.next_lost(self.tcb.room_for_data(&blocks))?;
        let len = end.since(start);
        if !self.recovery.loss.urgent && (!self.recovery.allows(self.tcb, len) || self.is_paced_out(now)) {
            return None;
        }
        Some(self.send_again(now, start, end, blocks))
    }

    /// The test for a spurious timeout wanted new data out, and there was none to send: what is lost after all.
    fn retransmission_after_all(&mut self, now: Instant) -> Option<SegmentOut> {
        if self.recovery.frto != Frto::New || self.tcb.snd_nxt.gt(self.recovery.loss.recover) {
            return None;
        }
        self.recovery.frto = Frto::Off;
        self.retransmission(now)
    }

    /// Data that was never sent, then FIN. A `probe` ignores the congestion window.
    #[inline(always)]
    pub(crate) fn new_data(&mut self, now: Instant, probe: bool) -> Option<SegmentOut> {
        let tcb = &mut *self.tcb;
        let unsent = tcb.snd_end.ahead_of(tcb.snd_nxt);
        let fin_due = tcb.fin_queued() && !tcb.fin_sent();
        let in_flight = self.recovery.sent.in_flight();
        if unsent == 0 && !fin_due {
            return None;
        }
        let blocks = tcb.sack_blocks();
        let window = tcb.snd_edge().ahead_of(tcb.snd_nxt);
        let calm = self.recovery.is_calm();
        let larger = if probe || !calm { None } else { tcb.plan_probe(now, unsent.min(window), &blocks) };
        let full = larger.unwrap_or_else(|| tcb.room_for_data(&blocks));
        let len = unsent.min(full).min(window);
        if window == 0 || !tcb.is_worth_sending(now, len, unsent, full) {
            tcb.wait_for_window(now, window, unsent);
            if in_flight < tcb.cc.cwnd() {
                if unsent < full {
                    self.on_nothing_to_send(in_flight);
                } else {
                    self.recovery.rate.on_full_window(in_flight);
                }
            }
            return None;
        }
        tcb.restart_after_idle(now, self.recovery.rate.is_app_limited());
        if !probe && (!self.recovery.allows(tcb, len) || self.is_paced_out(now)) {
            if larger.is_some() {
                self.tcb.drop_probe();
            }
            return None;
        }
        let tcb = &mut *self.tcb;
        let with_fin = fin_due && len == unsent && window > len;
        let end = tcb.snd_nxt.plus(len + u32::from(with_fin));
        if larger.is_some() {
            tcb.probe_sent(tcb.snd_nxt, end);
        }
        Some(self.send_new(now, end, full, blocks))
    }

    /// A bare acknowledgement, if one is due.
    #[inline(always)]
    fn bare_ack(&mut self, now: Instant) -> Option<SegmentOut> {
        let tcb = &mut *self.tcb;
        if tcb.uses_ecn()
            && let Some((ack, echo)) = tcb.take_apart()
        {
            return Some(self.acknowledge_apart(now, ack, echo));
        }
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
        let seq = tcb.ack_seq();
        let blocks = tcb.sack_blocks();
        Some(self.segment(now, seq, seq, blocks, kind))
    }

    /// An acknowledgement of what came before `ack`, with or without the echo of a mark (RFC 8257, section 3.2).
    fn acknowledge_apart(&mut self, now: Instant, ack: SeqNr, echo: bool) -> SegmentOut {
        let seq = self.tcb.ack_seq();
        let flags = if echo { Flags::ACK.with(Flags::ECE) } else { Flags::ACK };
        // The same edge as of any other segment, counted from here.
        self.tcb.offer_window(self.rcv.len());
        let window = (self.tcb.rcv_adv.ahead_of(ack) >> self.tcb.rcv_wscale.min(14)).min(u16::MAX.into()) as u16;
        let (timestamps, ecn, sack, kind) =
            (self.tcb.timestamps(now), Codepoint::NotEct, SackBlocks::default(), Kind::Ack);
        let segment = SegmentOut { seq, ack, flags, window, ecn, timestamps, sack, len: 0, kind };
        self.recovery.tally.send_out(0);
        segment
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

/// A probe is due.
const PROBES: u32 = bit::WINDOW_PROBE | bit::KEEPALIVE_PROBE | bit::LOSS_PROBE;
/// Something is due beside data.
const DUE: u32 = bit::ACK_NOW | bit::ACK_LATE | bit::CHALLENGE | PROBES;

impl Connection<'_> {
    /// Could [`Connection::poll_transmit`] have anything to send or to plan? If not it need not be asked, as after most
    /// acknowledgements; but the estimate of the delivery rate has to know that the program keeps nothing ready.
    #[inline]
    pub(crate) fn may_transmit(&mut self) -> bool {
        let tcb = &*self.tcb;
        // Everything queued was sent, FIN included, unless it is lost.
        if tcb.snd_nxt != tcb.snd_end.plus(u32::from(tcb.fin_queued())) {
            return true;
        }
        let in_flight = self.recovery.sent.in_flight();
        if in_flight < tcb.cc.cwnd() {
            self.on_nothing_to_send(in_flight);
        }
        let tcb = &*self.tcb;
        tcb.has(DUE) || tcb.dup_acks_due > 0 || self.recovery.sent.lost() > 0
    }

    /// The same of a connection that is calm, with no FIN queued: what is queued is in flight.
    #[inline(always)]
    pub(crate) fn may_transmit_calmly(&mut self) -> bool {
        let tcb = &*self.tcb;
        if tcb.snd_nxt != tcb.snd_end {
            return true;
        }
        let in_flight = self.recovery.sent.span();
        if in_flight < tcb.cc.cwnd() && in_flight as usize <= self.send_limit() / 3 * 2 {
            self.recovery.rate.on_nothing_to_send(in_flight);
        }
        let tcb = &*self.tcb;
        tcb.has(DUE) | (tcb.dup_acks_due > 0)
    }

    /// There is room in the congestion window and no new data: is that the program's doing? Not if something waits to be sent again
    /// (Linux: tcp_rate_check_app_limited), nor if the queue is so full that the program waits for room.
    #[inline]
    fn on_nothing_to_send(&mut self, in_flight: u32) {
        let queued = self.tcb.snd_end.ahead_of(self.tcb.snd_una) as usize;
        if self.recovery.sent.lost() == 0 && queued <= self.send_limit() / 3 * 2 {
            self.recovery.rate.on_nothing_to_send(in_flight);
        }
    }
}
