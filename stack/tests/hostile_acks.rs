//! Acknowledgements that no honest peer sends: of what was never sent, of pieces, of the past, taken back. What the engine remembers and
//! what one acknowledgement brings about stay bounded, nothing panics (the engine's assertions say whether its records still agree with
//! its numbers), and an honest peer can go on.

use proptest::prelude::*;
use underpass_stack::tcp::image::flag;
use underpass_stack::tcp::segment::Timestamps;
use underpass_stack::tcp::{Codepoint, Flags, Segment, SeqNr};
use underpass_stack::testkit::random::Random;
use underpass_stack::testkit::{A, LinkSpec, Pair, Setup};

const SECOND: u64 = 1_000_000_000;
/// Bytes of each ring.
const RING: usize = 1 << 18;

/// A sender whose peer the test plays.
struct Victim {
    pair: Pair,
    random: Random,
    peer: u32,
}

impl Victim {
    fn new(flags: u32, seed: u64) -> Self {
        Self::with_ring(flags, seed, RING)
    }

    fn with_ring(flags: u32, seed: u64, ring: usize) -> Self {
        let setup = Setup { flags, isn: [u32::MAX - 100_000, 77], ring, ..Setup::default() };
        Self { pair: Pair::new(&setup, LinkSpec::default(), seed), random: Random::new(seed), peer: 77 }
    }

    /// Sends what it may; what goes out falls into nothing.
    fn flush(&mut self) -> u32 {
        let now = self.pair.now;
        let mut sent = 0;
        while let Some((segment, _)) = self.pair.hosts[A].frame_out(now) {
            sent += segment.len;
        }
        sent
    }

    fn hear(&mut self, ack: u32, blocks: &[(u32, u32)], window: u16) {
        let sack: Vec<u8> = blocks.iter().flat_map(|(s, e)| [s.to_be_bytes(), e.to_be_bytes()]).flatten().collect();
        let (now, host) = (self.pair.now, &mut self.pair.hosts[A]);
        let echo =
            (self.random.below(4) != 0).then(|| host.export(now).0.ts_val.wrapping_sub(self.random.below(300) as u32));
        let segment = Segment {
            seq: SeqNr(self.peer),
            ack: SeqNr(ack),
            flags: Flags::ACK,
            window,
            ecn: Codepoint::NotEct,
            timestamps: echo.map(|ecr| Timestamps { val: 1, ecr }),
            sack: &sack,
            payload: &[],
        };
        host.connection().on_segment(now, &segment);
        host.assert_bounded();
    }

    fn numbers(&self) -> (u32, u32) {
        let (image, ..) = self.pair.hosts[A].export(self.pair.now);
        (image.snd_una, image.snd_nxt)
    }

    /// A number at or near what is in flight.
    fn near(&mut self) -> u32 {
        let (una, nxt) = self.numbers();
        let span = u64::from(nxt.wrapping_sub(una)) + 3000;
        una.wrapping_sub(1500).wrapping_add(self.random.below(span) as u32)
    }

    fn step(&mut self) {
        let now = self.pair.now;
        let data = vec![5; 1 + self.random.below(20_000) as usize];
        self.pair.hosts[A].connection().send(now, &data, false);
        self.flush();
        let (una, _) = self.numbers();
        let ack = if self.random.below(3) == 0 { self.near() } else { una };
        let blocks: Vec<_> = (0..self.random.below(5))
            .map(|_| {
                let start = self.near();
                (start, start.wrapping_add(1 + self.random.below(3000) as u32))
            })
            .collect();
        let window = [0, 1, 300, 2000][self.random.below(4) as usize];
        self.hear(ack, &blocks, window);
        let sent = self.flush();
        // All that may be in flight, once.
        assert!(sent as usize <= RING, "one acknowledgement brought {sent} bytes about");
        self.pair.now = now.after(self.random.below(60) * SECOND / 1000);
        self.pair.hosts[A].timers(self.pair.now);
        self.flush();
    }

    /// From now on the peer acknowledges all that is sent.
    fn heal(&mut self) {
        for _ in 0..2000 {
            let (una, nxt) = self.numbers();
            if una == nxt && self.pair.hosts[A].tcb.unsent() == 0 {
                return;
            }
            self.hear(nxt, &[], 2000);
            self.flush();
            self.pair.now = self.pair.now.after(SECOND / 10);
            self.pair.hosts[A].timers(self.pair.now);
            self.flush();
        }
        panic!("does not come to an end: {:?}", self.pair.hosts[A]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn leave_a_connection_that_works(seed: u64, kind in 0usize..3) {
        let flags = [flag::SACK | flag::WSCALE | flag::TIMESTAMPS, flag::SACK | flag::WSCALE, flag::WSCALE][kind];
        let mut victim = Victim::new(flags, seed);
        for _ in 0..150 {
            victim.step();
        }
        victim.heal();
    }
}

/// A large flight may have more records, those of its end as well; when the rest is acknowledged, the next thing sent brings them back to
/// what a small one may have.
#[test]
fn records_shrink_with_the_flight() {
    let mut victim = Victim::with_ring(flag::SACK | flag::WSCALE, 5, 1 << 22);
    let data = vec![1; 1 << 22];
    let (mut una, mut nxt) = victim.numbers();
    while nxt.wrapping_sub(una) < 2 << 20 {
        victim.hear(nxt, &[], u16::MAX);
        let now = victim.pair.now;
        victim.pair.hosts[A].connection().send(now, &data, false);
        victim.flush();
        (una, nxt) = victim.numbers();
        victim.pair.now = now.after(SECOND / 10);
    }
    let tail = nxt.wrapping_sub(8192);
    for start in (1..8190).step_by(2).map(|at| tail.wrapping_add(at)) {
        victim.hear(una, &[(start, start.wrapping_add(1))], u16::MAX);
    }
    let most = victim.pair.hosts[A].sent_records();
    assert!(most > 2048, "{most} records");
    victim.hear(tail, &[], u16::MAX);
    let left = victim.pair.hosts[A].sent_records();
    assert!(left > 1024, "{left} records: nothing to shrink");
    victim.pair.now = victim.pair.now.after(SECOND);
    victim.pair.hosts[A].timers(victim.pair.now);
    assert!(victim.flush() > 0, "nothing was sent");
    let left = victim.pair.hosts[A].sent_records();
    assert!(left <= 1024, "{left} records");
    victim.heal();
}

/// One block a byte: as many pieces as there can be.
#[test]
fn a_flight_in_crumbs_is_repaired() {
    let mut victim = Victim::new(flag::SACK | flag::WSCALE, 3);
    let now = victim.pair.now;
    victim.pair.hosts[A].connection().send(now, &vec![1; 200_000], false);
    victim.flush();
    victim.pair.now = now.after(SECOND / 10);
    let (una, nxt) = victim.numbers();
    let mut most = 0;
    for at in (1..nxt.wrapping_sub(una) - 1).step_by(2) {
        let start = una.wrapping_add(at);
        victim.hear(una, &[(start, start.wrapping_add(1))], 2000);
        victim.flush();
        most = most.max(victim.pair.hosts[A].sent_records());
    }
    assert!(most > 1000, "{most} records: too few to say anything of their bound");
    // It takes all of it back (RFC 2018, section 8): the timeouts send everything again.
    let mut resent = 0;
    for _ in 0..20 {
        victim.pair.now = victim.pair.now.after(SECOND);
        victim.pair.hosts[A].timers(victim.pair.now);
        resent += victim.flush();
    }
    assert!(resent > 0);
    victim.heal();
}
