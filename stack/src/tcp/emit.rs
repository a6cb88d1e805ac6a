//! How is an outgoing segment made, and what does its departure change?

use std::sync::atomic::{Ordering, compiler_fence};

use super::connection::Connection;
use super::delack::DELAY;
use super::image::flag;
use super::loss::Phase;
use super::segment::{Flags, Kind, SackBlocks, SegmentOut};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use crate::wire::tcp::options_len;

impl Connection<'_> {
    /// Data (and FIN) from `snd_nxt` to `end` for the first time; `full` is what a full segment holds.
    pub(crate) fn send_new(&mut self, now: Instant, end: SeqNr, full: u32, blocks: SackBlocks) -> SegmentOut {
        let tcb = &mut *self.tcb;
        let start = tcb.snd_nxt;
        compiler_fence(Ordering::Release);
        tcb.snd_nxt = end;
        let data_end = end.earlier(tcb.snd_end);
        if data_end.since(start) < full {
            tcb.snd_sml = data_end;
        }
        if now.nanos_since(tcb.data_heard_at) < DELAY && tcb.data_heard_at > tcb.data_sent_at {
            tcb.set(bit::PINGPONG);
        }
        tcb.data_sent_at = now;
        tcb.clear(bit::OVERRIDE | bit::WINDOW_PROBE);
        tcb.persist_backoff = 0;
        tcb.timers.stop(Timer::Persist);
        if tcb.snd_nxt.ge(tcb.snd_end) {
            tcb.timers.stop(Timer::Cork);
        }
        // In recovery, what is new waits for what is old to be acknowledged: no round trip to measure.
        if tcb.loss.phase() != Phase::Recovery {
            tcb.rtt.start(end, now);
        }
        tcb.cc.on_sent(now, start, end);
        tcb.watch_flight(now);
        self.segment(now, start, end, blocks, Kind::Data)
    }

    /// Data (and FIN) from `start` to `end` once more.
    pub(crate) fn send_again(&mut self, now: Instant, start: SeqNr, end: SeqNr, blocks: SackBlocks) -> SegmentOut {
        let tcb = &mut *self.tcb;
        tcb.rtt.cancel();
        tcb.forget_probe(start, end);
        tcb.retransmits = tcb.retransmits.wrapping_add(1);
        if !tcb.timers.is_set(Timer::Retransmit) {
            tcb.timers.set(Timer::Retransmit, tcb.timeout_at(now));
        }
        self.segment(now, start, end, blocks, Kind::Retransmission)
    }

    /// A segment of `[start, end)`; whatever of it lies behind `snd_end` is our FIN. It carries the newest
    /// acknowledgement.
    pub(crate) fn segment(
        &mut self,
        now: Instant,
        start: SeqNr,
        end: SeqNr,
        sack: SackBlocks,
        kind: Kind,
    ) -> SegmentOut {
        let tcb = &mut *self.tcb;
        let len = end.earlier(tcb.snd_end).ahead_of(start);
        let mut flags = Flags::ACK;
        if len > 0 && end.ge(tcb.snd_end) {
            flags = flags.with(Flags::PSH);
        }
        if start.lt(end) && end.gt(tcb.snd_end) {
            flags = flags.with(Flags::FIN);
        }
        let window = tcb.offer_window(self.rcv.len());
        tcb.ack_sent();
        let timestamps = tcb.timestamps(now);
        let segment = SegmentOut { seq: start, ack: tcb.rcv_nxt, flags, window, timestamps, sack, len, kind };
        tcb.tally_out(&segment, kind == Kind::Retransmission);
        segment
    }
}

impl Tcb {
    /// Bytes of data in a full segment beside these SACK blocks.
    pub(crate) fn room_for_data(&self, blocks: &SackBlocks) -> u32 {
        self.mss.saturating_sub(options_len(false, blocks) as u32).max(1)
    }

    /// The SACK option of the next segment (RFC 2018, section 4): a duplicate (RFC 2883), then the range that holds the
    /// newest data, then the others.
    pub(crate) fn sack_blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let has_news = !self.ooo.is_empty() || self.has(bit::DUPLICATE);
        if !self.has(flag::SACK) || !has_news {
            return blocks;
        }
        let max = if self.has(flag::TIMESTAMPS) { SackBlocks::MAX - 1 } else { SackBlocks::MAX };
        if self.has(bit::DUPLICATE) {
            blocks.push(self.duplicate.start, self.duplicate.end);
        }
        let newest = self.ooo.holding(self.ooo_newest);
        let others = self.ooo.as_slice().iter().copied().filter(|range| Some(*range) != newest);
        for range in newest.into_iter().chain(others) {
            if blocks.as_slice().len() == max {
                break;
            }
            blocks.push(range.start, range.end);
        }
        blocks
    }
}
