//! Byte streams through a simulated connection, checked byte by byte.

use super::pair::{A, B, Pair};
use super::random::Random;

/// Byte `offset` of the stream that `side` sends.
fn byte(side: usize, offset: u64) -> u8 {
    let mixed = (offset ^ ((side as u64) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as u8
}

/// What both programs have sent and received.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Bytes that each shall send.
    pub goal: [u64; 2],
    /// Bytes that each has handed to its engine.
    pub sent: [u64; 2],
    /// Bytes that each has read.
    pub received: [u64; 2],
    /// Bytes of one read or write at most.
    pub chunk: u64,
    /// Whether each closes when it has sent all.
    pub close: [bool; 2],
    /// Whether each reads at all.
    pub reads: [bool; 2],
    random: Random,
}

impl Traffic {
    /// Traffic of `goal` bytes in each direction.
    pub fn new(goal: [u64; 2], chunk: u64, seed: u64) -> Self {
        Self {
            goal,
            sent: [0; 2],
            received: [0; 2],
            chunk,
            close: [false; 2],
            reads: [true; 2],
            random: Random::new(seed ^ 0xabcd),
        }
    }

    /// Both programs read and write what they can.
    pub fn work(&mut self, pair: &mut Pair) {
        for side in [A, B] {
            self.write(pair, side);
            if self.reads[side] {
                self.read(pair, side);
            }
        }
        pair.flush();
    }

    fn write(&mut self, pair: &mut Pair, side: usize) {
        while self.sent[side] < self.goal[side] {
            let len = (self.goal[side] - self.sent[side]).min(1 + self.random.below(self.chunk));
            let data: Vec<u8> = (0..len).map(|i| byte(side, self.sent[side] + i)).collect();
            let taken = pair.hosts[side].connection().send(pair.now, &data, false);
            self.sent[side] += taken as u64;
            if taken < data.len() {
                return;
            }
        }
        if self.close[side] {
            pair.hosts[side].connection().shutdown_write(pair.now);
        }
    }

    fn read(&mut self, pair: &mut Pair, side: usize) {
        loop {
            let mut data = vec![0; 1 + self.random.below(self.chunk) as usize];
            let len = pair.hosts[side].connection().recv(&mut data);
            if len == 0 {
                return;
            }
            for (i, got) in data[..len].iter().enumerate() {
                let offset = self.received[side] + i as u64;
                assert_eq!(*got, byte(1 - side, offset), "byte {offset} of the stream to {side}");
            }
            self.received[side] += len as u64;
            assert!(self.received[side] <= self.sent[1 - side], "bytes that were never sent");
        }
    }

    /// Has everything arrived?
    pub fn is_done(&self) -> bool {
        self.received[A] == self.goal[B] && self.received[B] == self.goal[A]
    }

    /// Runs until everything has arrived; `after_step` may interfere. Panics if it takes longer than `nanos`.
    pub fn run(&mut self, pair: &mut Pair, nanos: u64, mut after_step: impl FnMut(&mut Pair)) -> u64 {
        let start = pair.now;
        let done = pair.run(nanos, |pair| {
            after_step(pair);
            self.work(pair);
            self.is_done()
        });
        assert!(done, "stuck at {self:?}: {:?} {:?}", pair.hosts[A].tcb, pair.hosts[B].tcb);
        pair.now.nanos_since(start)
    }
}
