//! One direction of a bad link.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use zerocopy::{FromBytes, IntoBytes};

use super::random::Random;
use crate::ip::input;
use crate::tcp::{Codepoint, Instant};
use crate::wire::checksum::Sum;
use crate::wire::{ethernet, ipv4, ipv6};

/// Frames that leave further apart than this are in no burst together, ns.
const BURST_MAX: u64 = 5_000_000;

/// How bad a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// Delay of every frame, ns.
    pub delay: u64,
    /// Frames lost, per mille.
    pub loss: u64,
    /// How likely the frame after a lost one is lost too, per mille: losses come in bursts.
    pub burst: u64,
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
    /// Frames lost beside these that can be no more than a bare acknowledgement, per mille.
    pub ack_loss: u64,
    /// Longest frame that passes, bytes; longer ones vanish (a black hole of path-MTU discovery). 0: any.
    pub mtu: u64,
    /// From the beginning of one stall to that of the next, ns; 0: none.
    pub stall_every: u64,
    /// How long nothing arrives then, ns: what should have arrived does so at the end.
    pub stall_len: u64,
    /// Frames arrive at multiples of this only, ns, all that are due at once: a network card that gathers interrupts, a host that looks
    /// seldom. 0: each when it is due.
    pub coalesce: u64,
    /// Bytes waiting beyond which frames that allow it are marked (RFC 3168); 0: never.
    pub mark: u64,
    /// Frames marked beside these, whatever waits, per mille.
    pub marking: u64,
}

/// Bytes of the longest frame without data: Ethernet, IPv6, and a TCP header full of options.
const BARE_MAX: usize = 14 + 40 + 60;

impl LinkSpec {
    /// A link that only delays.
    pub const CLEAN: Self = Self {
        delay: 50_000,
        loss: 0,
        burst: 0,
        duplication: 0,
        reordering: 0,
        jitter: 0,
        corruption: 0,
        rare_loss: 0,
        rate: 0,
        queue: 0,
        ack_loss: 0,
        mtu: 0,
        stall_every: 0,
        stall_len: 0,
        coalesce: 0,
        mark: 0,
        marking: 0,
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
    lost: u64,
    /// When the last frame was lost, if the last frame was.
    lost_at: Option<Instant>,
    marked: u64,
    /// How long frames have waited for their turn, ns, and how many have.
    waited: (u64, u64),
}

impl Link {
    /// An empty link.
    pub fn new(spec: LinkSpec, seed: u64) -> Self {
        Self {
            spec,
            random: Random::new(seed),
            travelling: BinaryHeap::new(),
            count: 0,
            free_at: 0,
            overflowed: 0,
            lost: 0,
            lost_at: None,
            marked: 0,
            waited: (0, 0),
        }
    }

    /// Frames offered so far.
    pub fn offered(&self) -> u64 {
        self.count
    }

    /// Frames lost because the queue was full.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Frames lost by chance that were more than a bare acknowledgement.
    pub fn lost(&self) -> u64 {
        self.lost
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
        let in_burst = self.lost_at.is_some_and(|at| now.nanos_since(at) < BURST_MAX) && self.spec.burst != 0;
        let is_lost = (in_burst && self.random.chance(self.spec.burst))
            || self.random.chance(self.spec.loss)
            || (self.spec.rare_loss != 0 && self.random.below(1_000_000) < self.spec.rare_loss);
        self.lost_at = is_lost.then_some(now);
        if is_lost {
            self.lost += u64::from(frame.len() > BARE_MAX);
            return;
        }
        if self.is_filtered(frame.len()) {
            return;
        }
        if self.random.chance(self.spec.corruption) {
            let at = self.random.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << self.random.below(8);
            // One frame of 65,536 has by chance the checksum of those whose checksum is left to the network card. These are believed as they
            // are (see `ip::input`), so that an error in one proves nothing: it counts as a loss.
            if input::parse(&frame, usize::MAX).is_ok() {
                return;
            }
        }
        if self.random.chance(self.spec.duplication) {
            self.launch(now, frame.clone());
        }
        self.launch(now, frame);
    }

    /// Is a frame lost because of its length? Asks for a random number only where one is needed, so that the others stay the same.
    fn is_filtered(&mut self, len: usize) -> bool {
        let is_bare = self.spec.ack_loss != 0 && len <= BARE_MAX;
        (self.spec.mtu != 0 && len as u64 > self.spec.mtu) || (is_bare && self.random.chance(self.spec.ack_loss))
    }

    fn launch(&mut self, now: Instant, mut frame: Vec<u8>) {
        let Some(waiting) = self.queue(now, frame.len() as u64) else { return };
        let bytes = waiting.saturating_mul(self.spec.rate) / 8_000_000_000;
        self.waited = (self.waited.0 + waiting, self.waited.1 + 1);
        let is_late = self.spec.mark != 0 && bytes > self.spec.mark;
        // A random number only where one is needed, as above.
        if is_late || (self.spec.marking != 0 && self.random.chance(self.spec.marking)) {
            self.marked += u64::from(mark(&mut frame));
        }
        let held = if self.random.chance(self.spec.reordering) { self.random.below(self.spec.jitter) } else { 0 };
        let order = self.travelling.len() as u64 + (self.count << 8);
        let at = self.noticed(self.after_stall(now.0 + waiting + self.spec.delay + held));
        self.travelling.push(Reverse((at, order, frame)));
    }

    /// When something arrives that should at `at`.
    fn after_stall(&self, at: u64) -> u64 {
        match at.checked_rem(self.spec.stall_every) {
            Some(into) if into < self.spec.stall_len => at - into + self.spec.stall_len,
            _ => at,
        }
    }

    /// When the host looks at what arrives at `at`.
    fn noticed(&self, at: u64) -> u64 {
        if self.spec.coalesce == 0 { at } else { at.next_multiple_of(self.spec.coalesce) }
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

/// Marks a packet that allows it (RFC 3168, section 5), as a router does. True if it is marked now. A damaged one is left alone: a new
/// checksum would hide it.
fn mark(frame: &mut [u8]) -> bool {
    if input::parse(frame, usize::MAX).is_err() {
        return false;
    }
    let packet = frame.get_mut(ethernet::HEADER_LEN..).unwrap_or_default();
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => mark_v4(packet),
        Some(6) => mark_v6(packet),
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> bool {
    let Ok((header, _)) = ipv4::Header::mut_from_prefix(packet) else { return false };
    if Codepoint::of(header.tos) == Codepoint::NotEct {
        return false;
    }
    header.tos |= Codepoint::Ce as u8;
    header.checksum = [0; 2];
    header.checksum = Sum::default().plus(header.as_bytes()).checksum();
    true
}

/// No checksum covers the traffic class.
fn mark_v6(packet: &mut [u8]) -> bool {
    let Ok((header, _)) = ipv6::Header::mut_from_prefix(packet) else { return false };
    let class = header.traffic_class();
    if Codepoint::of(class) == Codepoint::NotEct {
        return false;
    }
    header.start = ipv6::Header::start(class | Codepoint::Ce as u8, header.start.get());
    true
}
