//! What holds after every step, and what has to be so in the end.

use std::iter::repeat_n;

use underpass_stack::arena::{MIN_RING, Phase};
use underpass_stack::stack::{Event, Keeper, event};
use underpass_stack::stats::Counter;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Instant, State};
use underpass_stack::testkit::Wire;
use underpass_stack::testkit::bounds::assert_bounded;
use underpass_stack::testkit::wire::assert_accounted;

use super::ends::{Ends, Home};
use super::player::Player;
use super::stream::is_at_most;

/// Events after which a connection owes nothing.
pub const ENDS: u8 = event::RESET | event::TIMED_OUT | event::CLOSED | event::URGENT;
/// How late a timer may run out, ns.
const TICK: u64 = 1 << 13;
/// Rounds after which nothing more will arrive if nothing has, and those before in which the peers have data to send.
const STILL: usize = 200;
const SPOKEN: usize = 80;

impl Player<'_> {
    /// Looks at everything.
    pub(super) fn check(&mut self) {
        self.look();
        for n in 0..self.ends.len() {
            self.check_bounds(n);
        }
        self.check_kept();
        self.check_timers();
        if !self.is_lost {
            let taken = self.taken.iter().map(|leftover| u64::from(leftover.frame.addr));
            let wires: Vec<&Wire> = self.queues.iter().map(|queue| &queue.wire).collect();
            assert_accounted(&wires, &self.stack, taken);
        }
        self.note_counters();
    }

    /// Takes in what connections have come to.
    pub(super) fn look(&mut self) {
        let mut events: Vec<Event> = Vec::new();
        self.stack.take_events(&mut events);
        for Event { slot, bits } in events {
            if let Some(ends) = self.ends.iter_mut().find(|ends| ends.slot() == Some(slot)) {
                ends.events |= bits;
            }
        }
        (0..self.ends.len()).for_each(|n| self.look_at(n));
    }

    fn look_at(&mut self, n: usize) {
        let ends = &mut self.ends[n];
        let Home::Stack { slot, generation } = ends.home else { return };
        let record = self.stack.record(slot).expect("a record");
        let is_here = record.generation == generation && Phase::from_raw(record.phase) != Phase::Free;
        if !is_here {
            assert!(ends.orphan, "connection {n} is gone");
            self.reached.insert("an orphan that was buried");
            // What it had sent is not of the next one.
            self.depart_all(0);
            self.ends[n] = self.ends[n].next_life();
            return;
        }
        assert_eq!(record.flow, ends.setup.flow);
        let image = record.tcb.image(ends.setup.flow, self.now);
        let rings = (record.rcv_ring.len, record.snd_ring.len);
        let has_gap = !record.tcb.ahead(rings.0, &[]).is_empty();
        assert!(image.is_sound(rings.0, rings.1), "{image:?}");
        assert_eq!((image.rcv_read, image.snd_end), (ends.read, ends.written), "connection {n}");
        forwards(&ends.seen, &image);
        promises(ends, &image, rings.0);
        let before = std::mem::replace(&mut ends.rings, rings);
        ends.seen = image;
        self.note_growth(before, rings, has_gap);
    }

    /// Rings of no size are those of a connection that has just come.
    fn note_growth(&mut self, before: (u32, u32), rings: (u32, u32), has_gap: bool) {
        let grown = (before.0 != 0 && rings.0 > before.0, before.1 != 0 && rings.1 > before.1);
        for (is, place) in [
            (grown.0, "a receive ring that grew"),
            (grown.1, "a send ring that grew"),
            (grown.0 && has_gap, "rings that grew with data out of order"),
        ] {
            if is {
                self.reached.insert(place);
            }
        }
    }

    fn check_bounds(&mut self, n: usize) {
        let (rcv, snd) = self.ends[n].rings;
        let (limits, wanted) = (self.ends[n].setup.largest, self.ends[n].setup.rings);
        let most = |largest: u32, wanted: u32| largest.max(wanted).max(MIN_RING);
        // What the kernel had already was taken over, whatever is wanted.
        assert!(
            rcv <= 2 * most(limits.0, wanted.0) && snd <= 2 * most(limits.1, wanted.1),
            "rings of {rcv} and {snd} bytes"
        );
        let Some(connection) = self.connection(n) else { return };
        assert_bounded(&connection);
        let over = matches!(connection.tcb.state(), State::Closed | State::TimeWait);
        let waits = connection.tcb.unacked() > 0 && !over;
        assert!(!waits || connection.tcb.deadline().is_some(), "data in flight and no timer: {:?}", connection.tcb);
    }

    /// The stack wakes for the first timer of any connection.
    fn check_timers(&mut self) {
        let wakes = self.stack.next_deadline();
        for n in 0..self.ends.len() {
            let due = self.connection(n).and_then(|connection| connection.tcb.deadline());
            let Some(due) = due else { continue };
            assert!(
                wakes.is_some_and(|at| at <= due.after(TICK).max(self.now)),
                "connection {n} is due at {due:?}, the stack wakes at {wakes:?}"
            );
        }
    }

    /// After a pass no connection has anything to say, unless there was no room.
    pub(super) fn check_silence(&mut self) {
        let sent = self.stack.stats().get(Counter::SegmentsSent);
        for n in 0..self.ends.len() {
            if self.stack.has_touched() {
                return;
            }
            let Some(slot) = self.ends[n].slot() else { continue };
            // A timer of its own that is due may let it send, and the wheel may be a tick behind.
            let due = self.connection(n).and_then(|connection| connection.tcb.deadline());
            if due.is_some_and(|due| due <= self.now) {
                continue;
            }
            self.stack.touch(slot);
            self.stack.send_touched(self.now);
            assert_eq!(self.stack.stats().get(Counter::SegmentsSent), sent, "connection {n} had more to say");
        }
    }

    /// Frames are kept only as long as it is open whose they are.
    fn check_kept(&mut self) {
        for (keeper, _) in self.stack.kept_frames() {
            match keeper {
                Keeper::Kernel => (),
                Keeper::Promotion => {
                    assert!(self.stack.promotions() > 0, "kept for a promotion that is over");
                    self.reached.insert("frames that came early");
                }
                Keeper::Slot(slot) => {
                    let ends = self.ends.iter().find(|ends| ends.slot() == Some(slot));
                    assert!(ends.is_some(), "kept for a connection that is gone");
                    self.reached.insert("frames held for a frozen connection");
                }
            }
        }
    }

    fn note_counters(&mut self) {
        for (counter, place) in
            [(Counter::Retransmits, "a segment sent again"), (Counter::NoFrame, "no frame to send in")]
        {
            if self.stack.stats().get(counter) > 0 {
                self.reached.insert(place);
            }
        }
    }

    /// Does the connection owe anything still?
    pub(super) fn is_well(&self, n: usize) -> bool {
        let record = self.ends[n].slot().and_then(|slot| self.stack.record(slot));
        let is_open = record.is_some_and(|record| record.tcb.state() != State::Closed);
        is_open && self.ends[n].events & ENDS == 0 && !self.ends[n].orphan
    }

    /// From now on all go by the rules: everything arrives.
    pub(super) fn finish(&mut self) {
        self.settle();
        let (mut round, mut still) = (0, 0);
        while !self.is_lost && still < STILL && !(0..self.ends.len()).all(|n| self.is_over(n)) {
            // Sending something new is no standing still: it may be paced, and what is missing wait for a timeout.
            let stands = |ends: &Ends| (ends.seen.snd_una, ends.seen.snd_nxt);
            let before: Vec<(u32, u32)> = self.ends.iter().map(stands).collect();
            // Then the peers are silent, so that timers which are far away come next.
            self.honest_round(if round < SPOKEN { 4 } else { 0 });
            let is_still = self.ends.iter().map(stands).eq(before);
            still = if is_still && round >= SPOKEN { still + 1 } else { 0 };
            round += 1;
            let next = self.stack.next_deadline().unwrap_or(self.now);
            self.now = Instant(next.0.max(self.now.0 + 1_000_000));
        }
        for n in 0..self.ends.len() {
            assert!(self.is_lost || self.is_over(n), "connection {n} stands still: {:?}", self.ends[n]);
        }
        self.check();
    }

    /// Nothing is frozen or reserved any more.
    fn settle(&mut self) {
        self.pass(usize::MAX);
        std::mem::take(&mut self.reserved).into_iter().for_each(|slot| self.stack.unreserve(slot, self.now));
        for n in 0..self.ends.len() {
            let Some(slot) = self.ends[n].slot() else { continue };
            self.stack.thaw(slot, self.now);
            let now = self.now;
            self.stack.with_connection(slot, now, |connection| {
                connection.set_cork(false);
                // Its timer would come before one that was set at a low pace.
                connection.set_keepalive(now, false, 7_200_000, 75_000, 9);
                connection.tcb.limit_pacing(u64::MAX);
            });
        }
    }

    fn honest_round(&mut self, segments: usize) {
        self.taken.extend(self.stack.take_leftovers());
        std::mem::take(&mut self.taken).into_iter().for_each(|leftover| self.stack.recycle(leftover));
        self.pass(0);
        self.depart_all(0);
        for n in 0..self.ends.len() {
            let unread = self.connection(n).map_or(0, |connection| connection.tcb.readable());
            self.receive(n, unread);
            self.stack.send_touched(self.now);
            self.look_at(n);
            self.ends[n].synchronise();
            // Data alone would not tell of a gap: acknowledgements with data are no duplicates (RFC 5681, section 2).
            let owed = std::mem::take(&mut self.ends[n].owed).min(8);
            for len in repeat_n(0, owed).chain(repeat_n(self.ends[n].full(), segments)) {
                let mut forged = self.ends[n].honest(len);
                self.report(n, &mut forged);
                self.stage_honest(n, &forged);
            }
            self.pass(usize::MAX);
        }
    }

    /// Has the peer everything, and the program?
    fn is_over(&self, n: usize) -> bool {
        let ends = &self.ends[n];
        let end = ends.written.wrapping_add(u32::from(ends.closed));
        !self.is_well(n) || ends.seen.snd_una == end
    }
}

/// The window that was promised is never taken back, fits into the ring, and nothing beyond it is accepted.
fn promises(ends: &Ends, image: &Image, ring: u32) {
    let fin = u32::from(image.flags & flag::FIN_RECEIVED != 0);
    let edge = image.rcv_wup.wrapping_add(image.rcv_wnd);
    assert!(is_at_most(ends.edge(), edge), "the window shrank: {:?} {image:?}", ends.seen);
    assert!(is_at_most(image.rcv_nxt, edge), "accepted what was not allowed: {image:?}");
    assert!(edge.wrapping_sub(image.rcv_read) <= ring + fin + 1, "more promised than there is room: {image:?}");
}

/// Numbers that only grow.
fn forwards(before: &Image, image: &Image) {
    for (name, old, new) in [
        ("snd_una", before.snd_una, image.snd_una),
        ("snd_nxt", before.snd_nxt, image.snd_nxt),
        ("snd_end", before.snd_end, image.snd_end),
        ("rcv_nxt", before.rcv_nxt, image.rcv_nxt),
        ("rcv_read", before.rcv_read, image.rcv_read),
    ] {
        assert!(is_at_most(old, new), "{name} went back from {old} to {new}");
    }
}
