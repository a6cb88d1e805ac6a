//! Frames in: from the RX rings to their connections, to the kernel, or kept until it is known whose they are.

use super::{Leftover, Port, Stack, conn_parts, event};
use crate::arena::{self, ConnRecord};
use crate::control::FrameRef;
use crate::ip::flow::FlowKey;
use crate::ip::input::{self, Drop, Unverified};
use crate::stats::Counter;
use crate::tcp::input::Taken;
use crate::tcp::{Connection, Instant};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;

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
            // Taken out so that frames can be read while connections change.
            let Some(mut port) = self.ports[number].take() else { continue };
            for queue in 0..port.queues.len() {
                received += self.receive_queue(&mut port, number, queue, now);
            }
            self.ports[number] = Some(port);
        }
        received
    }

    fn receive_queue(&mut self, port: &mut Port, number: usize, queue: usize, now: Instant) -> usize {
        let max_frame = port.max_frame();
        let frames = port.queues.get(queue).map_or(0, Queue::rx_seen).min(RX_BATCH);
        if frames == 0 {
            return 0;
        }
        let mut bytes = 0;
        for _ in 0..frames {
            let Port { queues, umem, pool, .. } = &mut *port;
            let Some(q) = queues.get_mut(queue) else { break };
            let Some(desc) = q.rx_pop() else { break };
            bytes += u64::from(desc.len);
            let Some(base) = pool.frame_of(desc.addr).map(|frame| pool.addr_of(frame)) else { continue };
            let verdict = match umem.bytes(desc.addr as usize, desc.len as usize) {
                Some(frame) => self.frame_in(frame, max_frame, queue as u32, now),
                None => Verdict::Done,
            };
            if let Verdict::Done = verdict {
                if !q.fill_push(base) {
                    pool.give_addr(base);
                }
                continue;
            }
            self.keep(verdict, port.arrived(number, queue, desc));
            port.lend(queue);
        }
        port.queues[queue].rx_release();
        port.queues[queue].fill_flush();
        let stats = self.stats();
        stats.add(Counter::RxFrames, frames as u64);
        stats.add(Counter::RxBytes, bytes);
        frames
    }

    /// Puts a frame where it waits for what its verdict says.
    #[cold]
    fn keep(&mut self, verdict: Verdict, arrived: Leftover) {
        match verdict {
            Verdict::Done => (),
            Verdict::Kernel => self.leftovers.push(arrived),
            Verdict::Early => self.early.push(arrived),
            Verdict::Hold(slot) => self.held.entry(slot).or_default().push(arrived),
        }
    }

    /// Looks again at frames that were kept while it was open whose they are.
    pub(super) fn sort_again(&mut self, kept: Vec<Leftover>, now: Instant) {
        for arrived in kept {
            let Leftover { port: number, queue, frame, .. } = arrived;
            let Some(mut port) = self.ports.get_mut(number as usize).and_then(Option::take) else { continue };
            let verdict = match port.umem.bytes(frame.addr as usize, frame.len as usize) {
                Some(bytes) => self.frame_in(bytes, port.max_frame(), queue, now),
                None => Verdict::Done,
            };
            match (verdict, port.base_of(u64::from(frame.addr))) {
                (Verdict::Done, Some(base)) if (queue as usize) < port.queues.len() => {
                    port.refill(queue as usize, base);
                    port.queues[queue as usize].fill_flush();
                }
                (Verdict::Done, _) => (),
                (verdict, _) => self.keep(verdict, arrived),
            }
            self.ports[number as usize] = Some(port);
        }
    }

    /// A promotion has ended, one way or the other: looks again at what came early.
    pub(super) fn sort_early(&mut self, now: Instant) {
        let early = std::mem::take(&mut self.early);
        self.sort_again(early, now);
    }

    /// One frame: parse, find the connection, let the engine look at the segment.
    #[inline]
    fn frame_in(&mut self, frame: &[u8], max_frame: usize, queue: u32, now: Instant) -> Verdict {
        if let Some(found) = input::parse_plain(frame, max_frame)
            && let Some(verdict) = self.segment_in(&found, queue, now)
        {
            return verdict;
        }
        self.other_frame_in(frame, max_frame, queue, now)
    }

    /// The same for a frame that is not quite ordinary.
    #[inline(never)]
    fn other_frame_in(&mut self, frame: &[u8], max_frame: usize, queue: u32, now: Instant) -> Verdict {
        let error = match input::parse(frame, max_frame) {
            Ok(incoming) => match self.segment_in(&Unverified { incoming, sum: None }, queue, now) {
                Some(verdict) => return verdict,
                None => Drop::BadChecksum,
            },
            Err(error) => error,
        };
        self.stats().add(error.counter(), 1);
        if error.is_for_kernel() { Verdict::Kernel } else { Verdict::Done }
    }

    /// `None`: its checksum is wrong.
    #[inline(always)]
    fn segment_in(&mut self, found: &Unverified<'_>, queue: u32, now: Instant) -> Option<Verdict> {
        let Unverified { incoming, sum } = found;
        let Some(slot) = self.slot_of(&incoming.flow) else {
            // A copy for who needs it in memory, as below: all others keep it in registers.
            let found = *found;
            return self.unknown_flow(&found);
        };
        let Some(state) = self.slots.get_mut(slot as usize) else { return Some(Verdict::Kernel) };
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot, state) else { return Some(Verdict::Kernel) };
        if !record.is_live() {
            let found = *found;
            return found.is_intact().then_some(Verdict::Hold(slot));
        }
        let mut connection = Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery };
        let taken = connection.take_in(now, &incoming.segment, *sum);
        if taken == Taken::Corrupt {
            return None;
        }
        state.queue = queue;
        if connection.may_transmit() && !state.touched {
            state.touched = true;
            self.touched.push(slot);
        }
        state.schedule(&mut self.wheel, slot, record.tcb.deadline_bound(), now);
        match taken {
            Taken::Foreseen { readable, writable } => {
                let outgrown = state.outgrown(&record.tcb);
                state.raise(&mut self.with_events, slot, event::data(readable, writable));
                if let Some(wanted) = outgrown {
                    self.grow_rings(slot, wanted);
                }
                Some(Verdict::Done)
            }
            Taken::Examined(outcome) => {
                self.apply(slot, &outcome, now);
                // Urgent data was not processed: the kernel gets the segment after the demotion.
                Some(if outcome.urgent { Verdict::Hold(slot) } else { Verdict::Done })
            }
            Taken::Corrupt => None,
        }
    }

    #[cold]
    fn unknown_flow(&mut self, found: &Unverified<'_>) -> Option<Verdict> {
        if !found.is_intact() {
            return None;
        }
        if self.reserved > 0 {
            // A promotion is under way, perhaps this flow's: its frames arrive here before its numbers.
            return Some(Verdict::Early);
        }
        self.stats().add(Counter::RxNoConnection, 1);
        Some(Verdict::Kernel)
    }

    /// The slot that holds a flow.
    #[inline]
    pub(super) fn slot_of(&self, flow: &FlowKey) -> Option<u32> {
        let holds = |slot| {
            let record = arena::conn_offset(slot).and_then(|at| self.arena.get::<ConnRecord>(at));
            record.is_some_and(|record| record.flow.is(flow))
        };
        self.demux.find(flow, holds)
    }
}

impl Port {
    /// A frame that was received, as it is kept.
    fn arrived(&self, number: usize, queue: usize, desc: Desc) -> Leftover {
        let frame = FrameRef { addr: desc.addr as u32, len: desc.len };
        Leftover { port: number as u32, attachment: self.attachment, queue: queue as u32, frame }
    }

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
