//! Several connections through one bottleneck.

use super::host::{Host, Setup};
use super::link::{Link, LinkSpec};
use super::pair::{A, B};
use crate::tcp::Instant;

/// When simulations begin; zero would mean "never".
const START: Instant = Instant(1_000_000_000);
/// Segments that one host may send at one point in time; more would be an endless loop.
const BURST_MAX: usize = 100_000;

/// One connection of several.
#[derive(Debug)]
pub struct Flow {
    /// Both ends.
    pub hosts: [Host; 2],
    /// When it begins to send.
    pub starts: Instant,
    /// Bytes that B has received.
    pub received: u64,
    /// Is the time in which A may send over?
    pub stopped: bool,
}

/// Connections whose frames share a link there and a link back. Each A sends whenever it can, each B reads at once.
#[derive(Debug)]
pub struct Shared {
    /// The time.
    pub now: Instant,
    /// The connections.
    pub flows: Vec<Flow>,
    /// There and back.
    pub links: [Link; 2],
    chunk: Vec<u8>,
}

impl Shared {
    /// A connection for each setup; the next begins `apart` ns after the one before. The way back has the same delay and no limits.
    pub fn new(setups: &[Setup], apart: u64, link: LinkSpec, seed: u64) -> Self {
        let flow = |(n, setup): (usize, &Setup)| Flow {
            hosts: [A, B].map(|side| Host::new(setup, side, START)),
            starts: START.after(n as u64 * apart),
            received: 0,
            stopped: false,
        };
        let back = LinkSpec { delay: link.delay, ..LinkSpec::CLEAN };
        let links = [Link::new(link, seed), Link::new(back, seed ^ 1)];
        Self { now: START, flows: setups.iter().enumerate().map(flow).collect(), links, chunk: vec![7; 1 << 16] }
    }

    /// Lets `nanos` pass.
    pub fn run(&mut self, nanos: u64) {
        let end = self.now.after(nanos);
        loop {
            self.work();
            match self.next_event() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            self.deliver();
        }
        self.now = end;
    }

    /// Programs write and read, engines send. A frame says behind its packet, where Ethernet pads, whose it is.
    fn work(&mut self) {
        for (n, flow) in self.flows.iter_mut().enumerate() {
            if flow.starts <= self.now && !flow.stopped {
                while flow.hosts[A].connection().send(self.now, &self.chunk, false) == self.chunk.len() {}
            }
            flow.received += flow.hosts[B].connection().discard(usize::MAX) as u64;
            for (host, link) in flow.hosts.iter_mut().zip(&mut self.links) {
                for sent in 0.. {
                    let Some((_, mut frame)) = host.frame_out(self.now) else { break };
                    frame.push(n as u8);
                    link.send(self.now, frame);
                    assert!(sent < BURST_MAX, "a host sends without end");
                }
            }
        }
    }

    fn next_event(&self) -> Option<Instant> {
        let arrivals = self.links.iter().filter_map(Link::next_arrival);
        let timers = self.flows.iter().flat_map(|flow| flow.hosts.iter().filter_map(|host| host.tcb.deadline()));
        let starts = self.flows.iter().map(|flow| flow.starts).filter(|at| *at > self.now);
        arrivals.chain(timers).chain(starts).min()
    }

    fn deliver(&mut self) {
        for side in [A, B] {
            while let Some(mut frame) = self.links[1 - side].receive(self.now) {
                let tag = frame.pop().map_or(0, usize::from);
                if let Some(flow) = self.flows.get_mut(tag) {
                    flow.hosts[side].frame_in(self.now, &frame);
                }
            }
        }
        for host in self.flows.iter_mut().flat_map(|flow| &mut flow.hosts) {
            host.timers(self.now);
        }
    }

    /// Megabits a second of each connection in `nanos`, which pass.
    pub fn rates(&mut self, nanos: u64) -> Vec<f64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.received).collect();
        self.run(nanos);
        let arrived = self.flows.iter().zip(before).map(|(flow, before)| flow.received - before);
        arrived.map(|bytes| bytes as f64 * 8_000.0 / nanos as f64).collect()
    }
}

/// Jain's index of fairness: 1 where all have the same, 1/n where one has all.
pub fn fairness(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    sum * sum / (squares * rates.len() as f64)
}
