use super::*;
use crate::lane::shm::layout::{LINE_WORDS, line};
use crate::mem::Shared;

const CAPACITY: usize = 4096;

struct Pair {
    shared: Shared,
    sender: Sender,
    receiver: Receiver,
}

impl Pair {
    fn new() -> Self {
        let (shared, _) = Shared::create(c"ring-test", 4096 + CAPACITY).unwrap();
        Self { shared, sender: Sender::new(CAPACITY), receiver: Receiver::new(CAPACITY) }
    }

    fn words(&self, side: usize) -> &[Word] {
        self.shared.words(side * 128, LINE_WORDS)
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let ring = self.shared.bytes(4096, CAPACITY);
        let n = self.sender.push(self.shared.words(128, LINE_WORDS), &ring, bytes).unwrap();
        self.sender.publish(self.shared.words(0, LINE_WORDS));
        n
    }

    fn receive(&mut self, max: usize) -> Vec<u8> {
        let n = self.receiver.available(self.words(0)).unwrap().min(max);
        let mut out = vec![0; n];
        self.receiver.peek(self.words(0), &self.shared.bytes(4096, CAPACITY), 0, &mut out);
        self.receiver.consume(self.shared.words(128, LINE_WORDS), n);
        out
    }
}

#[test]
fn bytes_come_out_in_order_whatever_the_pieces() {
    let mut pair = Pair::new();
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let mut random = 12345u32;
    let mut next = |limit: usize| {
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (random >> 8) as usize % limit
    };
    for round in 0..20_000u32 {
        let piece: Vec<u8> = (0..next(1500)).map(|n| (n as u32).wrapping_mul(round) as u8).collect();
        let n = pair.send(&piece);
        sent.extend_from_slice(&piece[..n]);
        got.extend(pair.receive(next(2000)));
    }
    got.extend(pair.receive(usize::MAX));
    assert_eq!(got, sent);
}

#[test]
fn a_conversation_stays_at_the_start_of_the_ring() {
    let mut pair = Pair::new();
    for n in 0..1000 {
        assert_eq!(pair.send(&[n as u8; 64]), 64);
        assert_eq!(pair.receive(64), [n as u8; 64]);
    }
    let mut beyond = vec![0; CAPACITY - 64];
    pair.shared.bytes(4096, CAPACITY).read(64, &mut beyond);
    assert!(beyond.iter().all(|&byte| byte == 0));
}

#[test]
fn a_full_ring_takes_no_more_and_goes_on_later() {
    let mut pair = Pair::new();
    assert_eq!(pair.send(&[1; CAPACITY + 1]), CAPACITY);
    assert_eq!(pair.send(&[2]), 0);
    assert_eq!(pair.receive(10).len(), 10);
    assert_eq!(pair.send(&[2; 20]), 10);
    assert_eq!(pair.receive(CAPACITY)[CAPACITY - 11..], [&[1][..], &[2; 10]].concat());
}

#[test]
fn what_was_not_taken_can_be_taken_back() {
    let mut pair = Pair::new();
    pair.send(&[9; 3000]);
    pair.receive(2990);
    pair.send(&[7; 2000]);
    let mut back = vec![0; 4096];
    let n = pair.sender.take_back(&pair.shared.bytes(4096, CAPACITY), pair.receiver.head(), &mut back);
    assert_eq!(back[..n], [&[9; 10][..], &[7; 2000]].concat());
}

#[test]
fn impossible_positions_are_found_out() {
    let mut pair = Pair::new();
    pair.send(&[1; 100]);
    for claim in [101u64, 1 << 63, 1 << 40] {
        pair.words(1)[line::HEAD].store(claim, Relaxed);
        assert_eq!(pair.sender.space(pair.words(1)), Err(Corrupt), "head {claim}");
    }
    for claim in [CAPACITY as u64 + 1, u64::MAX] {
        pair.words(0)[line::TAIL].store(claim, Relaxed);
        assert_eq!(pair.receiver.available(pair.words(0)), Err(Corrupt), "tail {claim}");
    }
    // A base that is anything at all moves where bytes are read, but never out of the ring.
    pair.words(0)[line::TAIL].store(CAPACITY as u64, Relaxed);
    for base in [1, 4095, 4096, u64::MAX, 0x1234_5678_9abc_def0] {
        pair.words(0)[line::BASE].store(base, Relaxed);
        let mut out = vec![0; CAPACITY];
        pair.receiver.peek(pair.words(0), &pair.shared.bytes(4096, CAPACITY), 0, &mut out);
    }
}
