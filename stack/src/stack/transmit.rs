//! Frames out: what connections may send, built, queued and kicked off.

use super::port::Unsent;
use super::{Port, Stack, conn_parts};
use crate::arena::{ConnRecord, Phase};
use crate::ip::output;
use crate::mem::{Region, ring};
use crate::stats::Counter;
use crate::tcp::{Connection, Instant, Kind, Recovery};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Segments sent for one connection in one pass at most; the rest goes in the next.
const TX_BATCH: usize = 256;
/// Tries to get a queue's frames on their way before the rest is left to the next pass.
const KICKS: usize = 64;

/// What was sent in one go.
#[derive(Default)]
struct Sent {
    frames: u64,
    bytes: u64,
    /// Sends put off for want of a frame.
    no_frame: u64,
    /// Segments by [`Kind`], where these are counted apart.
    kinds: [u32; Kind::ALL.len()],
    /// There are any.
    has_kinds: bool,
}

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
        self.kick_all();
    }

    fn count_sent(&mut self, sent: &Sent) {
        self.unkicked |= sent.frames > 0;
        let stats = self.stats();
        stats.add(Counter::TxFrames, sent.frames);
        stats.add(Counter::TxBytes, sent.bytes);
        stats.add(Counter::SegmentsSent, sent.frames);
        if sent.no_frame > 0 {
            stats.add(Counter::NoFrame, sent.no_frame);
        }
        if sent.has_kinds {
            let counted =
                Kind::ALL.into_iter().zip(sent.kinds).filter_map(|(kind, n)| Some((kind.counter()?, n.into())));
            counted.for_each(|(counter, n)| stats.add(counter, n));
        }
    }

    /// Builds frames for everything the connection may send now.
    fn transmit(&mut self, slot: u32, now: Instant, sent: &mut Sent) {
        let Some(state) = self.slots.get_mut(slot as usize) else { return };
        state.touched = false;
        let Some((record, rcv, snd)) = conn_parts(&mut self.arena, slot, state) else { return };
        if Phase::from_raw(record.phase) != Phase::Live {
            return;
        }
        let Some(Some(port)) = self.ports.get_mut(record.port as usize) else { return };
        let number = (state.queue as usize).min(port.queues.len().saturating_sub(1));
        let Port { umem, pool, queues, unsent, config, .. } = &mut **port;
        let (Some(queue), Some(unsent)) = (queues.get_mut(number), unsent.get_mut(number)) else { return };
        self.records.lend(&mut state.recovery);
        let (recovery, ip_id, frame_size) = (&mut state.recovery, &mut state.ip_id, config.frame_size as usize);
        let mut turn = Turn { record, rcv, snd, recovery, ip_id, umem, frame_size, pool, queue, unsent, now };
        let mut halt = None;
        for _ in 0..TX_BATCH {
            halt = if turn.connection().may_transmit() { turn.send_one(sent) } else { Some(Halt::Done) };
            if halt.is_some() {
                break;
            }
        }
        let bound = turn.record.tcb.deadline_bound();
        self.records.take_back(&mut state.recovery);
        state.schedule(&mut self.wheel, slot, bound, now);
        if !matches!(halt, Some(Halt::Done)) {
            self.touch(slot);
        }
    }

    /// Starts the transmission of everything that lies in TX rings.
    fn kick_all(&mut self) {
        if !std::mem::take(&mut self.unkicked) {
            return;
        }
        let (mut kicks, mut failed) = (0, 0);
        for port in self.ports[..self.port_limit].iter_mut().flatten() {
            let Port { pool, queues, unsent, .. } = &mut **port;
            for (queue, unsent) in queues.iter_mut().zip(unsent) {
                match unsent {
                    Unsent::None => continue,
                    Unsent::Known if !queue.tx_needs_kick() => (),
                    _ => {
                        let (k, f) = kick(queue, pool);
                        kicks += k;
                        failed += f;
                    }
                }
                let is_left = queue.tx_pending() > 0;
                *unsent = if is_left { Unsent::Known } else { Unsent::None };
                self.unkicked |= is_left;
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
    #[inline]
    fn build(&mut self, addr: u64, sent: &mut Sent) -> Option<usize> {
        let frame = self.umem.bytes_mut(addr as usize, self.frame_size)?;
        let ConnRecord { tcb, path, flow, .. } = &mut *self.record;
        let (snd, rcv, recovery) = (&mut *self.snd, &mut *self.rcv, &mut *self.recovery);
        let segment = Connection { tcb: &mut *tcb, snd, rcv, recovery }.next_segment(self.now)?;
        if segment.counter().is_some() {
            sent.kinds[segment.kind as usize] += 1;
            sent.has_kinds = true;
        }
        let payload = ring::slices(self.snd, tcb.snd_place(segment.seq.0), (segment.len as usize).min(self.snd.len()));
        *self.ip_id = self.ip_id.wrapping_add(1);
        output::build(frame, path, flow, &segment, payload, *self.ip_id)
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
    collect(queue, pool);
    (kicks, failed)
}
