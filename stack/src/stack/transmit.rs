//! Frames out: what connections may send, built, queued and kicked off.

use super::{Port, Stack, conn_parts};
use crate::arena::Phase;
use crate::ip::output;
use crate::mem::ring;
use crate::stats::Counter;
use crate::tcp::{Connection, Instant};
use crate::xsk::Desc;

/// Segments sent for one connection in one pass at most; the rest goes in the next.
const TX_BATCH: usize = 256;
/// Tries to get a queue's frames on their way before the rest is left to the next pass.
const KICKS: usize = 64;

#[derive(Default)]
struct Sent {
    frames: u64,
    bytes: u64,
    short: bool,
}

impl Stack {
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
        self.records.lend(&mut self.slots[slot as usize].recovery);
        let mut sent = Sent::default();
        for _ in 0..TX_BATCH {
            if !self.transmit_one(slot, &mut port, queue, now, &mut sent) {
                break;
            }
        }
        self.ports[number] = Some(port);
        self.records.take_back(&mut self.slots[slot as usize].recovery);
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

    fn transmit_one(&mut self, slot: u32, port: &mut Port, queue: usize, now: Instant, sent: &mut Sent) -> bool {
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
        port: &mut Port,
        addr: u64,
        now: Instant,
    ) -> Option<(usize, Option<Counter>)> {
        let frame = port.frame_mut(addr)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot)?;
        if Phase::from_raw(record.phase) != Phase::Live {
            return None;
        }
        let state = &mut self.slots[slot as usize];
        let recovery = &mut state.recovery;
        let segment = Connection { tcb: &mut record.tcb, snd: &mut *snd, rcv, recovery }.poll_transmit(now)?;
        let again = segment.counter() == Some(Counter::Retransmits);
        record.retransmits = record.retransmits.wrapping_add(u64::from(again));
        let payload = ring::slices(snd, segment.seq.0, (segment.len as usize).min(snd.len()));
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

impl Port {
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
