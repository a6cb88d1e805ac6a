//! What goes out next, where nothing is unusual?
//!
//! Nearly always it is the next new data as far as a full segment holds it, or an acknowledgement alone. A few looks find that out; all
//! that [`super::output`] asks of other states need not be asked then. Both do the same to such a segment; the test of
//! [`super::predict`] holds them against each other.

use std::sync::atomic::{Ordering, compiler_fence};

use super::connection::Connection;
use super::image::flag;
use super::recovery::Recovery;
use super::segment::{PlainOut, TrainOut};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use super::undo::Frto;

/// With one of these there is more to say, or less may be said.
const UNUSUAL: u32 = flag::RESET_RECEIVED
    | flag::FIN_QUEUED
    | flag::CORK
    | flag::ECN
    | bit::MORE
    | bit::DONE
    | bit::CHALLENGE
    | bit::ACK_LATE
    | bit::WINDOW_PROBE
    | bit::KEEPALIVE_PROBE
    | bit::LOSS_PROBE
    | bit::OVERRIDE
    | bit::DUPLICATE;

/// New data that may leave.
#[derive(Clone, Copy)]
struct Foreseen {
    start: SeqNr,
    /// Not 0.
    len: u32,
    /// A segment holds no more.
    is_full: bool,
    /// Nothing is queued behind it.
    is_last: bool,
}

impl Connection<'_> {
    /// The next segment, if it is an ordinary one: new data or a bare acknowledgement, without SACK blocks, mark or FIN. `None`:
    /// [`Connection::next_segment`] has to be asked, and nothing has happened.
    #[inline(always)]
    pub(crate) fn foreseen_segment(&mut self, now: Instant) -> Option<PlainOut> {
        if !self.is_usual() {
            return None;
        }
        let tcb = &*self.tcb;
        if tcb.snd_end != tcb.snd_nxt {
            let data = self.foreseen_data(now)?;
            self.depart_calmly(now, data, 1);
            return Some(self.plain_segment(now, data.start, data.len, data.is_last));
        }
        if !tcb.has(bit::ACK_NOW) || tcb.snd_nxt.gt(tcb.snd_edge()) {
            return None;
        }
        Some(self.plain_segment(now, tcb.snd_nxt, 0, false))
    }

    /// The next segments, `most` at most, if they are ordinary ones, and full. `None`, as for a single one nearly always: nothing has happened.
    pub(crate) fn foreseen_train(&mut self, now: Instant, most: u32) -> Option<TrainOut> {
        if !self.is_usual() || self.is_held_back() || self.tcb.may_probe(now) {
            return None;
        }
        let mut count = self.full_segments().min(most);
        if count < 2 {
            return None;
        }
        if self.tcb.flight() == 0 {
            // It may make the window smaller, but never below a segment.
            self.tcb.restart(now, self.recovery.rate.is_app_limited());
            count = self.full_segments().clamp(1, most);
        }
        let (start, full) = (self.tcb.snd_nxt, self.tcb.mss);
        let len = count * full;
        let is_last = start.plus(len) == self.tcb.snd_end;
        self.depart_calmly(now, Foreseen { start, len, is_full: true, is_last }, count);
        Some(self.plain_train(now, start, full, count, is_last))
    }

    /// Full segments of new data that the windows let go.
    fn full_segments(&self) -> u32 {
        let tcb = &*self.tcb;
        let unsent = tcb.snd_end.ahead_of(tcb.snd_nxt);
        let room = tcb.snd_edge().ahead_of(tcb.snd_nxt).min(tcb.cc.cwnd().saturating_sub(self.recovery.sent.span()));
        unsent.min(room).checked_div(tcb.mss).unwrap_or(0)
    }

    /// Is the connection calm, and nothing to be said but new data or an acknowledgement?
    #[inline(always)]
    fn is_usual(&self) -> bool {
        let (tcb, recovery) = (&*self.tcb, &*self.recovery);
        tcb.has_usual_bits() & recovery.is_calm() & (recovery.frto == Frto::Off) & tcb.ooo.is_empty()
    }

    /// Is there another reason than windows and size to wait with new data?
    #[inline(always)]
    fn is_held_back(&self) -> bool {
        let tcb = &*self.tcb;
        tcb.pacing.rate() != 0 || tcb.cc.goes_by_rate() || self.recovery.loss.dup_acks != 0
    }

    /// The next segment of new data, if it may leave now.
    #[inline(always)]
    fn foreseen_data(&mut self, now: Instant) -> Option<Foreseen> {
        let (tcb, recovery) = (&*self.tcb, &*self.recovery);
        let (start, full, in_flight) = (tcb.snd_nxt, tcb.mss, recovery.sent.span());
        if !tcb.snd_end.gt(start) || full == 0 {
            return None;
        }
        let unsent = tcb.snd_end.since(start);
        let len = unsent.min(full);
        if tcb.snd_edge().ahead_of(start) < len {
            return None;
        }
        if in_flight != 0 && u64::from(in_flight) + u64::from(len) > tcb.cc.cwnd().into() {
            return None;
        }
        if self.is_held_back() || tcb.may_probe(now) || (len < full && !tcb.is_partial_free()) {
            return None;
        }
        if tcb.flight() == 0 {
            // Only this may change the window, and never below a segment.
            self.tcb.restart(now, recovery.rate.is_app_limited());
        }
        Some(Foreseen { start, len, is_full: len == full, is_last: len == unsent })
    }

    /// What the departure of new data changes, as [`Connection::depart`] says it, where it is calm, nothing is paced, and of [`UNUSUAL`] there is
    /// nothing: then all that was sent and not acknowledged is in the network. It leaves in `count` segments of one size.
    #[inline(always)]
    fn depart_calmly(&mut self, now: Instant, data: Foreseen, count: u32) {
        let (tcb, recovery) = (&mut *self.tcb, &mut *self.recovery);
        let Foreseen { start, len, is_full, is_last } = data;
        let end = start.plus(len);
        // What was sent at another time is not continued by this.
        let may_continue = tcb.data_sent_at == now;
        compiler_fence(Ordering::Release);
        tcb.snd_nxt = end;
        if !is_full {
            tcb.snd_sml = end;
        }
        tcb.note_answer(now);
        tcb.data_sent_at = now;
        tcb.persist_backoff = 0;
        tcb.timers.stop(Timer::Persist);
        if is_last {
            tcb.timers.stop(Timer::Cork);
        }
        let is_first = recovery.sent.span() == 0;
        let departures = recovery.sent.departures();
        if is_first {
            departures.clear();
        }
        match count {
            1 => tcb.cc.on_sent(now, start, end, departures),
            _ => tcb.cc.on_train_sent(now, start, (len / count, count), departures),
        }
        if may_continue || recovery.sent.is_short() {
            recovery.note_sent(now, start, end);
        } else {
            let stamp = recovery.rate.stamp(now, len, recovery.sent.span());
            recovery.sent.push_apart(start, end, stamp);
        }
        tcb.watch_timeout(now);
        self.plan_calm_tail_probe(now);
    }
}

impl Recovery {
    /// New data goes out, which may belong to what went out before, or needs memory.
    #[inline(never)]
    fn note_sent(&mut self, now: Instant, start: SeqNr, end: SeqNr) {
        let stamp = self.rate.stamp(now, end.since(start), self.sent.span());
        self.sent.push(start, end, stamp);
    }
}

impl Tcb {
    #[inline(always)]
    fn has_usual_bits(&self) -> bool {
        self.bits & UNUSUAL == 0
    }
}
