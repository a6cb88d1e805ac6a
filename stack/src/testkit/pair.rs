//! Two hosts, two links, one clock.

use super::host::{Host, Setup};
use super::link::{Link, LinkSpec};
use crate::tcp::{Instant, SegmentOut};

/// Index of the first host, and of the link that leaves it.
pub const A: usize = 0;
/// Index of the second.
pub const B: usize = 1;

/// When simulations begin; zero would mean "never".
const START: Instant = Instant(1_000_000_000);
/// Segments that one host may send at one point in time; more would be an endless loop.
const BURST_MAX: usize = 100_000;

/// A simulated connection.
#[derive(Debug)]
pub struct Pair {
    /// The time.
    pub now: Instant,
    /// Both ends.
    pub hosts: [Host; 2],
    /// The links that leave them.
    pub links: [Link; 2],
    /// Every segment sent: when, by whom, what. Kept only if asked for.
    pub log: Option<Vec<(Instant, usize, SegmentOut)>>,
}

impl Pair {
    /// A fresh connection.
    pub fn new(setup: &Setup, link: LinkSpec, seed: u64) -> Self {
        Self {
            now: START,
            hosts: [A, B].map(|side| Host::new(setup, side, START)),
            links: [A, B].map(|side| Link::new(link, seed.wrapping_mul(2).wrapping_add(side as u64))),
            log: None,
        }
    }

    /// Sends what both have to say now.
    pub fn flush(&mut self) {
        for side in [A, B] {
            self.flush_side(side);
        }
    }

    fn flush_side(&mut self, side: usize) {
        for _ in 0..BURST_MAX {
            let Some((segment, frame)) = self.hosts[side].frame_out(self.now) else { return };
            if let Some(log) = &mut self.log {
                log.push((self.now, side, segment));
            }
            self.links[side].send(self.now, frame);
        }
        panic!("host {side} sends without end");
    }

    /// Time of the next event.
    pub fn next_event(&self) -> Option<Instant> {
        let arrivals = self.links.iter().filter_map(Link::next_arrival);
        arrivals.chain(self.hosts.iter().filter_map(|host| host.tcb.deadline())).min()
    }

    /// Sends, moves the clock to the next event and handles it. False if nothing will happen any more.
    pub fn step(&mut self) -> bool {
        self.flush();
        let Some(at) = self.next_event() else { return false };
        self.now = self.now.max(at);
        for side in [A, B] {
            while let Some(frame) = self.links[1 - side].receive(self.now) {
                self.hosts[side].frame_in(self.now, &frame);
            }
            self.hosts[side].timers(self.now);
        }
        self.flush();
        true
    }

    /// Steps until `done` or until `nanos` have passed; says which.
    pub fn run(&mut self, nanos: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now.after(nanos);
        self.flush();
        loop {
            if done(self) {
                return true;
            }
            if self.next_event().is_none_or(|at| at > end) {
                self.now = end;
                return done(self);
            }
            self.step();
        }
    }

    /// Lets `nanos` pass.
    pub fn pass(&mut self, nanos: u64) {
        self.run(nanos, |_| false);
    }
}
