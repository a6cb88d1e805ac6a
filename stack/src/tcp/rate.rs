//! How fast does the peer receive? (draft-ietf-ccwg-bbr, section 4.1; draft-cheng-iccrg-delivery-rate-estimation)
//!
//! Between the departure of a segment and its acknowledgement, so many bytes were delivered in so much time.

use super::sent::{Record, Stamp};
use super::seq::SeqNr;
use super::time::Instant;

/// What one acknowledgement says of the path (`RS` of the draft).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateSample {
    /// Bytes delivered since the newest segment that it answers had left (`RS.delivered`).
    pub delivered: u64,
    /// The time that took, ns: the longer one of sending and of hearing (`RS.interval`). 0: no rate can be told.
    pub interval: u64,
    /// That segment left while the program had too little to say to fill the path.
    pub is_app_limited: bool,
    /// That segment left while the peer's window was too small to fill the path.
    pub is_window_limited: bool,
    /// All bytes delivered when that segment left (`RS.prior_delivered`).
    pub prior_delivered: u64,
    /// All bytes delivered by now (`C.delivered`).
    pub total_delivered: u64,
    /// Bytes in the network when that segment left, itself included (`RS.tx_in_flight`).
    pub tx_in_flight: u32,
    /// Bytes that were found lost since that segment left (`RS.lost`).
    pub lost: u32,
    /// Bytes that this acknowledgement says were delivered, in order or not (`RS.newly_acked`).
    pub newly_delivered: u32,
    /// Bytes that it shows to be lost (`RS.newly_lost`).
    pub newly_lost: u32,
    /// Bytes in the network before it came (`RS.prior_inflight`) ...
    pub prior_in_flight: u32,
    /// ... and after.
    pub in_flight: u32,
    /// Round trip of the newest segment that it answers and that was sent only once, ns.
    pub rtt: Option<u64>,
}

/// A rate at which the peer received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// [`RateSample::delivered`]
    pub delivered: u64,
    /// [`RateSample::interval`]
    pub interval: u64,
    /// [`RateSample::is_app_limited`]
    pub is_app_limited: bool,
}

/// The counts of one connection (`C.*` of the draft).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Until so much is delivered, modulo 2^32, what is measured is the program's rate; 0: not so.
    app_limited: u32,
    /// The same of the peer's window.
    window_limited: u32,
    lost: u32,
}

/// What the segments that one acknowledgement answers add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivery {
    /// Bytes that were not known to be delivered.
    pub bytes: u32,
    /// How many of them came out of order.
    pub sacked: u32,
    /// Something of it was sent more than once, so nobody knows when the rest of it arrived (Karn's rule, RFC 6298, section 3).
    pub ambiguous: bool,
    /// Of those that tell a rate, the one sent last: its stamp and its end. The default: there is none.
    newest: Stamp,
    newest_end: SeqNr,
    /// Departure of the newest one that was sent only once; never: there is none.
    unambiguous: Instant,
}

impl Delivery {
    /// A piece that was not known to be delivered.
    #[inline]
    pub fn add(&mut self, piece: &Record) {
        self.bytes = self.bytes.saturating_add(piece.len());
        if piece.stamp.tells_rate() && piece.was_sent_after(self.newest.sent_at, self.newest_end) {
            (self.newest, self.newest_end) = (piece.stamp, piece.end);
        }
        if !piece.resent && !piece.blurred {
            self.unambiguous = self.unambiguous.max(piece.stamp.sent_at);
        }
    }

    /// Round trip of the newest segment that was sent only once, ns.
    #[inline(always)]
    pub fn rtt(&self, now: Instant) -> Option<u64> {
        let is_known = self.unambiguous.is_set() && !self.ambiguous;
        is_known.then(|| now.nanos_since(self.unambiguous))
    }
}

impl Rate {
    /// The stamp of a segment of `len` bytes that goes out now, with `in_flight` bytes out already.
    #[inline]
    pub fn stamp(&mut self, now: Instant, len: u32, in_flight: u32) -> Stamp {
        if in_flight == 0 {
            (self.first_sent_at, self.delivered_at) = (now, now);
        }
        Stamp {
            sent_at: now,
            first_sent_at: self.first_sent_at,
            delivered_at: self.delivered_at,
            delivered: self.delivered,
            lost: self.lost,
            in_flight: in_flight.wrapping_add(len),
            app_limited: self.app_limited != 0,
            window_limited: self.window_limited != 0,
        }
    }

    /// There is room in the congestion window and nothing to send.
    pub fn on_nothing_to_send(&mut self, in_flight: u32) {
        self.app_limited = self.by_when(in_flight);
    }

    /// There is room in the congestion window, and none in the peer's.
    pub fn on_full_window(&mut self, in_flight: u32) {
        self.window_limited = self.by_when(in_flight);
    }

    /// How much is delivered when so much more is; never 0.
    #[inline(always)]
    fn by_when(&self, in_flight: u32) -> u32 {
        (self.delivered as u32).wrapping_add(in_flight).max(1)
    }

    /// Is what is measured now the program's rate?
    pub fn is_app_limited(&self) -> bool {
        self.app_limited != 0
    }

    /// So many bytes were found lost.
    pub fn on_lost(&mut self, bytes: u32) {
        self.lost = self.lost.wrapping_add(bytes);
    }

    /// Bytes that were found lost so far, modulo 2^32.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// An acknowledgement delivered something.
    #[inline]
    pub fn on_delivery(&mut self, now: Instant, delivery: &Delivery) {
        if delivery.bytes != 0 {
            let newest = &delivery.newest;
            let sent_at = if newest.tells_rate() { newest.sent_at } else { self.first_sent_at };
            self.on_delivered(now, delivery.bytes, sent_at);
        }
    }

    /// The same of so many bytes, not 0, the last of which left at `sent_at`.
    #[inline(always)]
    pub fn on_delivered(&mut self, now: Instant, bytes: u32, sent_at: Instant) {
        self.delivered = self.delivered.wrapping_add(u64::from(bytes));
        self.delivered_at = now;
        if self.app_limited | self.window_limited != 0 {
            // Looked at with each delivery, so that they are never far apart.
            let over = |until: u32| if until.wrapping_sub(self.delivered as u32) as i32 >= 0 { until } else { 0 };
            (self.app_limited, self.window_limited) = (over(self.app_limited), over(self.window_limited));
        }
        self.first_sent_at = sent_at;
    }

    /// The rate that an acknowledgement that delivered something shows, after [`Rate::on_delivery`]. `min_rtt` is the shortest round trip
    /// known: a rate measured over less time is not believed.
    #[inline]
    pub fn measured(&self, now: Instant, delivery: &Delivery, min_rtt: Option<u64>) -> Measured {
        let measured = self.measured_by(now, &delivery.newest, min_rtt);
        Measured { interval: if delivery.newest.tells_rate() { measured.interval } else { 0 }, ..measured }
    }

    /// The same by the stamp of what was delivered and sent last.
    #[inline(always)]
    pub fn measured_by(&self, now: Instant, stamp: &Stamp, min_rtt: Option<u64>) -> Measured {
        let sending = stamp.sent_at.nanos_since(stamp.first_sent_at);
        let hearing = now.nanos_since(stamp.delivered_at);
        let interval = sending.max(hearing);
        Measured {
            delivered: self.delivered.wrapping_sub(stamp.delivered),
            interval: if interval >= min_rtt.unwrap_or(0) { interval } else { 0 },
            is_app_limited: stamp.app_limited,
        }
    }

    /// What an acknowledgement says, after [`Rate::on_delivery`] and [`Rate::on_lost`]. `lost_before` is [`Rate::lost`] before it came,
    /// `in_flight` how much was in the network before and after, `min_rtt` as for [`Rate::measured`].
    pub fn sample(
        &self,
        now: Instant,
        delivery: &Delivery,
        lost_before: u32,
        in_flight: (u32, u32),
        min_rtt: Option<u64>,
    ) -> RateSample {
        let told = RateSample {
            total_delivered: self.delivered,
            newly_delivered: delivery.bytes,
            newly_lost: self.lost.wrapping_sub(lost_before),
            prior_in_flight: in_flight.0,
            in_flight: in_flight.1,
            rtt: delivery.rtt(now),
            ..RateSample::default()
        };
        if delivery.bytes == 0 {
            return told;
        }
        let stamp = &delivery.newest;
        let Measured { delivered, interval, is_app_limited } = self.measured(now, delivery, min_rtt);
        RateSample {
            delivered,
            interval,
            is_app_limited,
            is_window_limited: stamp.window_limited,
            prior_delivered: stamp.delivered,
            tx_in_flight: stamp.in_flight,
            lost: self.lost.wrapping_sub(stamp.lost),
            ..told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sent::Sent;
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Instant {
        Instant((1000 + ms) * MS)
    }

    /// Acknowledges everything before `una`.
    fn ack(rate: &mut Rate, sent: &mut Sent, now: Instant, una: u32) -> RateSample {
        let before = sent.in_flight();
        let mut delivery = Delivery::default();
        sent.take_acked(SeqNr(una), |piece| delivery.add(piece));
        rate.on_delivery(now, &delivery);
        rate.sample(now, &delivery, rate.lost(), (before, sent.in_flight()), None)
    }

    fn send(rate: &mut Rate, sent: &mut Sent, now: Instant, start: u32, end: u32) {
        let stamp = rate.stamp(now, end - start, sent.in_flight());
        sent.push(SeqNr(start), SeqNr(end), stamp);
    }

    #[test]
    fn a_rate_is_what_was_delivered_in_a_round_trip() {
        let (mut rate, mut sent) = (Rate::default(), Sent::default());
        send(&mut rate, &mut sent, at(0), 0, 1000);
        send(&mut rate, &mut sent, at(0), 1000, 2000);
        let first = ack(&mut rate, &mut sent, at(100), 1000);
        assert_eq!((first.delivered, first.interval, first.rtt), (1000, 100 * MS, Some(100 * MS)));
        send(&mut rate, &mut sent, at(100), 2000, 4000);
        let second = ack(&mut rate, &mut sent, at(101), 2000);
        assert_eq!((second.delivered, second.interval), (2000, 101 * MS));
        let third = ack(&mut rate, &mut sent, at(200), 4000);
        // Since it left 3000 bytes were delivered, in the time since the last delivery before that.
        assert_eq!((third.delivered, third.interval, third.prior_delivered), (3000, 100 * MS, 1000));
        assert_eq!((third.tx_in_flight, third.in_flight, third.newly_delivered), (3000, 0, 2000));
    }

    #[test]
    fn acknowledgements_that_arrive_together_do_not_raise_the_rate_above_that_of_sending() {
        let (mut rate, mut sent) = (Rate::default(), Sent::default());
        for n in 0..10 {
            send(&mut rate, &mut sent, at(u64::from(n) * 10), n * 1000, (n + 1) * 1000);
        }
        ack(&mut rate, &mut sent, at(100), 1000);
        let all = ack(&mut rate, &mut sent, at(101), 10_000);
        assert_eq!(all.delivered, 10_000);
        assert_eq!(all.interval, 101 * MS, "nothing had been delivered when the last one left");
    }

    #[test]
    fn what_left_while_the_program_was_silent_is_marked() {
        // Also where what limits is a number beyond 2^32, and is 2^32.
        for delivered in [0, u64::from(u32::MAX) - 500, u64::from(u32::MAX) - 999] {
            let (mut rate, mut sent) = (Rate { delivered, ..Rate::default() }, Sent::default());
            send(&mut rate, &mut sent, at(0), 0, 1000);
            rate.on_nothing_to_send(sent.in_flight());
            assert!(!ack(&mut rate, &mut sent, at(10), 1000).is_app_limited);
            send(&mut rate, &mut sent, at(20), 1000, 2000);
            assert!(ack(&mut rate, &mut sent, at(30), 2000).is_app_limited);
            send(&mut rate, &mut sent, at(30), 2000, 3000);
            assert!(!ack(&mut rate, &mut sent, at(40), 3000).is_app_limited, "that was delivered");
        }
    }

    #[test]
    fn a_rate_over_less_than_a_round_trip_is_not_believed() {
        let (mut rate, mut sent) = (Rate::default(), Sent::default());
        send(&mut rate, &mut sent, at(0), 0, 1000);
        let mut delivery = Delivery::default();
        sent.take_acked(SeqNr(1000), |piece| delivery.add(piece));
        rate.on_delivery(at(5), &delivery);
        assert_eq!(rate.sample(at(5), &delivery, 0, (1000, 0), Some(6 * MS)).interval, 0);
        assert_eq!(rate.sample(at(5), &delivery, 0, (1000, 0), Some(5 * MS)).interval, 5 * MS);
    }

    #[test]
    fn what_another_owner_sent_measures_no_rate() {
        let (mut rate, mut sent) = (Rate::default(), Sent::default());
        let stamp = Stamp { delivered_at: Instant::NEVER, ..rate.stamp(at(0), 10_000, 0) };
        sent.restart(SeqNr(0), SeqNr(10_000), stamp);
        // An acknowledgement that was on its way, a moment later.
        let first = ack(&mut rate, &mut sent, at(1), 3000);
        assert_eq!((first.interval, first.rtt, first.newly_delivered, first.total_delivered), (0, None, 3000, 3000));
        send(&mut rate, &mut sent, at(1), 10_000, 12_000);
        assert_eq!(ack(&mut rate, &mut sent, at(50), 10_000).interval, 0);
        let own = ack(&mut rate, &mut sent, at(101), 12_000);
        assert_eq!((own.delivered, own.interval, own.rtt), (9000, 100 * MS, Some(100 * MS)));
    }

    #[test]
    fn what_was_sent_twice_measures_no_round_trip() {
        let (mut rate, mut sent) = (Rate::default(), Sent::default());
        send(&mut rate, &mut sent, at(0), 0, 1000);
        sent.lose_range(SeqNr(0), SeqNr(1000));
        rate.on_lost(1000);
        let stamp = rate.stamp(at(50), 1000, 0);
        sent.push_again(SeqNr(0), SeqNr(1000), stamp);
        let sample = ack(&mut rate, &mut sent, at(100), 1000);
        assert_eq!((sample.rtt, sample.lost, sample.delivered), (None, 0, 1000));
    }
}
