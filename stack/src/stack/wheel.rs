//! When does which connection have to be looked at? A hierarchical timing wheel (Varghese, Lauck: Hashed and hierarchical timing
//! wheels, 1987): setting, moving and running out cost the same however many connections there are.
//!
//! One entry a slot. An entry is given back at the end of the tick that holds its deadline: never early, and at most
//! [`TICK`] late.

use crate::tcp::Instant;

/// Nanoseconds of a tick, as a power of two: eight microseconds.
const TICK_SHIFT: u32 = 13;
/// Nanoseconds of a tick.
#[cfg(test)]
const TICK: u64 = 1 << TICK_SHIFT;
/// Buckets of a level, as a power of two.
const BITS: u32 = 6;
const BUCKETS: usize = 1 << BITS;
/// Levels: the last holds what is up to six days ahead; what is farther is looked at then.
const LEVELS: usize = 6;
/// Farthest deadline, ticks ahead: all but one bucket of the last level, so that none is its own successor.
const REACH: u64 = (BUCKETS as u64 - 1) << (BITS * (LEVELS as u32 - 1));
const NONE: u32 = u32::MAX;
/// Where an entry is that is in no bucket: nowhere, or among those that have run out.
const OUT: u16 = (1 << LIST_BITS) - 1;
const DUE: u16 = (LEVELS * BUCKETS) as u16;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The tick at whose beginning the entry is due, above the list that it is in: a tick has 51 bits (of 52), a list nine (of twelve).
    word: u64,
    next: u32,
    prev: u32,
}

/// Bits of [`Entry::word`] below the tick.
const LIST_BITS: u32 = 12;

impl Entry {
    const EMPTY: Self = Self { word: OUT as u64, next: NONE, prev: NONE };

    fn tick(&self) -> u64 {
        self.word >> LIST_BITS
    }

    fn list(&self) -> u16 {
        self.word as u16 & OUT
    }

    fn set_tick(&mut self, tick: u64) {
        self.word = tick << LIST_BITS | u64::from(self.list());
    }

    fn set_list(&mut self, list: u16) {
        self.word = (self.word & !u64::from(OUT)) | u64::from(list);
    }
}

/// The wheel.
#[derive(Debug)]
pub(super) struct Wheel {
    entries: Vec<Entry>,
    /// First entry of each bucket, level by level, then of those that have run out.
    heads: [u32; LEVELS * BUCKETS + 1],
    /// Buckets that are not empty, a bit each.
    occupied: [u64; LEVELS],
    /// Everything before this tick has run out.
    elapsed: u64,
    /// No entry is due before this tick.
    soonest: u64,
}

impl Wheel {
    /// An empty wheel.
    pub fn new() -> Self {
        let heads = [NONE; LEVELS * BUCKETS + 1];
        Self { entries: Vec::new(), heads, occupied: [0; LEVELS], elapsed: 0, soonest: u64::MAX }
    }

    /// Makes room for slots below `count`.
    pub fn reserve(&mut self, count: usize) {
        if count > self.entries.len() {
            self.entries.resize(count, Entry::EMPTY);
        }
    }

    /// Memory for slots below `count`, and no more.
    pub fn reserve_exact(&mut self, count: usize) {
        self.entries.reserve_exact(count.saturating_sub(self.entries.len()));
    }

    /// Sets or moves the entry of a slot.
    pub fn set(&mut self, slot: u32, at: Instant, now: Instant) {
        if slot as usize >= self.entries.len() {
            return;
        }
        self.stop(slot);
        if self.soonest == u64::MAX {
            // Empty: nothing lies between `elapsed` and now.
            self.elapsed = self.elapsed.max(now.0 >> TICK_SHIFT);
        }
        // The end of the tick: at the next one's beginning the deadline has passed.
        let tick = ((at.0 >> TICK_SHIFT) + 1).clamp(self.elapsed, self.elapsed.saturating_add(REACH));
        self.entries[slot as usize].set_tick(tick);
        self.file(slot, tick);
        self.soonest = self.soonest.min(tick);
    }

    /// Takes the entry of a slot away, if it has one.
    pub fn stop(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(slot as usize) else { return };
        let (Entry { next, prev, .. }, list) = (*entry, entry.list());
        if list == OUT {
            return;
        }
        match self.entries.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => self.heads[list as usize] = next,
        }
        if let Some(after) = self.entries.get_mut(next as usize) {
            after.prev = prev;
        }
        if self.heads[list as usize] == NONE && list != DUE {
            self.occupied[list as usize / BUCKETS] &= !(1 << (list as usize % BUCKETS));
        }
        self.entries[slot as usize].set_list(OUT);
    }

    /// A point in time before which no entry is due; `None` if there is none.
    pub fn soonest(&self) -> Option<Instant> {
        (self.soonest != u64::MAX).then_some(Instant(self.soonest << TICK_SHIFT))
    }

    /// May [`Self::pop`] have something to say?
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        now.0 >> TICK_SHIFT >= self.soonest
    }

    /// A slot whose time has come; its entry is gone.
    pub fn pop(&mut self, now: Instant) -> Option<u32> {
        let now = now.0 >> TICK_SHIFT;
        if now < self.soonest {
            return None;
        }
        loop {
            let due = self.heads[DUE as usize];
            if due != NONE {
                self.stop(due);
                return Some(due);
            }
            match self.next_bucket() {
                Some((list, tick)) if tick <= now => self.empty(list, tick),
                next => {
                    self.elapsed = self.elapsed.max(now);
                    self.soonest = next.map_or(u64::MAX, |(_, tick)| tick);
                    return None;
                }
            }
        }
    }

    /// Into the bucket for its tick as seen from `elapsed`: on the level of the highest digit in which both differ.
    fn file(&mut self, slot: u32, tick: u64) {
        let differs = (tick ^ self.elapsed) | 1;
        let level = (((63 - differs.leading_zeros()) / BITS) as usize).min(LEVELS - 1);
        let bucket = (tick >> (BITS * level as u32)) as usize % BUCKETS;
        self.occupied[level] |= 1 << bucket;
        self.link(slot, (level * BUCKETS + bucket) as u16);
    }

    fn link(&mut self, slot: u32, list: u16) {
        let head = std::mem::replace(&mut self.heads[list as usize], slot);
        if let Some(first) = self.entries.get_mut(head as usize) {
            first.prev = slot;
        }
        let entry = &mut self.entries[slot as usize];
        (entry.next, entry.prev) = (head, NONE);
        entry.set_list(list);
    }

    /// The bucket whose turn comes first, and when that is.
    fn next_bucket(&self) -> Option<(u16, u64)> {
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied == 0 {
                continue;
            }
            let shift = BITS * level as u32;
            let digit = (self.elapsed >> shift) as u32 % BUCKETS as u32;
            let ahead = occupied.rotate_right(digit).trailing_zeros();
            let bucket = (digit + ahead) as usize % BUCKETS;
            let tick = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
            return Some(((level * BUCKETS + bucket) as u16, tick.max(self.elapsed)));
        }
        None
    }

    /// The bucket's turn has come: what is due joins the due, what is not moves to a lower level.
    fn empty(&mut self, list: u16, tick: u64) {
        self.elapsed = tick;
        let mut slot = std::mem::replace(&mut self.heads[list as usize], NONE);
        self.occupied[list as usize / BUCKETS] &= !(1 << (list as usize % BUCKETS));
        while let Some(&entry) = self.entries.get(slot as usize) {
            let (due, next) = (entry.tick(), entry.next);
            if due <= tick {
                self.link(slot, DUE);
            } else {
                self.file(slot, due);
            }
            slot = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 24;

    fn popped(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut slots: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        slots.sort_unstable();
        slots
    }

    /// Distances of every size: microseconds to weeks.
    fn distance() -> impl Strategy<Value = u64> {
        (0u32..50, any::<u64>()).prop_map(|(bits, n)| n & ((1 << bits) - 1))
    }

    proptest! {
        #[test]
        fn nothing_is_early_and_nothing_is_later_than_a_tick(
            start in distance(),
            steps in proptest::collection::vec((0u8..3, 0..SLOTS, distance()), 1..120),
        ) {
            let mut wheel = Wheel::new();
            wheel.reserve(SLOTS as usize);
            let mut model: Vec<Option<u64>> = vec![None; SLOTS as usize];
            let mut now = start;
            popped(&mut wheel, Instant(now));
            for (step, slot, distance) in steps {
                match step {
                    0 => {
                        // What lies beyond the reach is the owner's to set again.
                        let at = now + distance.min(REACH << (TICK_SHIFT - 1));
                        wheel.set(slot, Instant(at), Instant(now));
                        model[slot as usize] = Some(at);
                    }
                    1 => {
                        wheel.stop(slot);
                        model[slot as usize] = None;
                    }
                    _ => {
                        now += distance;
                        let soonest = wheel.soonest().map(|at| at.0);
                        let got = popped(&mut wheel, Instant(now));
                        for &slot in &got {
                            let at = model[slot as usize].take();
                            prop_assert!(at.is_some_and(|at| at <= now), "{slot} at {at:?}, now {now}");
                            prop_assert!(soonest.is_some_and(|soonest| soonest <= now));
                        }
                        for at in model.iter().flatten() {
                            prop_assert!(at + TICK > now, "{at} missed at {now}");
                        }
                    }
                }
                let first = model.iter().flatten().min();
                prop_assert_eq!(first.is_some() || wheel.soonest().is_some(), wheel.soonest().is_some());
                if let Some(first) = first {
                    prop_assert!(wheel.soonest().unwrap().0 <= first + TICK);
                }
            }
        }

        #[test]
        fn whoever_waits_for_the_soonest_gets_everything(distances in proptest::collection::vec(distance(), 1..20)) {
            let mut wheel = Wheel::new();
            wheel.reserve(distances.len());
            for (slot, distance) in distances.iter().enumerate() {
                wheel.set(slot as u32, Instant(1 + distance.min(&(REACH << (TICK_SHIFT - 1)))), Instant(1));
            }
            let (mut left, mut looks) = (distances.len(), 0);
            while let Some(at) = wheel.soonest() {
                left -= popped(&mut wheel, at).len();
                looks += 1;
                prop_assert!(looks <= distances.len() * (LEVELS + 1), "woken again and again");
            }
            prop_assert_eq!(left, 0);
        }
    }
}
