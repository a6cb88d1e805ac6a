//! When to acknowledge? (RFC 5681, section 4.2; RFC 5961, section 7)

use super::image::flag;
use super::ranges::Range;
use super::segment::{Flags, Segment};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::timer::Timer;
use super::transfer::RCV_MSS_INITIAL;

/// Linux: TCP_DELACK_MIN, ns.
pub(crate) const DELAY: u64 = 40_000_000;
/// Answers to suspicious segments in one second at most.
const CHALLENGES_MAX: u8 = 10;
const SECOND: u64 = 1_000_000_000;
/// Duplicate acknowledgements that are owed at most: no peer needs more to see a loss.
const DUP_ACKS_MAX: u16 = 64;

impl Tcb {
    /// In-order data came, a segment of `len` bytes: acknowledge at once or within [`DELAY`].
    #[inline(always)]
    pub(crate) fn ack_data(&mut self, now: Instant, len: u32, is_pushed: bool, fills_gap: bool) {
        self.rcv_mss = self.rcv_mss.max(len as u16);
        self.data_heard_at = now;
        if is_pushed {
            self.set(bit::PUSHED);
        }
        // Duplicates still owed would repeat the new number, and look like another loss.
        self.dup_acks_due = 0;
        let unacked = self.rcv_nxt.since(self.rcv_wup);
        if fills_gap || unacked >= 2 * u32::from(self.rcv_mss) || self.has(bit::QUICKACK) {
            self.set(bit::ACK_NOW);
        } else if !self.timers.is_set(Timer::DelayedAck) {
            self.timers.set(Timer::DelayedAck, now.after(DELAY));
        }
    }

    /// Data goes out: if some has come shortly before, it is the answer to that.
    #[inline(always)]
    pub(crate) fn note_answer(&mut self, now: Instant) {
        if self.data_heard_at > self.data_sent_at && now.nanos_since(self.data_heard_at) < DELAY {
            self.set(bit::PINGPONG);
        }
    }

    /// Out-of-order data came: the peer wants to hear of each. With SACK one acknowledgement tells it all.
    pub(crate) fn ack_gap(&mut self) {
        if self.has(flag::SACK) {
            self.set(bit::ACK_NOW);
        } else {
            self.dup_acks_due = self.dup_acks_due.saturating_add(1).min(DUP_ACKS_MAX);
        }
    }

    /// `[start, end)` came again: the acknowledgement will say so (RFC 2883).
    pub(crate) fn note_duplicate(&mut self, start: SeqNr, end: SeqNr) {
        self.duplicate = Range { start, end };
        self.set(bit::DUPLICATE);
    }

    /// The delayed acknowledgement's time is up: the program does not answer after all.
    pub(crate) fn ack_late(&mut self) {
        self.set(bit::ACK_NOW | bit::ACK_LATE);
        // Segments may have become smaller, and all of a flight less than two of the old size: the next one shall not wait. If they have
        // not, the next full one says so.
        let half = self.rcv_nxt.since(self.rcv_wup) / 2;
        if half >= u32::from(RCV_MSS_INITIAL) {
            self.rcv_mss = self.rcv_mss.min(half.min(u16::MAX.into()) as u16);
        }
        self.clear(bit::PINGPONG);
    }

    /// Something with our newest acknowledgement goes out.
    pub(crate) fn ack_sent(&mut self) {
        self.rcv_wup = self.rcv_nxt;
        self.clear(bit::ACK_NOW | bit::ACK_LATE | bit::CHALLENGE | bit::PUSHED | bit::DUPLICATE);
        self.timers.stop(Timer::DelayedAck);
    }

    /// Answers a segment that cannot be right with our state, so that an honest peer can find back (RFC 5961). Limited,
    /// so that nobody can use us to flood the peer.
    pub(crate) fn challenge(&mut self, now: Instant) {
        if now.nanos_since(self.challenge_at) >= SECOND {
            self.challenge_at = now;
            self.challenges = 0;
        }
        if self.challenges < CHALLENGES_MAX {
            self.challenges += 1;
            self.set(bit::ACK_NOW | bit::CHALLENGE);
        }
    }

    /// Answers a segment outside the window (RFC 9293, section 3.10.7.4, first). Data deserves an answer in any case.
    pub(crate) fn answer_stray(&mut self, now: Instant, segment: &Segment<'_>) {
        if segment.payload.is_empty() && !segment.flags.has(Flags::FIN) {
            self.challenge(now);
        } else {
            self.set(bit::ACK_NOW);
        }
    }
}
