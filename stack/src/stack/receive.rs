//! Frames in: from the RX rings to their connections, to the kernel, or kept until it is known whose they are.

use super::batch::{Batch, train_in};
use super::{Leftover, Port, Stack, conn_parts, event};
use crate::arena::{self, ConnRecord};
use crate::control::FrameRef;
use crate::ip::flow::FlowKey;
use crate::ip::input::{self, Incoming, Unverified};
use crate::mem::Region;
use crate::stats::Counter;
use crate::tcp::{Connection, Instant};
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Frames taken from one queue in one pass at most.
const RX_BATCH: u32 = 256;
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
        let Port { queues, umem, pool, config, attachment, .. } = port;
        let Some(q) = queues.get_mut(queue) else { return 0 };
        let frames = q.rx_take_seen(RX_BATCH);
        if frames == 0 {
            return 0;
        }
        let mut batch = Batch { queue: q, umem, pool, max_frame, left: frames, bytes: 0 };
        while batch.left != 0 {
            let desc = batch.pop();
            let Some(base) = batch.base_of(desc) else { continue };
            let verdict = match umem.bytes(desc.addr as usize, desc.len as usize) {
                None => Verdict::Done,
                Some(frame) if batch.continues(frame) => self.frames_in(frame, queue as u32, now, &mut batch),
                Some(frame) => self.frame_in(frame, max_frame, queue as u32, now),
            };
            if let Verdict::Done = verdict {
                batch.refill(base);
                continue;
            }
            let frame = FrameRef { addr: desc.addr as u32, len: desc.len };
            self.keep(verdict, Leftover { port: number as u32, attachment: *attachment, queue: queue as u32, frame });
            lend(batch.queue, batch.pool, config.frame_count);
        }
        let bytes = batch.bytes;
        q.rx_release();
        q.fill_flush();
        let stats = self.stats();
        stats.add(Counter::RxFrames, frames.into());
        stats.add(Counter::RxBytes, bytes);
        frames as usize
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
    #[inline(always)]
    fn frame_in(&mut self, frame: &[u8], max_frame: usize, queue: u32, now: Instant) -> Verdict {
        if frame.len() <= max_frame && self.foreseen_in(frame, queue, now).is_some() {
            return Verdict::Done;
        }
        self.other_frame_in(frame, max_frame, queue, now)
    }

    /// The same, and those of the batch that continue it.
    #[inline(never)]
    fn frames_in(&mut self, frame: &[u8], queue: u32, now: Instant, batch: &mut Batch<'_>) -> Verdict {
        let max_frame = batch.max_frame;
        let take = |connection: &mut Connection<'_>, found: &Unverified<'_>| train_in(connection, found, now, batch);
        if frame.len() <= max_frame && self.foreseen_by(frame, queue, now, take).is_some() {
            return Verdict::Done;
        }
        self.other_frame_in(frame, max_frame, queue, now)
    }

    /// An ordinary frame with a segment that is what its connection expects. `None`: it is not, and nothing has happened;
    /// [`Self::other_frame_in`] is right for any. Apart from that, so that nothing but the frame need be remembered here.
    #[inline(never)]
    fn foreseen_in(&mut self, frame: &[u8], queue: u32, now: Instant) -> Option<()> {
        self.foreseen_by(frame, queue, now, |connection, found| {
            let writable = connection.take_checked(now, &found.segment, found.sum())?;
            Some((!found.segment.payload.is_empty(), writable))
        })
    }

    /// The same with any way to `take` the segment in, which says whether there is something to read, and whether there is more send space; or
    /// `None`, if it is not what its checksum says.
    #[inline(always)]
    fn foreseen_by(
        &mut self,
        frame: &[u8],
        queue: u32,
        now: Instant,
        take: impl FnOnce(&mut Connection<'_>, &Unverified<'_>) -> Option<(bool, bool)>,
    ) -> Option<()> {
        let found = input::parse_usual(frame)?;
        let arena = &self.arena;
        let slot = self
            .demux
            .find_ends(found.ends, |slot, ends| flow_of(arena, slot).is_some_and(|flow| ends.are_of(flow)))?;
        let state = self.slots.get_mut(slot as usize)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot, state).filter(|(record, ..)| record.is_live())?;
        let mut connection = Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery };
        if !connection.foresees(&found.segment) {
            return None;
        }
        let (readable, writable) = take(&mut connection, &found)?;
        state.queue = queue as u16;
        if connection.may_transmit_calmly() && !state.touched {
            state.touched = true;
            self.touched.push(slot);
        }
        state.schedule(&mut self.wheel, slot, record.tcb.deadline_bound(), now);
        state.raise(&mut self.with_events, slot, event::data(readable, writable));
        if let Some(wanted) = state.outgrown(&record.tcb) {
            self.grow_rings(slot, wanted);
        }
        Some(())
    }

    /// What [`Self::frame_in`] does with a frame that is not quite ordinary; right for any.
    #[inline(never)]
    fn other_frame_in(&mut self, frame: &[u8], max_frame: usize, queue: u32, now: Instant) -> Verdict {
        match input::parse(frame, max_frame) {
            Ok(incoming) => self.segment_in(&incoming, queue, now),
            Err(error) => {
                self.stats().add(error.counter(), 1);
                if error.is_for_kernel() { Verdict::Kernel } else { Verdict::Done }
            }
        }
    }

    fn segment_in(&mut self, incoming: &Incoming<'_>, queue: u32, now: Instant) -> Verdict {
        let Some(slot) = self.slot_of(&incoming.flow) else {
            if self.reserved > 0 {
                // A promotion is under way, perhaps this flow's: its frames arrive here before its numbers.
                return Verdict::Early;
            }
            self.stats().add(Counter::RxNoConnection, 1);
            return Verdict::Kernel;
        };
        let Some(state) = self.slots.get_mut(slot as usize) else { return Verdict::Kernel };
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot, state) else { return Verdict::Kernel };
        if !record.is_live() {
            return Verdict::Hold(slot);
        }
        let mut connection = Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery };
        let outcome = connection.on_segment(now, &incoming.segment);
        state.queue = queue as u16;
        if connection.may_transmit() && !state.touched {
            state.touched = true;
            self.touched.push(slot);
        }
        state.schedule(&mut self.wheel, slot, record.tcb.deadline_bound(), now);
        self.apply(slot, &outcome, now);
        // Urgent data was not processed: the kernel gets the segment after the demotion, or at once if nobody demotes an orphan.
        match outcome.urgent {
            true if self.record(slot).is_some_and(ConnRecord::is_live) => Verdict::Hold(slot),
            true => Verdict::Kernel,
            false => Verdict::Done,
        }
    }

    /// The slot that holds a flow.
    #[inline]
    pub(super) fn slot_of(&self, flow: &FlowKey) -> Option<u32> {
        self.demux.find(flow, |slot| flow_of(&self.arena, slot).is_some_and(|held| held.is(flow)))
    }
}

/// The flow of a slot, also of one that is free now.
#[inline]
fn flow_of(arena: &Region, slot: u32) -> Option<&FlowKey> {
    let record = arena::conn_offset(slot).and_then(|at| arena.get::<ConnRecord>(at));
    record.map(|record| &record.flow)
}

impl Port {
    /// Offers an empty frame to the kernel for receiving.
    fn refill(&mut self, queue: usize, base: u64) {
        if !self.queues[queue].fill_push(base) {
            self.pool.give_addr(base);
        }
    }
}

/// A received frame is kept: another takes its place in the fill ring, as long as enough are left for sending.
#[cold]
fn lend(queue: &mut Queue, pool: &mut FramePool, frame_count: u32) {
    if pool.available() > frame_count / KEPT_FOR_SENDING
        && let Some(frame) = pool.take()
        && !queue.fill_push(pool.addr_of(frame))
    {
        pool.give(frame);
    }
}
