//! Very many pieces beyond gaps: more than a record has room for. They become a stream, and go along when the connection does.

use underpass_stack::arena::{ConnRecord, MIN_RING, PiecesRef};
use underpass_stack::mem::ring;
use underpass_stack::tcp::ahead::MAX_PIECES;
use underpass_stack::tcp::segment::SackBlocks;
use underpass_stack::tcp::{Flags, Instant, SeqNr};
use underpass_stack::testkit::Crowd;

const RING: u32 = 64 << 10;
const PIECE: u32 = 20;
/// From the beginning of one piece to that of the next.
const STEP: u32 = 50;
/// One for each gap before a piece.
const PIECES: u32 = 1000;

fn byte(at: u32) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn bytes(at: u32, len: u32) -> Vec<u8> {
    (at..at + len).map(byte).collect()
}

struct Play {
    crowd: Crowd,
    now: Instant,
    frame: Vec<u8>,
    /// The peer's first sequence number.
    start: u32,
}

impl Play {
    fn new() -> Self {
        let now = Instant(1_000_000_000);
        let crowd = Crowd::new(1, RING, now).expect("room for a connection");
        let start = crowd.peers[0].seq;
        Self { crowd, now, frame: vec![0; 2048], start }
    }

    /// The bytes `[at, at + len)` of the stream arrive.
    fn arrive(&mut self, at: u32, len: u32) {
        self.crowd.peers[0].seq = self.start.wrapping_add(at);
        let len = self.crowd.peers[0].send(&mut self.frame, Flags::default(), &bytes(at, len));
        assert!(self.crowd.wire.stage(&self.frame[..len]));
        self.crowd.wire.show(1);
        self.now.0 += 100_000;
        self.crowd.stack.pass(self.now);
        self.crowd.stack.send_touched(self.now);
        self.crowd.wire.collect(|_| ());
    }

    /// All pieces, in an order of their own.
    fn scatter(&mut self) {
        (0..PIECES).for_each(|n| self.arrive(STEP - PIECE + n * 617 % PIECES * STEP, PIECE));
    }

    fn record(&self) -> ConnRecord {
        *self.crowd.stack.record(0).expect("a record")
    }

    /// What lies beyond gaps, found as the daemon finds it: where in the stream, and which bytes.
    fn found(&self) -> Vec<(u32, Vec<u8>)> {
        let (record, arena) = (self.record(), self.crowd.stack.arena());
        let beyond = record.beyond.range().and_then(|(offset, len)| arena.bytes(offset, len)).unwrap_or_default();
        let (offset, len) = record.rcv_ring.range().expect("a ring");
        let memory = arena.bytes(offset, len).expect("in the arena");
        let piece = |(start, end): (u32, u32)| {
            let mut bytes = vec![0; end.wrapping_sub(start) as usize];
            ring::read(memory, record.tcb.rcv_place(start), &mut bytes);
            (start.wrapping_sub(self.start), bytes)
        };
        record.tcb.ahead(record.rcv_ring.len, beyond).into_iter().map(piece).collect()
    }
}

#[test]
fn they_become_a_stream() {
    let mut play = Play::new();
    play.scatter();
    for n in (0..PIECES).rev() {
        play.arrive(n * STEP, STEP - PIECE);
    }
    let mut out = vec![0; RING as usize];
    let len = play.crowd.stack.recv(0, &mut out, None).expect("a live connection");
    assert!(out[..len] == bytes(0, PIECES * STEP), "{len} bytes");
}

#[test]
fn a_frozen_connection_shows_all_of_them_and_goes_on_with_them_when_it_is_thawed() {
    let mut play = Play::new();
    play.scatter();
    let expected: Vec<_> = (0..PIECES).map(|n| n * STEP + STEP - PIECE).map(|at| (at, bytes(at, PIECE))).collect();
    for _ in 0..2 {
        play.crowd.stack.freeze(0).expect("a live connection");
        assert!(play.found() == expected, "{} of {PIECES}", play.found().len());
        play.crowd.stack.thaw(0, play.now);
        assert_eq!(play.record().beyond, PiecesRef::default());
    }
    for n in 0..PIECES {
        play.arrive(n * STEP, STEP - PIECE);
    }
    let mut out = vec![0; RING as usize];
    let len = play.crowd.stack.recv(0, &mut out, None).expect("a live connection");
    assert!(out[..len] == bytes(0, PIECES * STEP), "{len} bytes");
    play.crowd.stack.freeze(0).expect("a live connection");
    assert_eq!((play.record().beyond, play.found().len()), (PiecesRef::default(), 0));
    play.crowd.stack.release(0);
}

/// What the peer has of our own data goes along, beside the pieces that have no room in the record.
#[test]
fn a_frozen_connection_shows_what_its_peer_has() {
    let mut play = Play::new();
    let ours = play.crowd.peers[0].ack;
    play.crowd.stack.send(0, play.now, &bytes(0, 9000), false).expect("a live connection");
    play.crowd.stack.send_touched(play.now);
    play.crowd.wire.collect(|_| ());
    play.scatter();
    let blocks = [[1460u32, 2920], [4380, 5840]].map(|block| block.map(|at| ours.wrapping_add(at)));
    let mut sack = SackBlocks::default();
    for [start, end] in blocks {
        assert!(sack.push(SeqNr(start), SeqNr(end)));
    }
    play.crowd.peers[0].seq = play.start;
    let len = play.crowd.peers[0].report(&mut play.frame, sack);
    assert!(play.crowd.wire.stage(&play.frame[..len]));
    play.crowd.wire.show(1);
    play.crowd.stack.pass(play.now);
    play.crowd.stack.freeze(0).expect("a live connection");
    let record = play.record();
    let (offset, len) = record.beyond.sacked_range().expect("a list");
    let memory = play.crowd.stack.arena().bytes(offset, len).expect("in the arena");
    let words: Vec<u32> = memory.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, blocks.concat());
    assert_eq!(play.found().len(), PIECES as usize);
}

#[test]
fn there_is_a_bound_and_what_is_beyond_it_comes_again() {
    let mut play = Play::new();
    let pieces = 2 * MAX_PIECES as u32;
    (0..pieces).for_each(|n| play.arrive(1 + 2 * n, 1));
    play.crowd.stack.freeze(0).expect("a live connection");
    assert_eq!(play.found().len(), MAX_PIECES);
    play.crowd.stack.thaw(0, play.now);
    for at in (0..2 * pieces).step_by(1024) {
        play.arrive(at, 1024);
    }
    let mut out = vec![0; RING as usize];
    let len = play.crowd.stack.recv(0, &mut out, None).expect("a live connection");
    assert!(out[..len] == bytes(0, 2 * pieces), "{len} bytes");
}

#[test]
fn a_claim_that_cannot_be_is_none() {
    let (begin, end) = (underpass_stack::arena::RINGS_AT, underpass_stack::arena::ARENA_LEN);
    let block = |offset: usize| (offset / MIN_RING as usize) as u32;
    let sound = PiecesRef { block: block(begin), count: 1024, sacked: 0 };
    assert_eq!(sound.range(), Some((begin, 8192)));
    assert_eq!(PiecesRef { sacked: 2, ..sound }.sacked_range(), Some((begin + 8192, 16)));
    for (block, count) in [(0, 1), (sound.block - 1, 1), (sound.block, 1025), (u32::MAX, 1), (block(end), 1)] {
        assert_eq!(PiecesRef { block, count, sacked: 0 }.range(), None, "{block} {count}");
        assert_eq!(PiecesRef { block, count: 0, sacked: count }.sacked_range(), None, "{block} {count}");
    }
}
