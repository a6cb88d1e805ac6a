//! Frames out: what connections may send, built, queued and kicked off.

use super::kick::{Unkicked, collect, gather, kick, moved};
use super::port::Unsent;
use super::stall::Stall;
use super::train::{Outlet, send_train};
use super::{Arena, Port, SlotState, Stack, conn_parts, stats_of};
use crate::arena::ConnRecord;
use crate::ip::output;
use crate::mem::{Region, ring};
use crate::stats::{Counter, Stats};
use crate::tcp::{Connection, Instant, Kind, PlainOut, Recovery};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Segments sent for one connection in one pass at most; the rest goes in the next.
const TX_BATCH: usize = 256;

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
    full: &'a mut Stall,
    /// There has been no free frame for long.
    is_drained: bool,
    kinds: &'a mut Kinds,
    now: Instant,
}

impl Stack {
    /// Sends what the touched connections have to say. What finds no frame, or is more than its share, waits for the next pass.
    pub fn send_touched(&mut self, now: Instant) {
        let now = self.not_back(now);
        self.send_all(now);
    }

    /// The same at a time that has been looked at.
    #[inline(always)]
    pub(super) fn send_all(&mut self, now: Instant) {
        if !self.touched.is_empty() {
            self.transmit_touched(now);
        }
        if self.unkicked != Unkicked::Nowhere {
            self.kick();
        }
    }

    #[inline(never)]
    fn transmit_touched(&mut self, now: Instant) {
        // Those that have more to say join the list again, behind.
        let count = self.touched.len();
        for n in 0..count {
            self.transmit(self.touched[n], now);
        }
        if count == self.touched.len() {
            self.touched.clear();
        } else {
            self.touched.drain(..count);
        }
    }

    fn count_sent(&mut self, sent: &Sent) {
        if sent.frames > 0 {
            count_frames(self.stats(), sent.frames, sent.bytes);
        }
        if sent.no_frame > 0 {
            self.stats().add(Counter::NoFrame, sent.no_frame);
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
    #[inline(always)]
    fn transmit(&mut self, slot: u32, now: Instant) {
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        state.touched = false;
        let Some((record, ..)) = conn_parts(&mut self.arena, slot, state) else { return };
        if !record.is_live() {
            return;
        }
        let port_number = record.port;
        let Some(Some(port)) = self.ports.get_mut(port_number as usize) else { return };
        let number = port.queue_for(state.queue);
        let Port { umem, pool, queues, unsent, config, .. } = &mut **port;
        let (Some(queue), Some(unsent)) = (queues.get_mut(number), unsent.get_mut(number)) else { return };
        if !state.recovery.sent.has_room() && record.tcb.unsent() != 0 {
            self.records.lend(&mut state.recovery);
        }
        let (mut is_done, mut left) = (false, TX_BATCH);
        // Ordinary segments, first as many as can go together; at the first that is none, or finds no room, a turn takes over.
        if record.tcb.unsent() >= 2 * record.tcb.mss as usize {
            let train = send_train(&mut self.arena, slot, state, Outlet { umem, pool, queue }, left, now);
            (is_done, left) = (train.is_last, left - train.count);
        }
        while !is_done && left > 0 && queue.tx_has_room() {
            let Some(addr) = pool.take().map(|frame| pool.addr_of(frame)) else { break };
            let Some(frame) = umem.bytes_mut(addr as usize, config.frame_size as usize) else {
                pool.give_addr(addr);
                break;
            };
            let plain = send_plain(&mut self.arena, slot, state, frame, now);
            is_done = plain.is_last;
            if plain.len == 0 {
                pool.give_addr(addr);
                break;
            }
            queue.tx_push_known(Desc::new(addr, plain.len));
            left -= 1;
        }
        if left != TX_BATCH {
            *unsent = Unsent::Fresh;
            self.unkicked.add(port_number, number as u32);
        }
        if is_done {
            if state.recovery.sent.span() == 0 {
                self.records.take_back(&mut state.recovery);
            }
            let bound = conn_parts(&mut self.arena, slot, state).and_then(|(record, ..)| record.tcb.deadline_bound());
            state.schedule(&mut self.wheel, slot, bound, now);
        } else {
            self.take_turn(slot, now, left);
        }
    }

    /// The same for what is not quite ordinary: at most `left` segments.
    #[inline(never)]
    fn take_turn(&mut self, slot: u32, now: Instant, left: usize) {
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot, state) else { return };
        let Some(Some(port)) = self.ports.get_mut(record.port as usize) else { return };
        let number = port.queue_for(state.queue);
        let Port { umem, pool, queues, unsent, full, drained, config, .. } = &mut **port;
        let is_drained = pool.available() == 0 && !gather(queues, pool) && drained.is_lasting(now, moved(queues));
        let (Some(queue), Some(unsent), Some(full)) =
            (queues.get_mut(number), unsent.get_mut(number), full.get_mut(number))
        else {
            return;
        };
        let (recovery, ip_id, frame_size) = (&mut state.recovery, &mut state.ip_id, config.frame_size as usize);
        self.records.lend(recovery);
        let kinds = &mut self.kinds;
        let mut turn = Turn {
            record,
            rcv,
            snd,
            recovery,
            ip_id,
            umem,
            frame_size,
            pool,
            queue,
            unsent,
            full,
            is_drained,
            kinds,
            now,
        };
        let (mut halt, mut sent) = (None, Sent::default());
        for _ in 0..left {
            halt = if turn.connection().may_transmit() { turn.send_one(&mut sent) } else { Some(Halt::Done) };
            if halt.is_some() {
                break;
            }
        }
        let bound = turn.record.tcb.deadline_bound();
        self.unkicked.add(turn.record.port, number as u32);
        self.records.take_back(&mut state.recovery);
        state.schedule(&mut self.wheel, slot, bound, now);
        if !matches!(halt, Some(Halt::Done)) {
            self.touch(slot);
        }
        self.count_sent(&sent);
    }
}

impl Turn<'_> {
    fn connection(&mut self) -> Connection<'_> {
        Connection { tcb: &mut self.record.tcb, snd: self.snd, rcv: self.rcv, recovery: self.recovery }
    }

    /// Builds and queues the connection's next segment; says so if this was not possible.
    #[inline]
    fn send_one(&mut self, sent: &mut Sent) -> Option<Halt> {
        if !self.has_room() && !self.full.is_lasting(self.now, self.queue.tx_taken()) {
            return Some(Halt::Short);
        }
        let Some(addr) = take_frame(self.queue, self.pool) else {
            sent.no_frame += 1;
            return Some(if self.is_drained { self.lose_one() } else { Halt::Short });
        };
        let Some(len) = self.build(addr, sent) else {
            self.pool.give_addr(addr);
            return Some(Halt::Done);
        };
        sent.frames += 1;
        sent.bytes += len as u64;
        if self.queue.tx_push(Desc::new(addr, len as u32)) {
            *self.unsent = Unsent::Fresh;
            return None;
        }
        // Nothing leaves: the segment is lost like any other, and sent again by the retransmission timer.
        self.pool.give_addr(addr);
        Some(Halt::Short)
    }

    /// The same of a segment for which there is not even a frame.
    #[cold]
    fn lose_one(&mut self) -> Halt {
        let now = self.now;
        self.connection().next_segment(now).map_or(Halt::Done, |_| Halt::Short)
    }

    /// Is there room in the TX ring, perhaps after the kernel has taken what is in it? To be asked before a segment is made, which counts as
    /// sent.
    fn has_room(&mut self) -> bool {
        if self.queue.tx_has_room() || self.queue.tx_room() > 0 {
            return true;
        }
        self.queue.tx_flush();
        kick(self.queue);
        collect(self.queue, self.pool);
        self.queue.tx_room() > 0
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
        output::build(frame, path, flow, &segment, connection.payload(segment.seq, segment.len), *self.ip_id)
    }
}

/// What [`send_plain`] has done.
struct Plain {
    /// Length of the frame; 0: there is none.
    len: u32,
    /// The connection has no more to say.
    is_last: bool,
}

/// Sends an ordinary segment: all that its departure changes, and its frame. In one piece, so that numbers go from where they are kept to
/// where they have to stand; apart from its caller, so that each keeps in registers what it needs.
#[inline(never)]
fn send_plain(arena: &mut Arena, slot: u32, state: &mut SlotState, frame: &mut [u8], now: Instant) -> Plain {
    let Some((record, rcv, snd)) = conn_parts(arena, slot, state) else { return Plain { len: 0, is_last: true } };
    let mut connection = Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery };
    let Some(segment) = connection.foreseen_segment(now) else { return look_further(arena, slot, state) };
    let is_last = !connection.may_transmit_calmly();
    state.ip_id = state.ip_id.wrapping_add(1);
    let data = ring::piece(snd, record.tcb.snd_place(segment.seq.0), segment.len as usize);
    let len = data
        .and_then(|data| output::build_plain(frame, &record.path, &record.flow, &segment, data, state.ip_id))
        .unwrap_or_else(|| build_otherwise(frame, record, segment, snd, state.ip_id));
    // What does not fit is lost like any other, and sent again by the retransmission timer.
    if len != 0 {
        count_frames(stats_of(arena), 1, len as u64);
    }
    Plain { len: len as u32, is_last }
}

/// There is no ordinary segment to send.
#[cold]
#[inline(never)]
fn look_further(arena: &mut Arena, slot: u32, state: &mut SlotState) -> Plain {
    let is_last = conn_parts(arena, slot, state).is_none_or(|(record, rcv, snd)| {
        !Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery }.may_transmit()
    });
    Plain { len: 0, is_last }
}

/// Writes an ordinary segment into a frame, over IPv6, or with data that lies in two pieces; returns the length, 0 if it does not fit.
#[inline(never)]
pub(super) fn build_otherwise(
    frame: &mut [u8],
    record: &ConnRecord,
    segment: PlainOut,
    snd: &[u8],
    ip_id: u16,
) -> usize {
    let ConnRecord { tcb, path, flow, .. } = record;
    let data = ring::slices(snd, tcb.snd_place(segment.seq.0), (segment.len as usize).min(snd.len()));
    output::build(frame, path, flow, &segment.into(), data, ip_id).unwrap_or(0)
}

#[inline(always)]
pub(super) fn count_frames(stats: Stats<'_>, frames: u64, bytes: u64) {
    stats.add(Counter::TxFrames, frames);
    stats.add(Counter::TxBytes, bytes);
    stats.add(Counter::SegmentsSent, frames);
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
