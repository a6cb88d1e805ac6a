//! Cursor arithmetic of a single-producer single-consumer ring, apart from where the ring lies.
//!
//! Cursors run freely through 2^32; an entry's index is the cursor masked by the ring's size, a power of two. Each side keeps
//! a private copy of both cursors and looks at the shared ones only when its copy says full or empty. What the other side has
//! written is a claim: more than `size` entries can never be outstanding, whatever its cursor says.

use std::sync::atomic::{AtomicU32, Ordering};

/// The producing side's view.
#[derive(Clone, Copy, Debug)]
pub struct ProducerCursor {
    /// Next entry to be written.
    next: u32,
    /// The consumer's cursor when last looked at.
    consumed: u32,
    size: u32,
}

impl ProducerCursor {
    /// Goes on where the shared cursors stand. `size` is a power of two.
    pub fn resume(producer: &AtomicU32, consumer: &AtomicU32, size: u32) -> Self {
        debug_assert!(size.is_power_of_two());
        Self { next: producer.load(Ordering::Relaxed), consumed: consumer.load(Ordering::Acquire), size }
    }

    /// Index of an entry that may be written now, or `None` if the ring is full. Not visible to the consumer before
    /// [`Self::publish`].
    #[inline]
    pub fn reserve(&mut self, consumer: &AtomicU32) -> Option<u32> {
        if self.next.wrapping_sub(self.consumed) >= self.size {
            self.consumed = consumer.load(Ordering::Acquire);
            if self.next.wrapping_sub(self.consumed) >= self.size {
                return None;
            }
        }
        let index = self.next & (self.size - 1);
        self.next = self.next.wrapping_add(1);
        Some(index)
    }

    /// The same where [`Self::has_room`] has just said that there is one; the index is not masked yet.
    #[inline]
    pub fn reserve_known(&mut self) -> u32 {
        let index = self.next;
        self.next = index.wrapping_add(1);
        index
    }

    /// Could an entry be reserved, going by where the consumer was when last looked at?
    #[inline]
    pub fn has_room(&self) -> bool {
        self.next.wrapping_sub(self.consumed) < self.size
    }

    /// Entries that the consumer had taken when last looked at, modulo 2^32.
    #[inline]
    pub fn taken(&self) -> u32 {
        self.consumed
    }

    /// How many entries, going by that?
    #[inline]
    pub fn room_known(&self) -> u32 {
        self.size.saturating_sub(self.next.wrapping_sub(self.consumed))
    }

    /// Entries that could be reserved now.
    #[inline]
    pub fn room(&mut self, consumer: &AtomicU32) -> u32 {
        self.size - self.outstanding(consumer)
    }

    /// Entries that the consumer has not yet taken, those not yet published included.
    #[inline]
    pub fn outstanding(&mut self, consumer: &AtomicU32) -> u32 {
        self.consumed = consumer.load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed).min(self.size)
    }

    /// Are there any?
    #[inline]
    pub fn is_ahead(&mut self, consumer: &AtomicU32) -> bool {
        self.consumed = consumer.load(Ordering::Acquire);
        self.next != self.consumed
    }

    /// Makes everything reserved so far visible to the consumer.
    #[inline]
    pub fn publish(&self, producer: &AtomicU32) {
        producer.store(self.next, Ordering::Release);
    }

    /// The same without the last `hidden`, which are no fewer than at the last time and what was reserved since.
    #[inline]
    pub fn publish_all_but(&self, producer: &AtomicU32, hidden: u32) {
        producer.store(self.next.wrapping_sub(hidden), Ordering::Release);
    }
}

/// The consuming side's view.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerCursor {
    /// Next entry to be read.
    next: u32,
    /// The producer's cursor when last looked at.
    produced: u32,
    size: u32,
}

impl ConsumerCursor {
    /// Goes on where the shared cursors stand. `size` is a power of two.
    pub fn resume(producer: &AtomicU32, consumer: &AtomicU32, size: u32) -> Self {
        debug_assert!(size.is_power_of_two());
        Self { next: consumer.load(Ordering::Relaxed), produced: producer.load(Ordering::Acquire), size }
    }

    /// Index of the next entry to be read, or `None` if the ring is empty. The producer may not reuse it before
    /// [`Self::release`].
    #[inline]
    pub fn take(&mut self, producer: &AtomicU32) -> Option<u32> {
        if self.available_cached() == 0 {
            self.produced = producer.load(Ordering::Acquire);
            if self.available_cached() == 0 {
                return None;
            }
        }
        let index = self.next & (self.size - 1);
        self.next = self.next.wrapping_add(1);
        Some(index)
    }

    /// The same where [`Self::available`] has just said that there is one; the index is not masked yet.
    #[inline]
    pub fn take_known(&mut self) -> u32 {
        let index = self.next;
        self.next = index.wrapping_add(1);
        index
    }

    /// Where [`Self::take_known`] would take from.
    #[inline]
    pub fn peek_known(&self) -> u32 {
        self.next
    }

    /// Entries that can be taken now.
    #[inline]
    pub fn available(&mut self, producer: &AtomicU32) -> u32 {
        self.produced = producer.load(Ordering::Acquire);
        self.available_cached()
    }

    /// Has the producer gone further than we have read?
    #[inline]
    pub fn is_behind(&self, producer: &AtomicU32) -> bool {
        producer.load(Ordering::Acquire) != self.next
    }

    /// A producer that claims more than a ring full has lost count: nothing of it can be trusted.
    #[inline]
    fn available_cached(&self) -> u32 {
        let claimed = self.produced.wrapping_sub(self.next);
        if claimed > self.size { 0 } else { claimed }
    }

    /// Gives everything taken so far back to the producer.
    #[inline]
    pub fn release(&self, consumer: &AtomicU32) {
        consumer.store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursors(start: u32) -> (AtomicU32, AtomicU32) {
        (AtomicU32::new(start), AtomicU32::new(start))
    }

    #[test]
    fn entries_arrive_once_and_in_order_across_the_wrap() {
        let (producer, consumer) = cursors(u32::MAX - 5);
        let mut write = ProducerCursor::resume(&producer, &consumer, 8);
        let mut read = ConsumerCursor::resume(&producer, &consumer, 8);
        let mut slots = [0u32; 8];
        let mut expected = 0;
        for value in 0..100 {
            slots[write.reserve(&consumer).unwrap() as usize] = value;
            write.publish(&producer);
            if value % 3 == 2 {
                while let Some(index) = read.take(&producer) {
                    assert_eq!(slots[index as usize], expected);
                    expected += 1;
                }
                read.release(&consumer);
            }
        }
        assert_eq!(expected, 99);
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_nor_reused_before_it_is_released() {
        let (producer, consumer) = cursors(0);
        let mut write = ProducerCursor::resume(&producer, &consumer, 4);
        let mut read = ConsumerCursor::resume(&producer, &consumer, 4);
        for _ in 0..4 {
            assert!(write.reserve(&consumer).is_some());
        }
        assert_eq!(write.reserve(&consumer), None);
        assert_eq!(read.take(&producer), None);
        write.publish(&producer);
        assert_eq!(read.available(&producer), 4);
        assert!(read.take(&producer).is_some());
        assert_eq!(write.reserve(&consumer), None);
        read.release(&consumer);
        assert_eq!(write.room(&consumer), 1);
        assert_eq!(write.reserve(&consumer), Some(0));
    }

    #[test]
    fn a_lying_cursor_yields_nothing() {
        let (producer, consumer) = cursors(10);
        let mut read = ConsumerCursor::resume(&producer, &consumer, 4);
        producer.store(10 + 5, Ordering::Release);
        assert_eq!(read.take(&producer), None);
        producer.store(9, Ordering::Release);
        assert_eq!(read.available(&producer), 0);
        let mut write = ProducerCursor::resume(&producer, &consumer, 4);
        consumer.store(producer.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        assert_eq!(write.outstanding(&consumer), 4);
        assert_eq!(write.reserve(&consumer), None);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Write(u8),
        Publish,
        Read(u8),
        Release,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u8..12).prop_map(Step::Write),
            Just(Step::Publish),
            (0u8..12).prop_map(Step::Read),
            Just(Step::Release),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a plain queue: what is written comes out once, in order, and only between publish and release limits.
        #[test]
        fn behaves_as_a_bounded_queue(start: u32, steps in steps()) {
            const SIZE: u32 = 8;
            let (producer, consumer) = cursors(start);
            let mut write = ProducerCursor::resume(&producer, &consumer, SIZE);
            let mut read = ConsumerCursor::resume(&producer, &consumer, SIZE);
            let mut slots = [0u64; SIZE as usize];
            // Positions in the stream of entries.
            let (mut written, mut published, mut taken, mut released) = (0u64, 0u64, 0u64, 0u64);
            for step in steps {
                match step {
                    Step::Write(times) => for _ in 0..times {
                        let index = write.reserve(&consumer);
                        prop_assert_eq!(index.is_some(), written - released < u64::from(SIZE));
                        let Some(index) = index else { break };
                        slots[index as usize] = written;
                        written += 1;
                    },
                    Step::Publish => {
                        write.publish(&producer);
                        published = written;
                    }
                    Step::Read(times) => for _ in 0..times {
                        let index = read.take(&producer);
                        prop_assert_eq!(index.is_some(), taken < published);
                        let Some(index) = index else { break };
                        prop_assert_eq!(slots[index as usize], taken);
                        taken += 1;
                    },
                    Step::Release => {
                        read.release(&consumer);
                        released = taken;
                    }
                }
                prop_assert_eq!(u64::from(read.available(&producer)), published - taken);
                prop_assert_eq!(u64::from(write.outstanding(&consumer)), written - released);
            }
        }
    }
}
