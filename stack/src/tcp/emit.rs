//! How is an outgoing segment made, and what does its departure change?

use std::sync::atomic::{Ordering, compiler_fence};

use super::connection::Connection;
use super::loss::Phase;
use super::recovery::{Rare, Recovery};
use super::segment::{Flags, Kind, PlainOut, SackBlocks, SegmentOut, TrainOut};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use crate::wire::tcp::options_len;

impl Connection<'_> {
    /// Data (and FIN) from `snd_nxt` to `end` for the first time; `full` is what a full segment holds.
    pub(crate) fn send_new(&mut self, now: Instant, end: SeqNr, full: u32, blocks: SackBlocks) -> SegmentOut {
        let start = self.tcb.snd_nxt;
        self.depart(now, end, full, self.recovery.sent.in_flight());
        self.segment(now, start, end, blocks, Kind::Data)
    }

    /// What the departure of new data changes; `in_flight` bytes are out already.
    #[inline(always)]
    pub(crate) fn depart(&mut self, now: Instant, end: SeqNr, full: u32, in_flight: u32) {
        let tcb = &mut *self.tcb;
        let start = tcb.snd_nxt;
        compiler_fence(Ordering::Release);
        tcb.snd_nxt = end;
        let data_end = end.earlier(tcb.snd_end);
        if data_end.since(start) < full {
            tcb.snd_sml = data_end;
        }
        tcb.note_answer(now);
        tcb.data_sent_at = now;
        tcb.clear(bit::OVERRIDE | bit::WINDOW_PROBE);
        tcb.persist_backoff = 0;
        tcb.timers.stop(Timer::Persist);
        if tcb.snd_nxt.ge(tcb.snd_end) {
            tcb.timers.stop(Timer::Cork);
        }
        let Recovery { sent, rate, loss, rare, .. } = &mut *self.recovery;
        let departures = sent.departures();
        if in_flight == 0 {
            departures.clear();
        }
        tcb.cc.on_sent(now, start, end, departures);
        tcb.pacing.on_sent(now, end.since(start), tcb.mss);
        let stamp = rate.stamp(now, end.since(start), in_flight);
        sent.push(start, end, stamp);
        if loss.phase == Phase::Recovery
            && let Some(rare) = rare
        {
            rare.prr.on_sent(end.since(start));
        }
        self.watch_flight(now);
    }

    /// Data (and FIN) from `start` to `end` once more.
    pub(crate) fn send_again(&mut self, now: Instant, start: SeqNr, end: SeqNr, blocks: SackBlocks) -> SegmentOut {
        let tcb = &mut *self.tcb;
        tcb.forget_probe(start, end);
        tcb.retransmits = tcb.retransmits.wrapping_add(1);
        tcb.pacing.on_sent(now, end.since(start), tcb.mss);
        let Recovery { sent, rate, loss, rare, .. } = &mut *self.recovery;
        let stamp = rate.stamp(now, end.since(start), sent.in_flight());
        sent.push_again(start, end, stamp);
        let data = end.earlier(tcb.snd_end).ahead_of(start);
        let Rare { seldom, prr, undo, .. } = &mut **rare.get_or_insert_default();
        if loss.phase == Phase::Recovery {
            prr.on_sent(end.since(start));
        }
        undo.on_resent(now, start, end);
        seldom.resend(data);
        loss.urgent = false;
        // The oldest has left anew: its acknowledgement has a whole timeout to come.
        if start == tcb.snd_una || !tcb.timers.is_set(Timer::Retransmit) {
            tcb.timers.set(Timer::Retransmit, tcb.timeout_at(now));
        }
        self.segment(now, start, end, blocks, Kind::Retransmission)
    }

    /// [`Connection::segment`] where there is no FIN, no mark and nothing to report: `len` bytes from `start` on, with `is_last` all
    /// that is queued.
    #[inline(always)]
    pub(crate) fn plain_segment(&mut self, now: Instant, start: SeqNr, len: u32, is_last: bool) -> PlainOut {
        self.recovery.tally.send_out(len);
        let flags = if is_last { Flags::ACK.with(Flags::PSH) } else { Flags::ACK };
        self.uncounted_segment(now, start, len, flags)
    }

    /// The same of `count` such segments.
    pub(crate) fn plain_train(&mut self, now: Instant, start: SeqNr, len: u32, count: u32, is_last: bool) -> TrainOut {
        self.recovery.tally.send_train(count, len);
        TrainOut { first: self.uncounted_segment(now, start, len, Flags::ACK), count, is_last }
    }

    #[inline(always)]
    fn uncounted_segment(&mut self, now: Instant, start: SeqNr, len: u32, flags: Flags) -> PlainOut {
        let tcb = &mut *self.tcb;
        let window = tcb.offer_window(self.rcv.len());
        tcb.ack_sent();
        PlainOut { seq: start, ack: tcb.rcv_nxt, flags, window, len, timestamps: tcb.timestamps(now) }
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
        let (marks, ecn) = tcb.ecn_of(kind, len);
        let window = tcb.offer_window(self.rcv.len());
        tcb.ack_sent();
        let (ack, timestamps) = (tcb.rcv_nxt, tcb.timestamps(now));
        let flags = flags.with(marks);
        let segment = SegmentOut { seq: start, ack, flags, window, ecn, timestamps, sack, len, kind };
        self.recovery.tally.send_out(len);
        segment
    }
}

impl Tcb {
    /// Bytes of data in a full segment beside these SACK blocks.
    pub(crate) fn room_for_data(&self, blocks: &SackBlocks) -> u32 {
        self.mss.saturating_sub(options_len(false, blocks) as u32).max(1)
    }
}
