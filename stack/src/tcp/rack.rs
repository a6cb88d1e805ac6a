//! What is lost, told by time? (RFC 8985, sections 5 and 6: RACK)
//!
//! When something that was sent later has arrived, what was sent before and has not been heard of for a round trip and a reordering
//! window is lost, be it the first transmission or a later one.

use super::sent::{Record, Sent};
use super::seq::SeqNr;
use super::time::Instant;

/// Recoveries without a D-SACK after which the reordering window shrinks again (RFC 8985, section 6.2, step 4).
const PERSIST: u8 = 16;
/// A shortest round trip is believed for this long (Linux: tcp_min_rtt_wlen), ns.
const MIN_RTT_LIFE: u64 = 300_000_000_000;

/// State of RACK; the RFC's names in brackets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rack {
    /// When that which was sent last, of all that has arrived, was sent [xmit_ts] ...
    sent_at: Instant,
    /// ... where it ends [end_seq] ...
    end: SeqNr,
    /// ... and how long it took [rtt], ns.
    rtt: u64,
    /// Shortest round trip [min_RTT], ns; 0: none yet.
    min_rtt: u64,
    min_rtt_at: Instant,
    /// Highest number that has arrived [fack].
    fack: SeqNr,
    /// [reordering_seen]
    reordering_seen: bool,
    /// [reo_wnd_mult] less one: the window grows by a quarter of the shortest round trip a time. 256 steps are the most; more say nothing new.
    widened: u8,
    /// [reo_wnd_persist]
    persist: u8,
    /// [dsack_round], with `in_round`
    dsack_round: SeqNr,
    in_round: bool,
}

impl Default for Rack {
    fn default() -> Self {
        Self::new(SeqNr(0))
    }
}

/// Losses that [`Rack::detect`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detected {
    /// Bytes.
    pub lost: u32,
    /// When to look again, if something may turn out lost by then.
    pub look_at: Option<Instant>,
}

impl Rack {
    /// Nothing is known yet; everything before `una` has arrived.
    pub fn new(una: SeqNr) -> Self {
        Self {
            sent_at: Instant::NEVER,
            end: una,
            rtt: 0,
            min_rtt: 0,
            min_rtt_at: Instant::NEVER,
            fack: una,
            reordering_seen: false,
            widened: 0,
            persist: 0,
            dsack_round: una,
            in_round: false,
        }
    }

    /// Shortest round trip, ns, if one was measured.
    pub fn min_rtt(&self) -> Option<u64> {
        Some(self.min_rtt).filter(|&ns| ns != 0)
    }

    /// A round trip was measured, ns (step 1).
    #[inline]
    pub fn measured(&mut self, now: Instant, rtt: u64) {
        let expired = now.nanos_since(self.min_rtt_at) > MIN_RTT_LIFE;
        if self.min_rtt == 0 || rtt <= self.min_rtt || expired {
            (self.min_rtt, self.min_rtt_at) = (rtt.max(1), now);
        }
    }

    /// Something has arrived that was not known to have (steps 2 and 3). `echo` is our clock, ms, as the acknowledgement
    /// echoes it, if it is of this piece. Says whether the piece was overtaken on its way.
    pub fn arrived(&mut self, now: Instant, piece: &Record, echo: Option<u32>) -> bool {
        let overtaken = !piece.resent && !piece.blurred && piece.end.lt(self.fack);
        self.reordering_seen |= overtaken;
        self.fack = self.fack.later(piece.end);
        let rtt = now.nanos_since(piece.sent_from);
        let echoes_older = echo.is_some_and(|ms| (ms.wrapping_sub(piece.stamp.sent_at.millis()) as i32) < 0);
        if piece.resent && (echoes_older || rtt < self.min_rtt) {
            return overtaken;
        }
        self.rtt = rtt;
        if piece.was_sent_after(self.sent_at, self.end) {
            (self.sent_at, self.end) = (piece.sent_from, piece.end);
        }
        overtaken
    }

    /// The same for each piece of a run, in their order: where the first ends, and the last.
    #[inline(always)]
    pub fn arrived_in_order(&mut self, now: Instant, first_end: SeqNr, last: &Record) {
        self.reordering_seen |= first_end.lt(self.fack);
        self.fack = self.fack.later(last.end);
        self.rtt = now.nanos_since(last.sent_from);
        if last.was_sent_after(self.sent_at, self.end) {
            (self.sent_at, self.end) = (last.sent_from, last.end);
        }
    }

    /// What arrived late had not been lost: an original came after its retransmission had left.
    pub fn reordered(&mut self) {
        self.reordering_seen = true;
    }

    /// The peer reports a duplicate: we were too hasty (step 4). At most one step in a round.
    pub fn duplicate(&mut self, una: SeqNr, nxt: SeqNr) {
        // Nobody looks when a round ends: one that ended long ago lies anywhere.
        let left = self.dsack_round.since(una);
        if !self.in_round || left == 0 || left > nxt.since(una) {
            (self.in_round, self.dsack_round) = (true, nxt);
            self.widened = self.widened.saturating_add(1);
            self.persist = PERSIST;
        }
    }

    /// A recovery has ended (step 4).
    pub fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.widened = 0;
        }
    }

    /// The reordering window, ns (step 4). `eager`: recovery is going on, or so much beyond a gap has arrived that without known
    /// reordering there is nothing to wait for.
    pub fn window(&self, eager: bool, srtt: Option<u64>) -> u64 {
        if !self.reordering_seen && eager {
            return 0;
        }
        let shortest = self.min_rtt().unwrap_or(self.rtt);
        ((u64::from(self.widened) + 1) * shortest / 4).min(srtt.unwrap_or(self.rtt))
    }

    /// Was it sent before what has arrived?
    fn overtakes(&self, record: &Record) -> bool {
        let sent_at = record.stamp.sent_at;
        self.sent_at > sent_at || (self.sent_at == sent_at && self.end.gt(record.end))
    }

    /// Marks what is lost (step 5).
    pub fn detect(&self, now: Instant, sent: &mut Sent, window: u64) -> Detected {
        let mut look_at = None;
        let lost = sent.lose(|record| {
            if !self.overtakes(record) {
                // What follows was sent later still, unless it was sent again: then it was sent after this as well.
                return record.resent.then_some(false);
            }
            let at = self.due(record, window);
            if at > now {
                look_at = look_at.max(Some(at));
            }
            Some(at <= now)
        });
        Detected { lost, look_at }
    }

    /// From when on this record counts as lost if something sent later has arrived.
    pub fn due(&self, record: &Record, window: u64) -> Instant {
        record.stamp.sent_at.after(self.rtt).after(window)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sent::Stamp;
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Instant {
        Instant((10_000 + ms) * MS)
    }

    fn stamp(ms: u64) -> Stamp {
        Stamp { sent_at: at(ms), ..Stamp::default() }
    }

    /// Ten segments sent a millisecond apart.
    fn flight() -> Sent {
        let mut sent = Sent::default();
        for n in 0..10 {
            sent.push(SeqNr(n * 1000), SeqNr(n * 1000 + 1000), stamp(n.into()));
        }
        sent
    }

    fn sack(rack: &mut Rack, sent: &mut Sent, now: Instant, start: u32, end: u32) {
        sent.take_sacked(SeqNr(start), SeqNr(end), |piece| {
            rack.arrived(now, piece, None);
        });
    }

    #[test]
    fn what_was_sent_before_is_lost_when_the_window_is_over() {
        let (mut rack, mut sent) = (Rack::new(SeqNr(0)), flight());
        rack.measured(at(100), 100 * MS);
        sack(&mut rack, &mut sent, at(102), 2000, 3000);
        let window = rack.window(false, Some(100 * MS));
        assert_eq!(window, 25 * MS);
        // Of the two before it, the later one was sent at 1 ms.
        assert_eq!(rack.detect(at(102), &mut sent, window), Detected { lost: 0, look_at: Some(at(126)) });
        assert_eq!(rack.detect(at(126), &mut sent, window), Detected { lost: 2000, look_at: None });
        assert_eq!(rack.window(true, Some(100 * MS)), 0, "no reordering was seen");
    }

    #[test]
    fn a_lost_retransmission_is_found_when_something_later_arrives() {
        let (mut rack, mut sent) = (Rack::new(SeqNr(0)), flight());
        rack.measured(at(100), 100 * MS);
        sack(&mut rack, &mut sent, at(105), 1000, 6000);
        assert_eq!(rack.detect(at(105), &mut sent, 0).lost, 1000);
        sent.push_again(SeqNr(0), SeqNr(1000), stamp(105));
        sent.push(SeqNr(10_000), SeqNr(11_000), stamp(106));
        sack(&mut rack, &mut sent, at(109), 6000, 10_000);
        assert_eq!(rack.detect(at(109), &mut sent, 0).lost, 0, "what arrived was sent before it");
        sack(&mut rack, &mut sent, at(206), 10_000, 11_000);
        assert_eq!(rack.detect(at(206), &mut sent, 0).lost, 1000);
    }

    #[test]
    fn an_original_that_arrives_after_its_retransmission_left_tells_nothing_of_that() {
        let (mut rack, mut sent) = (Rack::new(SeqNr(0)), flight());
        rack.measured(at(100), 100 * MS);
        sent.push_again(SeqNr(0), SeqNr(1000), stamp(105));
        let before = rack;
        sent.take_acked(SeqNr(1000), |piece| {
            rack.arrived(at(110), piece, None);
        });
        assert_eq!((rack.sent_at, rack.rtt), (before.sent_at, before.rtt), "5 ms are no round trip");
        sent.push_again(SeqNr(1000), SeqNr(2000), stamp(120));
        sent.take_acked(SeqNr(2000), |piece| {
            rack.arrived(at(300), piece, Some(at(119).millis()));
        });
        assert_eq!(rack.sent_at, before.sent_at, "it echoes an older one");
    }

    #[test]
    fn reordering_that_was_seen_keeps_the_window_open() {
        let (mut rack, mut sent) = (Rack::new(SeqNr(0)), flight());
        rack.measured(at(100), 100 * MS);
        sack(&mut rack, &mut sent, at(103), 3000, 4000);
        sack(&mut rack, &mut sent, at(104), 1000, 2000);
        assert!(rack.reordering_seen);
        assert_eq!(rack.window(true, Some(100 * MS)), 25 * MS);
    }

    #[test]
    fn duplicates_widen_the_window_once_a_round_and_sixteen_recoveries_narrow_it() {
        let mut rack = Rack::new(SeqNr(0));
        rack.measured(at(0), 100 * MS);
        rack.reordered();
        rack.duplicate(SeqNr(0), SeqNr(1000));
        rack.duplicate(SeqNr(500), SeqNr(2000));
        assert_eq!(rack.window(true, Some(90 * MS)), 50 * MS);
        rack.duplicate(SeqNr(1000), SeqNr(2000));
        rack.duplicate(SeqNr(2000), SeqNr(3000));
        assert_eq!(rack.window(true, Some(90 * MS)), 90 * MS, "SRTT is the limit");
        for _ in 0..PERSIST {
            assert_eq!(rack.widened, 3);
            rack.recovered();
        }
        assert_eq!(rack.window(true, Some(90 * MS)), 25 * MS);
    }

    #[test]
    fn the_shortest_round_trip_is_forgotten_after_five_minutes() {
        let mut rack = Rack::new(SeqNr(0));
        rack.measured(at(0), 10 * MS);
        rack.measured(at(200_000), 20 * MS);
        assert_eq!(rack.min_rtt(), Some(10 * MS));
        rack.measured(at(300_001), 20 * MS);
        assert_eq!(rack.min_rtt(), Some(20 * MS));
    }
}
