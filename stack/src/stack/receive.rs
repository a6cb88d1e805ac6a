//! Frames in: from the RX rings to their connections, to the kernel, or kept until it is known whose they are.

use super::{Leftover, Port, Stack, conn_parts};
use crate::arena::Phase;
use crate::control::FrameRef;
use crate::ip::input;
use crate::stats::Counter;
use crate::tcp::{Connection, Instant};

/// Frames taken from one queue in one pass at most.
const RX_BATCH: usize = 256;
/// One in so many frames is not lent to the fill ring when received frames have to be kept.
const KEPT_FOR_SENDING: u32 = 8;

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

impl Stack {
    pub(super) fn receive(&mut self, now: Instant) -> usize {
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
    fn sort(&mut self, port: &mut Port, arrived: Leftover, now: Instant) -> bool {
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
        self.apply(slot, &outcome, now);
        // Urgent data was not processed: the kernel gets the segment after the demotion.
        if outcome.urgent { Verdict::Hold(slot) } else { Verdict::Done }
    }
}

impl Port {
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
}
