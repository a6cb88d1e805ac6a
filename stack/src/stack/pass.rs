//! The pass: RX rings, then timers, then everything that has something to send.

use std::cmp::Reverse;

use super::{Leftover, Stack, conn_parts, event};
use crate::arena::Phase;
use crate::control::FrameRef;
use crate::ip::{input, output};
use crate::mem::ring;
use crate::stats::Counter;
use crate::tcp::{Connection, Instant, Outcome};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;

/// Frames taken from one queue in one pass at most.
const RX_BATCH: usize = 256;
/// Segments sent for one connection in one pass at most; the rest goes in the next.
const TX_BATCH: usize = 256;
/// One in so many frames is not lent to the fill ring when received frames have to be kept.
const KEPT_FOR_SENDING: u32 = 8;
/// Tries to get a queue's frames on their way before the rest is left to the next pass.
const KICKS: usize = 64;

impl Stack {
    /// Would a pass have anything to do? Cheap, for those who look again and again.
    pub fn has_news(&self, now: Instant) -> bool {
        let due = |&Reverse((deadline, _)): &Reverse<(Instant, u32)>| deadline <= now;
        self.unkicked
            || !self.touched.is_empty()
            || self.timers.peek().is_some_and(due)
            || self.ports[..self.port_limit].iter().flatten().any(|port| port.queues.iter().any(Queue::rx_waits))
    }

    /// One run over RX rings, timers and TX rings, if they have anything. Returns how many frames came in.
    pub fn pass(&mut self, now: Instant) -> usize {
        if !self.has_news(now) {
            return 0;
        }
        let now = self.not_back(now);
        self.stats().add(Counter::Passes, 1);
        let received = self.receive(now);
        self.run_timers(now);
        self.send_touched(now);
        received
    }

    fn receive(&mut self, now: Instant) -> usize {
        let mut received = 0;
        for number in 0..self.port_limit {
            let queues = self.ports[number].as_ref().map_or(0, |port| port.queues.len());
            for queue in 0..queues {
                received += self.receive_queue(number, queue, now);
            }
        }
        received
    }

    fn receive_queue(&mut self, number: usize, queue: usize, now: Instant) -> usize {
        let (mut frames, mut bytes) = (0, 0);
        // Taken out so that frames can be read while connections change.
        let Some(mut port) = self.ports[number].take() else { return 0 };
        while frames < RX_BATCH {
            let Some(desc) = port.queues[queue].rx_pop() else { break };
            frames += 1;
            bytes += u64::from(desc.len);
            let frame = FrameRef { addr: desc.addr as u32, len: desc.len };
            let attachment = port.attachment;
            let arrived = Leftover { port: number as u32, attachment, queue: queue as u32, frame };
            if self.sort(&mut port, arrived, now) {
                port.lend(queue);
            }
        }
        if frames > 0 {
            port.queues[queue].rx_release();
            port.queues[queue].fill_flush();
        }
        self.ports[number] = Some(port);
        if frames > 0 {
            self.stats().add(Counter::RxFrames, frames as u64);
            self.stats().add(Counter::RxBytes, bytes);
        }
        frames
    }

    /// Looks at a frame and puts it where it belongs. Is it kept?
    fn sort(&mut self, port: &mut super::Port, arrived: Leftover, now: Instant) -> bool {
        let Leftover { queue, frame, .. } = arrived;
        let Some(base) = port.base_of(u64::from(frame.addr)) else { return false };
        let verdict = match port.umem.bytes(frame.addr as usize, frame.len as usize) {
            Some(bytes) => self.frame_in(bytes, port.max_frame(), queue, now),
            None => Verdict::Done,
        };
        match verdict {
            Verdict::Done => {
                port.refill(queue as usize, base);
                return false;
            }
            Verdict::Kernel => self.leftovers.push(arrived),
            Verdict::Early => self.early.push(arrived),
            Verdict::Hold(slot) => self.slots[slot as usize].held.push(arrived),
        }
        true
    }

    /// Looks again at frames that were kept while it was open whose they are.
    pub(super) fn sort_again(&mut self, kept: Vec<Leftover>, now: Instant) {
        for arrived in kept {
            let number = arrived.port as usize;
            let Some(mut port) = self.ports.get_mut(number).and_then(Option::take) else { continue };
            self.sort(&mut port, arrived, now);
            if let Some(queue) = port.queues.get_mut(arrived.queue as usize) {
                queue.fill_flush();
            }
            self.ports[number] = Some(port);
        }
    }

    /// A promotion has ended, one way or the other: looks again at what came early.
    pub(super) fn sort_early(&mut self, now: Instant) {
        let early = std::mem::take(&mut self.early);
        self.sort_again(early, now);
    }

    /// One frame: parse, find the connection, let the engine look at the segment.
    fn frame_in(&mut self, frame: &[u8], max_frame: usize, queue: u32, now: Instant) -> Verdict {
        let incoming = match input::parse(frame, max_frame) {
            Ok(incoming) => incoming,
            Err(drop) => {
                self.stats().add(drop.counter(), 1);
                return if drop.is_for_kernel() { Verdict::Kernel } else { Verdict::Done };
            }
        };
        let Some(&slot) = self.demux.get(&incoming.flow) else {
            if self.reserved > 0 {
                // A promotion is under way, perhaps this flow's: its frames arrive here before its numbers.
                return Verdict::Early;
            }
            self.stats().add(Counter::RxNoConnection, 1);
            return Verdict::Kernel;
        };
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot) else { return Verdict::Kernel };
        if Phase::from_raw(record.phase) != Phase::Live {
            return Verdict::Hold(slot);
        }
        let outcome = Connection { tcb: &mut record.tcb, snd, rcv }.on_segment(now, &incoming.segment);
        self.slots[slot as usize].queue = queue;
        self.apply(slot, &outcome);
        // Urgent data was not processed: the kernel gets the segment after the demotion.
        if outcome.urgent { Verdict::Hold(slot) } else { Verdict::Done }
    }

    /// Carries an engine's decisions out.
    fn apply(&mut self, slot: u32, outcome: &Outcome) {
        let stats = self.stats();
        for counter in outcome.counts.iter() {
            stats.add(counter, 1);
        }
        let bits = [
            (outcome.readable, event::READABLE),
            (outcome.writable, event::WRITABLE),
            (outcome.peer_fin, event::PEER_FIN | event::READABLE),
            (outcome.reset, event::RESET),
            (outcome.timed_out, event::TIMED_OUT),
            (outcome.urgent, event::URGENT),
            (outcome.closed, event::CLOSED),
        ];
        let bits = bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        self.raise(slot, bits);
        self.touch(slot);
        if bits & (event::CLOSED | event::DEMOTE) != 0 && self.slots[slot as usize].orphan {
            self.bury(slot);
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(&Reverse((deadline, slot))) = self.timers.peek() {
            if deadline > now {
                break;
            }
            self.timers.pop();
            let Some(state) = self.slots.get_mut(slot as usize) else { continue };
            if state.scheduled != Some(deadline) {
                continue;
            }
            state.scheduled = None;
            let Some(mut connection) = self.connection(slot) else { continue };
            if connection.tcb.deadline().is_some_and(|due| due <= now) {
                let outcome = connection.on_timer(now);
                self.apply(slot, &outcome);
            } else {
                self.schedule(slot);
            }
        }
    }

    /// Sees to it that the heap wakes the connection no later than its deadline.
    fn schedule(&mut self, slot: u32) {
        let Some(deadline) = self.connection(slot).and_then(|c| c.tcb.deadline()) else { return };
        let state = &mut self.slots[slot as usize];
        if state.scheduled.is_none_or(|at| deadline < at) {
            state.scheduled = Some(deadline);
            self.timers.push(Reverse((deadline, slot)));
        }
    }

    /// The earliest timer of any connection; at once if a connection has more to send.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.touched.is_empty() {
            return Some(Instant(1));
        }
        self.timers.peek().map(|&Reverse((deadline, _))| deadline)
    }

    /// Sends what the touched connections have to say. What finds no frame, or is more than its share, waits for the next pass.
    pub fn send_touched(&mut self, now: Instant) {
        let now = self.not_back(now);
        let mut batch = std::mem::take(&mut self.touched);
        for slot in batch.drain(..) {
            self.slots[slot as usize].touched = false;
            self.transmit(slot, now);
            self.schedule(slot);
        }
        if self.touched.is_empty() {
            // Keeps its memory.
            self.touched = batch;
        }
        self.kick_all();
    }

    /// Builds frames for everything the connection may send now.
    fn transmit(&mut self, slot: u32, now: Instant) {
        let Some(record) = self.record(slot) else { return };
        let number = record.port as usize;
        let Some(Some(mut port)) = self.ports.get_mut(number).map(Option::take) else { return };
        let queue = (self.slots[slot as usize].queue as usize).min(port.queues.len().saturating_sub(1));
        let mut sent = Sent::default();
        for _ in 0..TX_BATCH {
            if !self.transmit_one(slot, &mut port, queue, now, &mut sent) {
                break;
            }
        }
        self.ports[number] = Some(port);
        self.unkicked |= sent.frames > 0;
        let stats = self.stats();
        if sent.frames > 0 {
            stats.add(Counter::TxFrames, sent.frames);
            stats.add(Counter::TxBytes, sent.bytes);
            stats.add(Counter::SegmentsSent, sent.frames);
        }
        if sent.frames == TX_BATCH as u64 || sent.short {
            self.touch(slot);
        }
    }

    fn transmit_one(&mut self, slot: u32, port: &mut super::Port, queue: usize, now: Instant, sent: &mut Sent) -> bool {
        let Some(addr) = port.take_frame(queue) else {
            sent.short = true;
            self.stats().add(Counter::NoFrame, 1);
            return false;
        };
        let built = self.build_segment(slot, port, addr, now);
        let Some((len, counter)) = built else {
            port.pool.give_addr(addr);
            return false;
        };
        if let Some(counter) = counter {
            self.stats().add(counter, 1);
        }
        sent.frames += 1;
        sent.bytes += len as u64;
        if port.send_frame(queue, addr, len) {
            return true;
        }
        // Still full after a kick: the segment is lost like any other, and sent again by the retransmission timer.
        port.pool.give_addr(addr);
        sent.short = true;
        false
    }

    fn build_segment(
        &mut self,
        slot: u32,
        port: &mut super::Port,
        addr: u64,
        now: Instant,
    ) -> Option<(usize, Option<Counter>)> {
        let frame = port.frame_mut(addr)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot)?;
        if Phase::from_raw(record.phase) != Phase::Live {
            return None;
        }
        let segment = Connection { tcb: &mut record.tcb, snd: &mut *snd, rcv }.poll_transmit(now)?;
        let again = segment.counter() == Some(Counter::Retransmits);
        record.retransmits = record.retransmits.wrapping_add(u64::from(again));
        let payload = ring::slices(snd, segment.seq.0, (segment.len as usize).min(snd.len()));
        let state = &mut self.slots[slot as usize];
        state.ip_id = state.ip_id.wrapping_add(1);
        let len = output::build(frame, &record.path, &record.flow, &segment, payload, state.ip_id)?;
        Some((len, segment.counter()))
    }

    /// Starts the transmission of everything that lies in TX rings.
    fn kick_all(&mut self) {
        if !std::mem::take(&mut self.unkicked) {
            return;
        }
        let (mut kicks, mut failed) = (0, 0);
        for port in self.ports[..self.port_limit].iter_mut().flatten() {
            for queue in 0..port.queues.len() {
                if !std::mem::take(&mut port.unsent[queue]) {
                    continue;
                }
                let (k, f) = port.kick(queue);
                kicks += k;
                failed += f;
                self.unkicked |= port.unsent[queue];
            }
        }
        if kicks > 0 {
            self.stats().add(Counter::TxKicks, kicks);
        }
        if failed > 0 {
            self.stats().add(Counter::TxKicksFailed, failed);
        }
    }
}

enum Verdict {
    /// The frame can be filled anew.
    Done,
    /// It belongs to the kernel.
    Kernel,
    /// Perhaps it belongs to a connection that is being promoted.
    Early,
    /// Its connection is frozen: keep it until it is known whose it is.
    Hold(u32),
}

#[derive(Default)]
struct Sent {
    frames: u64,
    bytes: u64,
    short: bool,
}

impl super::Port {
    /// A received frame is kept: another takes its place in the fill ring, as long as enough are left for sending.
    fn lend(&mut self, queue: usize) {
        if self.pool.available() > self.config.frame_count / KEPT_FOR_SENDING
            && let Some(frame) = self.pool.take()
        {
            self.refill(queue, self.pool.addr_of(frame));
        }
    }

    /// Offers an empty frame to the kernel for receiving.
    fn refill(&mut self, queue: usize, base: u64) {
        if !self.queues[queue].fill_push(base) {
            self.pool.give_addr(base);
        }
    }

    /// A free frame to build a packet in; completed ones are collected when none is left at hand.
    fn take_frame(&mut self, queue: usize) -> Option<u64> {
        if self.pool.available() == 0 {
            self.collect(queue);
        }
        let frame = self.pool.take()?;
        Some(self.pool.addr_of(frame))
    }

    /// Takes sent frames back from the completion ring.
    fn collect(&mut self, queue: usize) {
        while let Some(addr) = self.queues[queue].completion_pop() {
            self.pool.give_addr(addr);
        }
    }

    fn frame_mut(&mut self, addr: u64) -> Option<&mut [u8]> {
        self.umem.bytes_mut(addr as usize, self.config.frame_size as usize)
    }

    fn send_frame(&mut self, queue: usize, addr: u64, len: usize) -> bool {
        let desc = Desc::new(addr, len as u32);
        let mut pushed = self.queues[queue].tx_push(desc);
        if !pushed {
            self.kick(queue);
            pushed = self.queues[queue].tx_push(desc);
        }
        self.unsent[queue] |= pushed;
        pushed
    }

    /// Has the kernel send the TX ring; in copy mode one call takes at most 32 frames. Returns calls made and calls failed.
    fn kick(&mut self, queue: usize) -> (u64, u64) {
        let q = &mut self.queues[queue];
        q.tx_flush();
        let (mut kicks, mut failed) = (0, 0);
        for _ in 0..KICKS {
            if !q.tx_needs_kick() {
                break;
            }
            kicks += 1;
            if q.kick_tx().is_err() {
                failed += 1;
                break;
            }
            if q.tx_pending() == 0 {
                break;
            }
        }
        self.unsent[queue] = self.queues[queue].tx_pending() > 0;
        self.collect(queue);
        (kicks, failed)
    }
}
