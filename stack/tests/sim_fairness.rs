//! Two connections that share a bottleneck.

use underpass_stack::tcp::{Algorithm, Instant};
use underpass_stack::testkit::{A, B, Host, Link, LinkSpec, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// 40 Mbit/s, 20 ms there and back, a queue of a round trip.
const PATH: LinkSpec = LinkSpec { delay: 10 * MS, rate: 40_000_000, queue: 100_000, ..LinkSpec::CLEAN };

/// Several connections over one link; each frame ends with the number of its connection.
struct Shared {
    now: Instant,
    flows: Vec<[Host; 2]>,
    links: [Link; 2],
    received: Vec<u64>,
    /// When each begins to send.
    begin: Vec<Instant>,
}

impl Shared {
    fn new(flows: &[(Algorithm, u64)], seed: u64) -> Self {
        let now = Instant(SECOND);
        let hosts = |congestion| {
            let setup = Setup { ring: 1 << 20, wscale: 8, congestion, ..Setup::default() };
            [A, B].map(|side| Host::new(&setup, side, now))
        };
        Self {
            now,
            flows: flows.iter().map(|(algorithm, _)| hosts(*algorithm)).collect(),
            links: [A, B].map(|side| Link::new(PATH, 2 * seed + side as u64)),
            received: vec![0; flows.len()],
            begin: flows.iter().map(|(_, begin)| now.after(*begin)).collect(),
        }
    }

    fn work(&mut self) {
        let data = [7; 1 << 15];
        for (number, flow) in self.flows.iter_mut().enumerate() {
            if self.begin[number] <= self.now {
                while flow[A].connection().send(self.now, &data, false) == data.len() {}
            }
            self.received[number] += flow[B].connection().discard(usize::MAX) as u64;
            for side in [A, B] {
                while let Some((_, mut frame)) = flow[side].frame_out(self.now) {
                    frame.push(number as u8);
                    self.links[side].send(self.now, frame);
                }
            }
        }
    }

    fn step(&mut self) {
        self.work();
        let arrivals = self.links.iter().filter_map(Link::next_arrival);
        let timers = self.flows.iter().flatten().filter_map(|host| host.tcb.deadline());
        let begins = self.begin.iter().copied().filter(|at| *at > self.now);
        self.now = arrivals.chain(timers).chain(begins).min().expect("something goes on").max(self.now);
        for side in [A, B] {
            while let Some(mut frame) = self.links[side].receive(self.now) {
                let number = frame.pop().expect("a number") as usize;
                self.flows[number][1 - side].frame_in(self.now, &frame);
            }
        }
        self.flows.iter_mut().flatten().for_each(|host| host.timers(self.now));
    }

    /// Lets time pass; bytes that each connection's receiver got meanwhile.
    fn pass(&mut self, nanos: u64) -> Vec<f64> {
        let (end, before) = (self.now.after(nanos), self.received.clone());
        while self.now < end {
            self.step();
        }
        self.received.iter().zip(before).map(|(after, before)| (after - before) as f64).collect()
    }
}

/// Jain's index: 1 if all have the same, 1/n if one has everything.
fn fairness(shares: &[f64]) -> f64 {
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    sum * sum / (shares.len() as f64 * squares)
}

/// Shares of the second minute, of flows one of which begins late.
fn shares(flows: &[(Algorithm, u64)], seed: u64) -> Vec<f64> {
    let mut shared = Shared::new(flows, seed);
    shared.pass(30 * SECOND);
    let shares = shared.pass(60 * SECOND);
    let mbit: Vec<String> = shares.iter().map(|share| format!("{:.1}", share * 8.0 / 60.0 / 1e6)).collect();
    println!("{flows:?} seed {seed}: {} Mbit/s, fairness {:.3}", mbit.join(" + "), fairness(&shares));
    let used = shares.iter().sum::<f64>() * 8.0 / 60.0 / PATH.rate as f64;
    assert!(used > 0.85, "{used} of the link");
    shares
}

#[test]
fn two_of_a_kind_share_evenly_although_one_was_there_first() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno] {
        let index = (0..3).map(|seed| fairness(&shares(&[(algorithm, 0), (algorithm, 5 * SECOND)], seed)));
        let mean = index.sum::<f64>() / 3.0;
        assert!(mean > 0.9, "{algorithm:?}: {mean}");
    }
}

#[test]
fn four_share_evenly() {
    let flows = [0, 1, 2, 3].map(|begin| (Algorithm::Cubic, begin * SECOND));
    let index = fairness(&shares(&flows, 1));
    assert!(index > 0.85, "{index}");
}

/// On short paths CUBIC is to be no more aggressive than Reno (RFC 9438, section 4.3).
#[test]
fn cubic_leaves_reno_its_share() {
    let shares = shares(&[(Algorithm::Cubic, 0), (Algorithm::Reno, SECOND)], 1);
    assert!(shares[1] > 0.3 * shares[0], "{shares:?}");
}
