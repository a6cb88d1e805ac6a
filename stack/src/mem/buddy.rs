//! Places in the ring space: power-of-two blocks between the smallest and the largest ring.
//!
//! Only the owner allocates, so the lists live in its heap; a reader finds the blocks in the connection records.

use crate::arena::{MAX_RING, MIN_RING, RING_SPACE, RINGS_AT, RingRef};

const ORDERS: usize = (MAX_RING / MIN_RING).trailing_zeros() as usize + 1;

/// The free blocks, by order; order 0 is [`MIN_RING`].
#[derive(Debug, Default)]
pub struct Buddy {
    free: [Vec<usize>; ORDERS],
    /// Offset of the never-used rest, relative to the ring space.
    fresh: usize,
}

fn order_of(len: u32) -> Option<usize> {
    (len.is_power_of_two() && (MIN_RING..=MAX_RING).contains(&len)).then(|| (len / MIN_RING).trailing_zeros() as usize)
}

fn size_of_order(order: usize) -> usize {
    (MIN_RING as usize) << order
}

impl Buddy {
    /// A block of `len` bytes (a power of two from [`MIN_RING`] to [`MAX_RING`]); `None` when the space is used up.
    pub fn take(&mut self, len: u32) -> Option<RingRef> {
        let order = order_of(len)?;
        let offset = self.take_order(order)?;
        Some(RingRef { offset: (RINGS_AT + offset) as u64, len, pad: 0 })
    }

    fn take_order(&mut self, order: usize) -> Option<usize> {
        if let Some(offset) = self.free[order].pop() {
            return Some(offset);
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
        self.free[order].push(offset + size_of_order(order));
        Some(offset)
    }

    /// Gives a block back and joins it with its free neighbour.
    pub fn put(&mut self, ring: RingRef) {
        let Some(order) = order_of(ring.len) else { return };
        let Some(mut offset) = usize::try_from(ring.offset).ok().and_then(|at| at.checked_sub(RINGS_AT)) else {
            return;
        };
        let mut order = order;
        while order + 1 < ORDERS {
            let buddy = offset ^ size_of_order(order);
            let Some(at) = self.free[order].iter().position(|&o| o == buddy) else { break };
            self.free[order].swap_remove(at);
            offset = offset.min(buddy);
            order += 1;
        }
        self.free[order].push(offset);
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
                        prop_assert!(ring.offset + u64::from(ring.len) <= other.offset || other.offset + u64::from(other.len) <= ring.offset);
                    }
                    live.push(ring);
                } else if let Some(ring) = live.pop() {
                    buddy.put(ring);
                }
            }
            for ring in live.drain(..) {
                buddy.put(ring);
            }
            let whole = buddy.free[ORDERS - 1].len() * MAX_RING as usize;
            prop_assert_eq!(whole, buddy.fresh, "every block joined again");
        }
    }
}
