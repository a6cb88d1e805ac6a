//! One direction of a bad link.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use zerocopy::{FromBytes, IntoBytes};

use super::random::Random;
use crate::tcp::{Codepoint, Instant};
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4};

/// How bad a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// Delay of every frame, ns.
    pub delay: u64,
    /// Frames lost, per mille.
    pub loss: u64,
    /// Frames that arrive twice, per mille.
    pub duplication: u64,
    /// Frames held back so that later ones overtake them, per mille.
    pub reordering: u64,
    /// How much longer these take at most, ns.
    pub jitter: u64,
    /// Frames in which a byte is changed, per mille.
    pub corruption: u64,
    /// Frames lost beside these, per million.
    pub rare_loss: u64,
    /// Bits that pass in a second; 0: any number.
    pub rate: u64,
    /// Bytes that may wait for their turn when the rate is limited; frames that find no room are lost.
    pub queue: u64,
    /// Frames with which a burst of losses begins, per million (Gilbert's model).
    pub bursts: u64,
    /// Frames that a burst takes on average.
    pub burst_len: u64,
    /// Frames lost beside these that can be no more than a bare acknowledgement, per mille.
    pub ack_loss: u64,
    /// Longest frame that passes, bytes; longer ones vanish (a black hole of path-MTU discovery). 0: any.
    pub mtu: u64,
    /// From the beginning of one stall to that of the next, ns; 0: none.
    pub stall_every: u64,
    /// How long nothing arrives then, ns: what should have arrived does so at the end.
    pub stall_len: u64,
    /// Bytes waiting beyond which frames that allow it are marked (RFC 3168); 0: never.
    pub mark: u64,
}

/// Bytes of the longest frame without data: Ethernet, IPv4, and a TCP header full of options.
const BARE_MAX: usize = 14 + 20 + 60;

impl LinkSpec {
    /// A link that only delays.
    pub const CLEAN: Self = Self {
        delay: 50_000,
        loss: 0,
        duplication: 0,
        reordering: 0,
        jitter: 0,
        corruption: 0,
        rare_loss: 0,
        rate: 0,
        queue: 0,
        bursts: 0,
        burst_len: 0,
        ack_loss: 0,
        mtu: 0,
        stall_every: 0,
        stall_len: 0,
        mark: 0,
    };
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self::CLEAN
    }
}

/// A frame under way: arrival time first, then order of departure.
type Travelling = Reverse<(u64, u64, Vec<u8>)>;

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    /// How bad it is; may be changed at any time.
    pub spec: LinkSpec,
    random: Random,
    travelling: BinaryHeap<Travelling>,
    count: u64,
    /// When the last frame that was taken has left the queue, ns.
    free_at: u64,
    overflowed: u64,
    /// Is a burst of losses going on?
    in_burst: bool,
    marked: u64,
    /// How long frames have waited for their turn, ns, and how many have.
    waited: (u64, u64),
}

impl Link {
    /// An empty link.
    pub fn new(spec: LinkSpec, seed: u64) -> Self {
        let (random, travelling) = (Random::new(seed), BinaryHeap::new());
        let (free_at, overflowed, marked, waited) = (0, 0, 0, (0, 0));
        Self { spec, random, travelling, count: 0, free_at, overflowed, in_burst: false, marked, waited }
    }

    /// Frames offered so far.
    pub fn offered(&self) -> u64 {
        self.count
    }

    /// Frames lost because the queue was full.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Frames marked for congestion.
    pub fn marked(&self) -> u64 {
        self.marked
    }

    /// How long frames waited for their turn on average since the last call, ns.
    pub fn take_mean_wait(&mut self) -> u64 {
        let (sum, count) = std::mem::take(&mut self.waited);
        sum.checked_div(count).unwrap_or(0)
    }

    /// A frame leaves at `now`.
    pub fn send(&mut self, now: Instant, mut frame: Vec<u8>) {
        self.count += 1;
        if self.random.chance(self.spec.loss) || self.is_lost(frame.len()) {
            return;
        }
        if self.random.chance(self.spec.corruption) {
            let at = self.random.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << self.random.below(8);
        }
        if self.random.chance(self.spec.duplication) {
            self.launch(now, frame.clone());
        }
        self.launch(now, frame);
    }

    /// Is a frame of `len` bytes lost for one of the rarer reasons? Each asks for a number only if it is in use, so that the others'
    /// numbers stay the same.
    fn is_lost(&mut self, len: usize) -> bool {
        let spec = self.spec;
        if spec.rare_loss != 0 && self.random.below(1_000_000) < spec.rare_loss {
            return true;
        }
        if spec.ack_loss != 0 && len <= BARE_MAX && self.random.chance(spec.ack_loss) {
            return true;
        }
        self.is_in_burst() || (spec.mtu != 0 && len as u64 > spec.mtu)
    }

    /// The next step of Gilbert's model: in a burst everything is lost.
    fn is_in_burst(&mut self) -> bool {
        if self.in_burst {
            self.in_burst = self.random.below(self.spec.burst_len) != 0;
        } else if self.spec.bursts != 0 {
            self.in_burst = self.random.below(1_000_000) < self.spec.bursts;
        }
        self.in_burst
    }

    fn launch(&mut self, now: Instant, mut frame: Vec<u8>) {
        let Some(waiting) = self.queue(now, frame.len() as u64) else { return };
        let bytes = waiting.saturating_mul(self.spec.rate) / 8_000_000_000;
        self.waited = (self.waited.0 + waiting, self.waited.1 + 1);
        if self.spec.mark != 0 && bytes > self.spec.mark {
            self.marked += u64::from(mark(&mut frame));
        }
        let held = if self.random.chance(self.spec.reordering) { self.random.below(self.spec.jitter) } else { 0 };
        let order = self.travelling.len() as u64 + (self.count << 8);
        let at = self.after_stall(now.0 + waiting + self.spec.delay + held);
        self.travelling.push(Reverse((at, order, frame)));
    }

    /// When something arrives that should at `at`.
    fn after_stall(&self, at: u64) -> u64 {
        match at.checked_rem(self.spec.stall_every) {
            Some(into) if into < self.spec.stall_len => at - into + self.spec.stall_len,
            _ => at,
        }
    }

    /// How long `len` bytes take to leave, ns, behind those that wait already; `None` if there is no room.
    fn queue(&mut self, now: Instant, len: u64) -> Option<u64> {
        if self.spec.rate == 0 {
            return Some(0);
        }
        let nanos = |bytes: u64| bytes * 8_000_000_000 / self.spec.rate;
        let backlog = self.free_at.saturating_sub(now.0);
        if backlog + nanos(len) > nanos(self.spec.queue) {
            self.overflowed += 1;
            return None;
        }
        self.free_at = now.0 + backlog + nanos(len);
        Some(backlog + nanos(len))
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.travelling.peek().map(|Reverse((at, ..))| Instant(*at))
    }

    /// A frame that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        self.travelling.pop().map(|Reverse((.., frame))| frame)
    }

    /// Loses everything under way.
    pub fn cut(&mut self) {
        self.travelling.clear();
    }
}

/// Marks an IPv4 packet that allows it (RFC 3168, section 5), as a router does. True if it is marked now.
fn mark(frame: &mut [u8]) -> bool {
    let Ok((header, _)) = ipv4::Header::mut_from_prefix(frame.get_mut(ethernet::HEADER_LEN..).unwrap_or_default())
    else {
        return false;
    };
    if header.version_ihl >> 4 != 4 || Codepoint::of(header.tos) == Codepoint::NotEct {
        return false;
    }
    header.tos |= Codepoint::Ce as u8;
    header.checksum = [0; 2];
    header.checksum = Sum::default().plus(header.as_bytes()).checksum();
    true
}
