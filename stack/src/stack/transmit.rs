//! Frames out: what connections may send, built, queued and kicked off.

use super::port::Unsent;
use super::{Port, Stack, conn_parts};
use crate::arena::ConnRecord;
use crate::ip::flow::FlowKey;
use crate::ip::output;
use crate::ip::path::Path;
use crate::mem::Region;
use crate::stats::Counter;
use crate::tcp::{Connection, Instant, Kind, Recovery, SegmentOut};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Segments sent for one connection in one pass at most; the rest goes in the next.
const TX_BATCH: usize = 256;
/// Sent frames are taken back when there are so many, or when none is left.
const COLLECTED: u32 = 8;
/// Tries to get a queue's frames on their way before the rest is left to the next pass.
const KICKS: usize = 64;

/// What was sent in one go.
#[derive(Default)]
struct Sent {
    frames: u64,
    bytes: u64,
    /// Sends put off for want of a frame.
    no_frame: u64,
    /// There are segments in [`Kinds`].
    has_kinds: bool,
}

/// Where frames lie in TX rings that the kernel may have to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unkicked {
    /// In none.
    #[default]
    Nowhere,
    /// In that of one queue at most.
    In { port: u32, queue: u32 },
    /// Perhaps in several.
    Several,
}

impl Unkicked {
    /// As well in this one.
    #[inline]
    fn and(self, port: u32, queue: u32) -> Self {
        let this = Self::In { port, queue };
        if self == Self::Nowhere || self == this { this } else { Self::Several }
    }
}

/// Segments sent and not yet counted, by [`Kind`], where these are counted apart.
pub(super) type Kinds = [u32; Kind::ALL.len()];

/// Why a connection's turn ends early.
enum Halt {
    /// It has no more to say.
    Done,
    /// There is no free frame, or the TX ring is full.
    Short,
}

/// One connection's turn.
struct Turn<'a> {
    record: &'a mut ConnRecord,
    rcv: &'a mut [u8],
    snd: &'a mut [u8],
    recovery: &'a mut Recovery,
    ip_id: &'a mut u16,
    umem: &'a mut Region,
    frame_size: usize,
    pool: &'a mut FramePool,
    queue: &'a mut Queue,
    unsent: &'a mut Unsent,
    kinds: &'a mut Kinds,
    now: Instant,
}

impl Stack {
    /// Sends what the touched connections have to say. What finds no frame, or is more than its share, waits for the next pass.
    pub fn send_touched(&mut self, now: Instant) {
        let now = self.not_back(now);
        if !self.touched.is_empty() {
            let mut sent = Sent::default();
            // Those that have more to say join the list again, behind.
            let count = self.touched.len();
            for n in 0..count {
                self.transmit(self.touched[n], now, &mut sent);
            }
            if count == self.touched.len() {
                self.touched.clear();
            } else {
                self.touched.drain(..count);
            }
            self.count_sent(&sent);
        }
        match std::mem::take(&mut self.unkicked) {
            Unkicked::Nowhere => (),
            Unkicked::In { port, queue } => self.kick_queue(port, queue),
            Unkicked::Several => self.kick_all(),
        }
    }

    fn count_sent(&mut self, sent: &Sent) {
        let stats = self.stats();
        if sent.frames > 0 {
            stats.add(Counter::TxFrames, sent.frames);
            stats.add(Counter::TxBytes, sent.bytes);
            stats.add(Counter::SegmentsSent, sent.frames);
        }
        if sent.no_frame > 0 {
            stats.add(Counter::NoFrame, sent.no_frame);
        }
        if sent.has_kinds {
            self.count_kinds();
        }
    }

    #[cold]
    fn count_kinds(&mut self) {
        let kinds = std::mem::take(&mut self.kinds);
        let counted = Kind::ALL.into_iter().zip(kinds).filter_map(|(kind, n)| Some((kind.counter()?, n.into())));
        counted.for_each(|(counter, n)| self.stats().add(counter, n));
    }

    /// Builds frames for everything the connection may send now.
    fn transmit(&mut self, slot: u32, now: Instant, sent: &mut Sent) {
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        state.touched = false;
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot, state) else { return };
        if !record.is_live() {
            return;
        }
        let Some(Some(port)) = self.ports.get_mut(record.port as usize) else { return };
        let number = (state.queue as usize).min(port.queues.len().saturating_sub(1));
        let Port { umem, pool, queues, unsent, config, .. } = &mut **port;
        let (Some(queue), Some(unsent)) = (queues.get_mut(number), unsent.get_mut(number)) else { return };
        let ConnRecord { tcb, path, flow, port: record_port, .. } = record;
        if tcb.unsent() != 0 {
            self.records.lend(&mut state.recovery);
        }
        let mut connection = Connection { tcb, snd, rcv, recovery: &mut state.recovery };
        let frame_size = config.frame_size as usize;
        let mut left = TX_BATCH;
        // Ordinary segments; at the first that is none, or finds no room, a turn takes over.
        let mut is_done = !connection.may_transmit();
        while !is_done && left > 0 && pool.available() > 0 && queue.tx_has_room() {
            let Some(segment) = connection.foreseen_segment(now) else { break };
            left -= 1;
            state.ip_id = state.ip_id.wrapping_add(1);
            let data = connection.payload(&segment);
            // There is a frame: what fails from here on is lost like any other, and sent again by the retransmission timer.
            let Some(addr) = pool.take().map(|frame| pool.addr_of(frame)) else { break };
            let frame = umem.bytes_mut(addr as usize, frame_size);
            let len = frame.and_then(|frame| write(frame, path, flow, &segment, data, state.ip_id));
            if let Some(len) = len
                && queue.tx_push(Desc::new(addr, len as u32))
            {
                sent.frames += 1;
                sent.bytes += len as u64;
                *unsent = Unsent::Fresh;
                self.unkicked = self.unkicked.and(*record_port, number as u32);
            } else {
                pool.give_addr(addr);
            }
            is_done = !connection.may_transmit();
        }
        let bound = connection.tcb.deadline_bound();
        if is_done {
            self.records.take_back(&mut state.recovery);
            return state.schedule(&mut self.wheel, slot, bound, now);
        }
        self.take_turn(slot, now, left, sent);
    }

    /// The same for what is not quite ordinary: at most `left` segments.
    #[inline(never)]
    fn take_turn(&mut self, slot: u32, now: Instant, left: usize, sent: &mut Sent) {
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot, state) else { return };
        let Some(Some(port)) = self.ports.get_mut(record.port as usize) else { return };
        let number = (state.queue as usize).min(port.queues.len().saturating_sub(1));
        let Port { umem, pool, queues, unsent, config, .. } = &mut **port;
        let (Some(queue), Some(unsent)) = (queues.get_mut(number), unsent.get_mut(number)) else { return };
        let (recovery, ip_id, frame_size) = (&mut state.recovery, &mut state.ip_id, config.frame_size as usize);
        self.records.lend(recovery);
        let kinds = &mut self.kinds;
        let mut turn = Turn { record, rcv, snd, recovery, ip_id, umem, frame_size, pool, queue, unsent, kinds, now };
        let mut halt = None;
        for _ in 0..left {
            halt = if turn.connection().may_transmit() { turn.send_one(sent) } else { Some(Halt::Done) };
            if halt.is_some() {
                break;
            }
        }
        let bound = turn.record.tcb.deadline_bound();
        self.unkicked = self.unkicked.and(turn.record.port, number as u32);
        self.records.take_back(&mut state.recovery);
        state.schedule(&mut self.wheel, slot, bound, now);
        if !matches!(halt, Some(Halt::Done)) {
            self.touch(slot);
        }
    }

    /// Starts the transmission of everything that lies in TX rings.
    #[inline(never)]
    fn kick_all(&mut self) {
        for port in 0..self.port_limit {
            let queues = self.ports[port].as_ref().map_or(0, |port| port.queues.len());
            (0..queues).for_each(|queue| self.kick_queue(port as u32, queue as u32));
        }
    }

    /// Starts the transmission of what lies in one TX ring.
    #[inline]
    fn kick_queue(&mut self, number: u32, queue_number: u32) {
        let Some(Some(port)) = self.ports.get_mut(number as usize) else { return };
        let Port { pool, queues, unsent, .. } = &mut **port;
        let (Some(queue), Some(unsent)) =
            (queues.get_mut(queue_number as usize), unsent.get_mut(queue_number as usize))
        else {
            return;
        };
        let (kicks, failed) = match unsent {
            Unsent::None => return,
            Unsent::Known if !queue.tx_needs_kick() => (0, 0),
            _ => kick(queue, pool),
        };
        let is_left = queue.tx_pending() > 0;
        *unsent = if is_left { Unsent::Known } else { Unsent::None };
        if is_left {
            self.unkicked = self.unkicked.and(number, queue_number);
        }
        if kicks > 0 {
            self.count_kicks(kicks, failed);
        }
    }

    fn count_kicks(&self, kicks: u64, failed: u64) {
        let stats = self.stats();
        stats.add(Counter::TxKicks, kicks);
        stats.add(Counter::TxKicksFailed, failed);
    }
}

impl Turn<'_> {
    fn connection(&mut self) -> Connection<'_> {
        Connection { tcb: &mut self.record.tcb, snd: self.snd, rcv: self.rcv, recovery: self.recovery }
    }

    /// Builds and queues the connection's next segment; says so if this was not possible.
    #[inline]
    fn send_one(&mut self, sent: &mut Sent) -> Option<Halt> {
        let Some(addr) = take_frame(self.queue, self.pool) else {
            sent.no_frame += 1;
            return Some(Halt::Short);
        };
        let Some(len) = self.build(addr, sent) else {
            self.pool.give_addr(addr);
            return Some(Halt::Done);
        };
        sent.frames += 1;
        sent.bytes += len as u64;
        if self.send_frame(addr, len) {
            return None;
        }
        // Still full after a kick: the segment is lost like any other, and sent again by the retransmission timer.
        self.pool.give_addr(addr);
        Some(Halt::Short)
    }

    /// Writes the next segment into a frame; returns the length. `None`: there is nothing to send.
    fn build(&mut self, addr: u64, sent: &mut Sent) -> Option<usize> {
        let frame = self.umem.bytes_mut(addr as usize, self.frame_size)?;
        let ConnRecord { tcb, path, flow, .. } = &mut *self.record;
        let (snd, rcv, recovery) = (&mut *self.snd, &mut *self.rcv, &mut *self.recovery);
        let mut connection = Connection { tcb, snd, rcv, recovery };
        let segment = connection.next_segment(self.now)?;
        if segment.counter().is_some() {
            self.kinds[segment.kind as usize] += 1;
            sent.has_kinds = true;
        }
        *self.ip_id = self.ip_id.wrapping_add(1);
        output::build(frame, path, flow, &segment, connection.payload(&segment), *self.ip_id)
    }

    fn send_frame(&mut self, addr: u64, len: usize) -> bool {
        let desc = Desc::new(addr, len as u32);
        let mut pushed = self.queue.tx_push(desc);
        if !pushed {
            kick(self.queue, self.pool);
            pushed = self.queue.tx_push(desc);
        }
        if pushed {
            *self.unsent = Unsent::Fresh;
        }
        pushed
    }
}

/// Writes an ordinary segment into a frame; returns the length.
#[inline(always)]
fn write(
    frame: &mut [u8],
    path: &Path,
    flow: &FlowKey,
    segment: &SegmentOut,
    data: (&[u8], &[u8]),
    ip_id: u16,
) -> Option<usize> {
    match output::build_plain(frame, path, flow, segment, data, ip_id) {
        None => {
            // Over IPv6. A copy for who needs it in memory.
            let segment = *segment;
            output::build(frame, path, flow, &segment, data, ip_id)
        }
        len => len,
    }
}

/// A free frame to build a packet in; completed ones are collected when none is left at hand.
#[inline]
fn take_frame(queue: &mut Queue, pool: &mut FramePool) -> Option<u64> {
    if pool.available() == 0 {
        collect(queue, pool);
    }
    let frame = pool.take()?;
    Some(pool.addr_of(frame))
}

/// Takes sent frames back from the completion ring.
#[inline]
fn collect(queue: &mut Queue, pool: &mut FramePool) {
    let mut any = false;
    while let Some(addr) = queue.completion_take() {
        pool.give_addr(addr);
        any = true;
    }
    if any {
        queue.completion_release();
    }
}

/// Has the kernel send the TX ring; in copy mode one call takes at most 32 frames. Returns calls made and calls failed.
fn kick(queue: &mut Queue, pool: &mut FramePool) -> (u64, u64) {
    queue.tx_flush();
    let (mut kicks, mut failed) = (0, 0);
    for _ in 0..KICKS {
        if !queue.tx_needs_kick() {
            break;
        }
        kicks += 1;
        if queue.kick_tx().is_err() {
            failed += 1;
            break;
        }
        if queue.tx_pending() == 0 {
            break;
        }
    }
    if queue.completions() >= COLLECTED {
        collect(queue, pool);
    }
    (kicks, failed)
}
