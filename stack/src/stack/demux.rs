//! Which connection does a frame belong to? Open addressing over slot numbers: the flows themselves stand in the connections'
//! records, which have to be read anyway. The one that was found last is remembered, since the next frame is often its, too.
//!
//! Peers choose their ports, so the hash is keyed: nobody outside can aim at one place of the table.

use std::hash::{BuildHasher, RandomState};

use crate::ip::flow::{Ends, FlowKey};

/// Places of an empty table; it grows when half of them are taken.
const PLACES_MIN: usize = 64;

/// 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The table. A place holds the low half of a flow's hash below a slot number plus one, or zero.
#[derive(Debug)]
pub(super) struct Demux {
    places: Vec<u64>,
    used: usize,
    keys: [u64; 4],
    /// Whose packet came last, and its slot: the next one often is of the same flow.
    newest: (Ends, u32),
}

/// High and low half of the product, joined: every bit of both factors counts (folded multiply).
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The tag of what keys and a flow have been mixed to: where a key's low bits are zero, ports that follow each other would lie close together.
fn spread(mixed: u64) -> u32 {
    fold(mixed, SPREAD) as u32
}

fn pack(tag: u32, slot: u32) -> u64 {
    u64::from(slot.wrapping_add(1)) << 32 | u64::from(tag)
}

fn tag_of(place: u64) -> u32 {
    place as u32
}

fn slot_of(place: u64) -> u32 {
    ((place >> 32) as u32).wrapping_sub(1)
}

impl Demux {
    /// An empty table with a secret of its own.
    pub fn new() -> Self {
        let state = RandomState::new();
        Self {
            places: vec![0; PLACES_MIN],
            used: 0,
            keys: [0, 1, 2, 3].map(|n: u64| state.hash_one(n)),
            newest: (Ends::NONE, 0),
        }
    }

    fn tag(&self, flow: &FlowKey) -> u32 {
        if let Some(ends) = Ends::of_flow(flow) {
            return self.tag_of_ends(ends);
        }
        let [local_high, local, remote_high, remote, ports] = flow.words();
        let [a, b, c, d] = self.keys;
        spread(fold(local ^ a, remote ^ b) ^ fold(ports ^ local_high ^ c, remote_high ^ d))
    }

    #[inline(always)]
    fn tag_of_ends(&self, ends: Ends) -> u32 {
        let [addresses, ports] = ends.words();
        let [a, b, ..] = self.keys;
        spread(fold(addresses ^ a, ports ^ b))
    }

    /// The slot of a flow; `holds` says whether a slot is the flow's.
    #[inline]
    pub fn find(&self, flow: &FlowKey, holds: impl Fn(u32) -> bool) -> Option<u32> {
        self.find_tag(self.tag(flow), holds)
    }

    #[inline(always)]
    fn find_tag(&self, tag: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.places.len() - 1;
        let mut at = tag as usize & mask;
        loop {
            let place = *self.places.get(at)?;
            if place == 0 {
                return None;
            }
            if tag_of(place) == tag && holds(slot_of(place)) {
                return Some(slot_of(place));
            }
            at = (at + 1) & mask;
        }
    }

    /// The same for the flow of a packet. No flow is found that was taken out since.
    #[inline(always)]
    pub fn find_ends(&mut self, ends: Ends, holds: impl Fn(u32, Ends) -> bool) -> Option<u32> {
        let (newest, slot) = self.newest;
        if newest == ends {
            return Some(slot);
        }
        self.find_other(ends, holds)
    }

    /// The same of another flow than the newest.
    #[inline(never)]
    fn find_other(&mut self, ends: Ends, holds: impl Fn(u32, Ends) -> bool) -> Option<u32> {
        let slot = self.find_tag(self.tag_of_ends(ends), |slot| holds(slot, ends))?;
        self.newest = (ends, slot);
        Some(slot)
    }

    /// Enters a flow, which is not in the table.
    pub fn insert(&mut self, flow: &FlowKey, slot: u32) {
        if (self.used + 1) * 2 > self.places.len() {
            let doubled = vec![0; self.places.len() * 2];
            let old = std::mem::replace(&mut self.places, doubled);
            old.into_iter().filter(|&place| place != 0).for_each(|place| self.put(place));
        }
        self.put(pack(self.tag(flow), slot));
        self.used += 1;
    }

    fn put(&mut self, place: u64) {
        let mask = self.places.len() - 1;
        let mut at = tag_of(place) as usize & mask;
        // At most half of the places are taken, so there is a free one.
        while self.places[at] != 0 {
            at = (at + 1) & mask;
        }
        self.places[at] = place;
    }

    /// Takes a flow out; nothing happens if it is not there.
    pub fn remove(&mut self, flow: &FlowKey, slot: u32) {
        self.newest.0 = Ends::NONE;
        let wanted = pack(self.tag(flow), slot);
        let mask = self.places.len() - 1;
        let mut hole = tag_of(wanted) as usize & mask;
        while self.places[hole] != wanted {
            if self.places[hole] == 0 {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.used -= 1;
        // What follows moves up, unless it would come before its own first choice.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place == 0 {
                break;
            }
            let home = tag_of(place) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn ends(n: u8) -> Ends {
        Ends::of_packet([10, 0, 0, 2, 10, 0, 0, 1], [0, n, 0, 80])
    }

    fn flow(n: u8) -> FlowKey {
        FlowKey::tcp(([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], n.into()).into())
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((any::<u8>(), any::<bool>()), 1..600)) {
            let mut demux = Demux::new();
            let mut model: HashMap<u8, u32> = HashMap::new();
            // Slot n holds flow `held[n]`.
            let mut held: Vec<u8> = Vec::new();
            for (n, add) in steps {
                let found = demux.find(&flow(n), |slot| held[slot as usize] == n);
                prop_assert_eq!(found, model.get(&n).copied());
                // Twice: the second time it is the newest.
                for _ in 0..2 {
                    let by_packet = demux.find_ends(ends(n), |slot, ends| ends.are_of(&flow(held[slot as usize])));
                    prop_assert_eq!(by_packet, found);
                }
                match found {
                    Some(slot) if !add => {
                        demux.remove(&flow(n), slot);
                        model.remove(&n);
                    }
                    None if add => {
                        let slot = held.len() as u32;
                        held.push(n);
                        demux.insert(&flow(n), slot);
                        model.insert(n, slot);
                    }
                    _ => (),
                }
                prop_assert_eq!(demux.used, model.len());
            }
            for (&n, &slot) in &model {
                prop_assert_eq!(demux.find(&flow(n), |slot| held[slot as usize] == n), Some(slot));
            }
        }
    }

    #[test]
    fn flows_spread_over_the_table() {
        let mut demux = Demux::new();
        let count = 10_000u32;
        for n in 0..count {
            let [_, _, high, low] = n.to_be_bytes();
            demux.insert(&FlowKey { remote_port: [high, low], ..FlowKey::default() }, n);
        }
        let mask = demux.places.len() - 1;
        let far = demux.places.iter().enumerate().filter(|(_, place)| **place != 0);
        let total: usize = far.map(|(at, &place)| at.wrapping_sub(tag_of(place) as usize) & mask).sum();
        assert!(total < count as usize, "{total} steps for {count} flows");
    }
}
