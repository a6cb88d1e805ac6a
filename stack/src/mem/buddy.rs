//! Places in the ring space: power-of-two blocks between the smallest and the largest ring.
//!
//! Only the owner allocates, so the lists live in its heap; a reader finds the blocks in the connection records.

use crate::arena::{MAX_RING, MIN_RING, RING_SPACE, RINGS_AT, RingRef};

const ORDERS: usize = (MAX_RING / MIN_RING).trailing_zeros() as usize + 1;

/// The free blocks, by order; order 0 is [`MIN_RING`].
#[derive(Debug, Default)]
pub struct Buddy {
    orders: [Blocks; ORDERS],
    /// Offset of the never-used rest, relative to the ring space.
    fresh: usize,
    /// Bytes handed out.
    taken: usize,
}

/// The free blocks of one order, by number.
#[derive(Debug, Default)]
struct Blocks {
    /// One bit a block: is it free?
    free: Vec<u64>,
    /// Every free block, the one freed last at the end; among them blocks that have been joined with a neighbour since.
    stack: Vec<u32>,
    /// Free blocks.
    count: usize,
}

impl Blocks {
    fn take(&mut self) -> Option<usize> {
        loop {
            let number = self.stack.pop()? as usize;
            if self.withdraw(number) {
                return Some(number);
            }
        }
    }

    fn put(&mut self, number: usize) {
        if number / 64 >= self.free.len() {
            self.free.resize(number / 64 + 1, 0);
        }
        let bit = 1 << (number % 64);
        if self.free[number / 64] & bit != 0 {
            return;
        }
        self.free[number / 64] |= bit;
        self.count += 1;
        self.stack.push(number as u32);
        if self.stack.len() > 2 * self.count + 64 {
            self.tidy();
        }
    }

    /// Takes this block if it is free.
    fn withdraw(&mut self, number: usize) -> bool {
        let bit = 1 << (number % 64);
        let Some(word) = self.free.get_mut(number / 64).filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        self.count -= 1;
        true
    }

    /// Leaves each free block on the stack once.
    fn tidy(&mut self) {
        self.stack.sort_unstable();
        self.stack.dedup();
        let free = &self.free;
        self.stack.retain(|&number| free[number as usize / 64] >> (number % 64) & 1 == 1);
    }
}

fn order_of(len: u32) -> Option<usize> {
    (len.is_power_of_two() && (MIN_RING..=MAX_RING).contains(&len)).then(|| (len / MIN_RING).trailing_zeros() as usize)
}

fn size_of_order(order: usize) -> usize {
    (MIN_RING as usize) << order
}

impl Buddy {
    /// How large a ring to take where `wanted` bytes would be right, so that the space does for many: that much while half of the
    /// space is free, half of it while a quarter is, then the smallest.
    pub fn advise(&self, wanted: u32) -> u32 {
        let free = RING_SPACE - self.taken.min(RING_SPACE);
        match free {
            _ if free > RING_SPACE / 2 => wanted,
            _ if free > RING_SPACE / 4 => (wanted / 2).max(MIN_RING),
            _ => MIN_RING,
        }
    }

    /// A block of `len` bytes (a power of two from [`MIN_RING`] to [`MAX_RING`]); `None` when the space is used up.
    pub fn take(&mut self, len: u32) -> Option<RingRef> {
        let order = order_of(len)?;
        let offset = self.take_order(order)?;
        self.taken += len as usize;
        Some(RingRef::at(RINGS_AT + offset, len as usize))
    }

    fn take_order(&mut self, order: usize) -> Option<usize> {
        if let Some(number) = self.orders[order].take() {
            return Some(number * size_of_order(order));
        }
        if order + 1 == ORDERS {
            let offset = self.fresh;
            let end = offset + size_of_order(order);
            return (end <= RING_SPACE).then(|| {
                self.fresh = end;
                offset
            });
        }
        let offset = self.take_order(order + 1)?;
        self.orders[order].put(offset / size_of_order(order) + 1);
        Some(offset)
    }

    /// Gives a block back and joins it with its free neighbour.
    pub fn put(&mut self, ring: RingRef) {
        let Some(mut order) = order_of(ring.len) else { return };
        let Some(offset) = ring.offset().checked_sub(RINGS_AT) else {
            return;
        };
        self.taken = self.taken.saturating_sub(ring.len as usize);
        let mut number = offset / size_of_order(order);
        while order + 1 < ORDERS && self.orders[order].withdraw(number ^ 1) {
            number /= 2;
            order += 1;
        }
        self.orders[order].put(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_never_overlap_and_come_back_whole(ops in proptest::collection::vec((0u32..8, any::<bool>()), 1..200)) {
            let mut buddy = Buddy::default();
            let mut live: Vec<RingRef> = Vec::new();
            for (order, take) in ops {
                if take {
                    let ring = buddy.take(MIN_RING << order).unwrap();
                    prop_assert!(ring.range().is_some());
                    for other in &live {
                        prop_assert!(ring.offset() + ring.len as usize <= other.offset() || other.offset() + other.len as usize <= ring.offset());
                    }
                    live.push(ring);
                } else if let Some(ring) = live.pop() {
                    buddy.put(ring);
                }
            }
            for ring in live.drain(..) {
                buddy.put(ring);
            }
            prop_assert_eq!(buddy.taken, 0);
            let whole = buddy.orders[ORDERS - 1].count * MAX_RING as usize;
            prop_assert_eq!(whole, buddy.fresh, "every block joined again");
            for blocks in &buddy.orders {
                prop_assert!(blocks.stack.len() <= 2 * blocks.count + 64, "forgotten blocks pile up");
            }
        }
    }
}
