//! What the owner of a connection knows of its transmissions, beyond what others need to carry the connection on.
//!
//! It lies in the owner's memory beside the slot, not in the arena: the kernel could be told of nothing but what the peer has. After an
//! import it is begun anew from the numbers, and from what is known beside them ([`super::scoreboard`]).

use super::ahead::Beyond;
use super::cc::Saved;
use super::loss::{Loss, Phase};
use super::prr::Prr;
use super::rack::Rack;
use super::rate::Rate;
use super::sent::{Room, Sent, Stamp};
use super::seq::SeqNr;
use super::tail::Tail;
use super::tally::{Seldom, Tally};
use super::tcb::Tcb;
use super::time::Instant;
use super::tune::Tuning;
use super::undo::{Frto, Undo};

/// The transmissions of one connection. `Default` is that of a connection which has nothing in flight.
#[derive(Debug, Default)]
pub struct Recovery {
    pub(crate) sent: Sent,
    pub(crate) rate: Rate,
    pub(crate) loss: Loss,
    pub(crate) tuning: Tuning,
    pub(crate) tally: Tally,
    /// `None`: nothing of it has happened.
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) rack: Rack,
    pub(crate) frto: Frto,
}

/// What only losses need, and what is suspected to be one. Most connections never see any; who does keeps it.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub seldom: Seldom,
    pub prr: Prr,
    pub undo: Undo,
    /// What undoing brings back.
    pub saved: Saved,
    /// The newest tail loss probe, as long as its answer can say something.
    pub tail: Option<Tail>,
    /// Out-of-order data that the record has no room for.
    pub beyond: Beyond,
}

/// Memory for records, lent to connections while they have something in flight: those that are idle need none, and those that are
/// busy allocate none.
#[derive(Debug, Default)]
pub struct Pool {
    #[allow(clippy::vec_box, reason = "a connection takes them as they are, in one word")]
    free: Vec<Box<Room>>,
    /// How many of these are large.
    large: usize,
}

/// Room for more records than this is large, and ...
const LARGE: usize = 128;
/// ... no more than so many large ones are kept.
const LARGE_MAX: usize = 64;
/// Of all, no more than so many are: what a crowd needed at one moment is not kept for ever.
const KEPT_MAX: usize = 4096;

impl Pool {
    /// Sees to it that the connection can send.
    #[inline]
    pub fn lend(&mut self, to: &mut Recovery) {
        if !to.sent.has_room() {
            self.lend_room(to);
        }
    }

    #[inline(never)]
    fn lend_room(&mut self, to: &mut Recovery) {
        let room = self.free.pop();
        self.large -= usize::from(room.as_ref().is_some_and(|room| is_large(room)));
        to.sent.lend(room);
    }

    /// Takes back what a connection does not need: it has nothing in flight.
    #[inline]
    pub fn take_back(&mut self, from: &mut Recovery) {
        if from.sent.has_room() && from.sent.in_flight() == 0 {
            self.take_room_back(from);
        }
    }

    #[inline(never)]
    fn take_room_back(&mut self, from: &mut Recovery) {
        let Some(room) = from.sent.take_room().filter(|_| self.free.len() < KEPT_MAX) else { return };
        if is_large(&room) {
            if self.large == LARGE_MAX {
                return;
            }
            self.large += 1;
        }
        self.free.push(room);
    }
}

fn is_large(room: &Room) -> bool {
    room.capacity() > LARGE
}

impl Recovery {
    /// Is nothing lost, and nothing delivered beyond a gap?
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        (self.loss.phase == Phase::Open) & (self.sent.sacked() | self.sent.lost() == 0)
    }

    /// 0 if it is so.
    #[inline(always)]
    pub(crate) fn troubles(&self) -> u32 {
        self.sent.sacked() | self.sent.lost() | (self.loss.phase as u32 ^ Phase::Open as u32)
    }

    /// What the peer has acknowledged selectively: `[start, end)` of the sequence space, ascending, nothing touching.
    pub fn sacked(&self) -> impl Iterator<Item = [u32; 2]> {
        let mut records = self.sent.records().filter(|record| record.sacked).peekable();
        std::iter::from_fn(move || {
            let first = records.next()?;
            let mut end = first.end;
            while let Some(next) = records.next_if(|next| next.start == end) {
                end = next.end;
            }
            Some([first.start.0, end.0])
        })
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn seldom(&mut self) -> &mut Seldom {
        &mut self.rare().seldom
    }

    /// The window is about to be reduced from what was saved.
    pub(crate) fn begin_undo(&mut self, una: SeqNr, now: Saved) {
        let Rare { undo, tail, saved, .. } = self.rare();
        undo.begin(una, tail.and_then(|tail| tail.resent()));
        *saved = now;
    }

    /// There is nothing to undo any more.
    pub(crate) fn end_undo(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.undo.end();
        }
    }

    /// What is remembered since the window was last reduced.
    pub(crate) fn undo(&self) -> Undo {
        self.rare.as_ref().map_or_else(Undo::default, |rare| rare.undo)
    }

    /// The tail loss probe whose answer can still say something.
    #[inline]
    pub(crate) fn tail(&self) -> Option<Tail> {
        self.rare.as_ref().and_then(|rare| rare.tail)
    }

    pub(crate) fn forget_tail(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.tail = None;
        }
    }

    /// The connection was imported: what is in flight went out nobody knows when.
    pub(crate) fn begin(&mut self, tcb: &Tcb, now: Instant) {
        let (una, nxt) = (tcb.snd_una, tcb.snd_nxt);
        let mut rate = Rate::default();
        // When that was, and what the peer had then, nobody knows.
        let stamp = Stamp { delivered_at: Instant::NEVER, ..rate.stamp(now, tcb.flight(), 0) };
        let unacked = tcb.unacked() as u32;
        let rare = (unacked != 0).then(|| {
            Box::new(Rare { seldom: Seldom::begin(unacked, tcb.mss), saved: tcb.cc.unsaved(), ..Rare::default() })
        });
        let mut sent = std::mem::take(&mut self.sent);
        sent.restart(una, nxt, stamp);
        // What was backed off goes on with a series of timeouts: the next is not its first, which would reduce the threshold again.
        let loss = Loss::new(una, tcb.rtt.backoff());
        *self = Self { sent, rate, loss, rack: Rack::new(una), rare, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::super::sent::Stamp;
    use super::super::seq::SeqNr;
    use super::*;

    /// Something in flight that needs so many records.
    fn send(recovery: &mut Recovery, records: u32) {
        for n in 0..records {
            let stamp = Stamp { sent_at: Instant(u64::from(n) + 1), ..Stamp::default() };
            recovery.sent.push(SeqNr(n), SeqNr(n + 1), stamp);
        }
    }

    #[test]
    fn memory_goes_from_one_connection_to_the_next() {
        let (mut pool, mut first, mut second) = (Pool::default(), Recovery::default(), Recovery::default());
        pool.lend(&mut first);
        send(&mut first, 10);
        pool.take_back(&mut first);
        assert_eq!(pool.free.len(), 0, "in use");
        first.sent.take_acked(SeqNr(10), |_| ());
        pool.take_back(&mut first);
        assert!(pool.free.len() == 1 && !first.sent.has_room());
        pool.lend(&mut second);
        assert!(pool.free.is_empty() && second.sent.has_room());
    }

    #[test]
    fn what_a_crowd_needed_is_not_kept_for_ever() {
        let (mut pool, mut crowd) = (Pool::default(), Vec::new());
        crowd.resize_with(KEPT_MAX + 10, Recovery::default);
        crowd.iter_mut().for_each(|one| pool.lend(one));
        crowd.iter_mut().for_each(|one| pool.take_back(one));
        assert!(pool.free.len() == KEPT_MAX && crowd.iter().all(|one| !one.sent.has_room()));
    }

    #[test]
    fn of_large_memory_little_is_kept() {
        let mut pool = Pool::default();
        let mut crowd: Vec<Recovery> = (0..LARGE_MAX + 10).map(|_| Recovery::default()).collect();
        for one in &mut crowd {
            pool.lend(one);
            send(one, 300);
        }
        for one in &mut crowd {
            one.sent.take_acked(SeqNr(300), |_| ());
            pool.take_back(one);
        }
        assert_eq!((pool.free.len(), pool.large), (LARGE_MAX, LARGE_MAX));
        pool.lend(&mut crowd[0]);
        assert_eq!(pool.large, LARGE_MAX - 1);
    }
}
