//! The life of a connection's slot: reserved, live, frozen, free.

use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use super::{Leftover, SlotState, Stack, conn_parts};
use crate::arena::{ConnRecord, MAX_CONNS, MAX_RING, MIN_RING, Phase, PiecesRef, RingRef, Rings};
use crate::ip::path::Path;
use crate::lane::Reason;
use crate::stats::Counter;
use crate::tcp::image::Image;
use crate::tcp::{Algorithm, Connection, Instant, Learnt, Recovery, Scoreboard};

/// What [`Stack::import`] needs.
pub struct ImportRequest<'a> {
    /// The connection's numbers.
    pub image: &'a Image,
    /// Bytes that the program has not read.
    pub recv: &'a [u8],
    /// Bytes that the peer has not acknowledged, then bytes never sent.
    pub send: &'a [u8],
    /// What is known of what is in flight.
    pub scoreboard: Scoreboard<'a>,
    /// Attachment on which the flow arrives.
    pub port: u32,
    /// How packets reach the peer.
    pub path: Path,
    /// The program's descriptor, for the board.
    pub fd: i32,
    /// The socket's inode, for the board.
    pub inode: u64,
    /// Receive and send buffer wanted, bytes.
    pub rings: (u32, u32),
    /// What they may grow to, bytes; 0: they stay as they are.
    pub largest: (u32, u32),
    /// Congestion control wanted.
    pub congestion: Algorithm,
    /// What it has learnt of the path in the kernel.
    pub learnt: Learnt,
    /// SO_MAX_PACING_RATE, bytes a second; `u64::MAX`: no limit.
    pub pacing_limit: u64,
}

/// Slots that the tables grow by at least.
const SLOTS_MIN: usize = 64;

/// The ring for at least `wanted` bytes with room for `needed`.
fn ring_len(wanted: u32, needed: u64) -> Option<u32> {
    let len = u64::from(wanted.clamp(MIN_RING, MAX_RING)).max(needed).checked_next_power_of_two()?;
    (len <= u64::from(MAX_RING)).then_some(len as u32)
}

/// Two rings as a slot keeps them; `None` if they are no rings, or the same.
pub(super) fn rings_of(rcv: RingRef, snd: RingRef) -> Option<Rings> {
    Rings::new(rcv.range()?, snd.range()?)
}

/// The receive and the send ring that a slot keeps.
pub(super) fn ring_refs(rings: &Rings) -> (RingRef, RingRef) {
    let ring = |(offset, len): (usize, usize)| RingRef::at(offset, len);
    let (rcv, snd) = rings.ranges();
    (ring(rcv), ring(snd))
}

impl Stack {
    /// Takes a free slot for a promotion that is about to be asked for. `None`: the table is full.
    pub fn reserve(&mut self) -> Option<(u32, u32)> {
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_CONNS => {
                self.grow_tables();
                self.slots.push(SlotState::default());
                self.wheel.reserve(self.slots.len());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let limit = self.slots.len() as u32;
        if let Some(header) = self.header_mut() {
            header.conn_limit = limit;
        }
        let record = self.record_mut(slot)?;
        record.generation = record.generation.wrapping_add(1);
        let generation = record.generation;
        compiler_fence(SeqCst);
        record.phase = Phase::Reserved as u32;
        self.reserved += 1;
        Some((slot, generation))
    }

    /// Sees to it that there is room for one more slot wherever there is a place for each, so that nothing is allocated while data moves. By
    /// a sixteenth at a time: half of what doubling reserves would never be used, and the system moves tables of this size without copying.
    fn grow_tables(&mut self) {
        let count = self.slots.len();
        if count < self.slots.capacity() {
            return;
        }
        let most = (count + (count / 16).max(SLOTS_MIN)).min(MAX_CONNS);
        self.slots.reserve_exact(most - count);
        self.wheel.reserve_exact(most);
        self.touched.reserve_exact(most - self.touched.len());
        self.with_events.reserve_exact(most - self.with_events.len());
    }

    /// Gives back a reserved slot whose promotion was refused. Frames of the flow that came meanwhile become leftovers.
    pub fn unreserve(&mut self, slot: u32, now: Instant) {
        let now = self.not_back(now);
        if self.record(slot).is_some_and(|r| Phase::from_raw(r.phase) == Phase::Reserved) {
            self.reserved -= 1;
            self.forget(slot);
            self.sort_early(now);
        }
    }

    /// Fills a reserved slot with a connection and runs it. On an error the slot stays reserved and the kernel socket
    /// still holds everything.
    pub fn import(&mut self, slot: u32, request: &ImportRequest<'_>, now: Instant) -> Result<(), Reason> {
        let now = self.not_back(now);
        let image = request.image;
        if self.record(slot).is_none_or(|r| Phase::from_raw(r.phase) != Phase::Reserved) {
            return Err(Reason::BadImage);
        }
        if self.ports.get(request.port as usize).is_none_or(Option::is_none) {
            // An attachment that failed on this side only: nothing would ever leave.
            return Err(Reason::ProtocolError);
        }
        let rcv_need = u64::from(image.unread()) + u64::from(image.rcv_wnd);
        let wanted = (self.rings.advise(request.rings.0), self.rings.advise(request.rings.1));
        let rcv_len = ring_len(wanted.0, rcv_need).ok_or(Reason::WindowTooLarge)?;
        let snd_len = ring_len(wanted.1, u64::from(image.unacknowledged())).ok_or(Reason::QueueTooLarge)?;
        if self.slot_of(&image.flow).is_some() {
            return Err(Reason::BadImage);
        }
        let rcv_ring = self.rings.take(rcv_len).ok_or(Reason::StackFull)?;
        let Some(snd_ring) = self.rings.take(snd_len) else {
            self.rings.put(rcv_ring);
            return Err(Reason::StackFull);
        };
        if let Err(reason) = self.fill_record(slot, request, (rcv_ring, snd_ring), now) {
            self.drop_rings(rcv_ring, snd_ring);
            return Err(reason);
        }
        self.demux.insert(&image.flow, slot);
        self.reserved -= 1;
        self.live += 1;
        self.touch(slot);
        self.stats().add(Counter::Promotions, 1);
        self.sort_early(now);
        Ok(())
    }

    fn fill_record(
        &mut self,
        slot: u32,
        request: &ImportRequest<'_>,
        (rcv_ring, snd_ring): (RingRef, RingRef),
        now: Instant,
    ) -> Result<(), Reason> {
        let record = self.record_mut(slot).ok_or(Reason::BadImage)?;
        record.flow = request.image.flow;
        record.port = request.port;
        record.fd = request.fd;
        record.inode = request.inode;
        record.path = request.path;
        record.rcv_ring = rcv_ring;
        record.snd_ring = snd_ring;
        record.beyond = PiecesRef::default();
        (record.bytes_in, record.bytes_out) = (0, 0);
        let state = self.slots.get_mut(slot as usize).ok_or(Reason::BadImage)?;
        state.rings = rings_of(rcv_ring, snd_ring).ok_or(Reason::BadImage)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot, state).ok_or(Reason::BadImage)?;
        let mtu = request.path.mtu;
        let recovery = &mut self.slots.get_mut(slot as usize).ok_or(Reason::BadImage)?.recovery;
        Connection::import(&mut record.tcb, snd, rcv, recovery, request.image, request.recv, request.send, mtu, now)
            .map_err(|_| Reason::BadImage)?;
        record.tcb.limit_window(request.rings.0);
        record.tcb.limit_queue(request.rings.1);
        let largest = (request.largest.0.min(MAX_RING), request.largest.1.min(MAX_RING));
        let mut connection = Connection { tcb: &mut record.tcb, snd, rcv, recovery };
        connection.resume(&request.scoreboard);
        connection.tune_buffers(largest.0, largest.1);
        record.tcb.choose_congestion(request.congestion);
        record.tcb.learn_congestion(&request.learnt, now);
        record.tcb.limit_pacing(request.pacing_limit);
        self.recall_path(slot, &request.path, now);
        // The phase makes the record valid for the daemon: last.
        compiler_fence(SeqCst);
        self.record_mut(slot).ok_or(Reason::BadImage)?.phase = Phase::Live as u32;
        Ok(())
    }

    /// Stops a connection for demotion: from here on its record does not change and its frames are held.
    pub fn freeze(&mut self, slot: u32) -> Option<ConnRecord> {
        if Phase::from_raw(self.record(slot)?.phase) != Phase::Live {
            return None;
        }
        self.lay_beside(slot);
        let record = self.record_mut(slot)?;
        compiler_fence(SeqCst);
        record.phase = Phase::Frozen as u32;
        Some(*record)
    }

    /// Lets a frozen connection run again: its demotion failed. What was held meanwhile reaches it now.
    pub fn thaw(&mut self, slot: u32, now: Instant) {
        let now = self.not_back(now);
        let Some(record) = self.record_mut(slot) else { return };
        if Phase::from_raw(record.phase) != Phase::Frozen {
            return;
        }
        record.phase = Phase::Live as u32;
        self.clear_beside(slot);
        self.touch(slot);
        let held = self.take_held(slot);
        self.sort_again(held, now);
        if self.slots.get(slot as usize).is_some_and(|state| state.orphan) {
            self.orphan(slot, now);
        }
    }

    fn take_held(&mut self, slot: u32) -> Vec<Leftover> {
        self.held.remove(&slot).unwrap_or_default()
    }

    /// Ends a frozen connection whose kernel socket lives again.
    pub fn release(&mut self, slot: u32) {
        let Some(&record) = self.record(slot) else { return };
        if Phase::from_raw(record.phase) != Phase::Frozen {
            return;
        }
        self.stats().add(Counter::Demotions, 1);
        self.retire(slot, &record);
    }

    /// Ends a live connection that nobody wants any more (an orphan that the peer has fully acknowledged).
    pub(super) fn bury(&mut self, slot: u32) {
        if let Some(&record) = self.record(slot) {
            self.retire(slot, &record);
        }
    }

    /// Frames held for it become leftovers.
    fn retire(&mut self, slot: u32, record: &ConnRecord) {
        let held = self.take_held(slot);
        self.leftovers.extend(held);
        self.clear_beside(slot);
        self.demux.remove(&record.flow, slot);
        self.forget(slot);
        if let Some(state) = self.slots.get_mut(slot as usize) {
            let (rcv, snd) = ring_refs(&std::mem::take(&mut state.rings));
            self.drop_rings(rcv, snd);
        }
        self.live -= 1;
    }

    fn drop_rings(&mut self, rcv: RingRef, snd: RingRef) {
        self.drop_ring(rcv);
        self.drop_ring(snd);
    }

    pub(super) fn drop_ring(&mut self, ring: RingRef) {
        if let Some((offset, len)) = ring.range() {
            self.arena.discard(offset, len);
            self.rings.put(ring);
        }
    }

    fn forget(&mut self, slot: u32) {
        if let Some(record) = self.record_mut(slot) {
            record.phase = Phase::Free as u32;
        }
        if let Some(state) = self.slots.get_mut(slot as usize) {
            // `touched` and `pending` stand for entries in lists that skip free slots.
            state.orphan = false;
            state.scheduled = Instant::NEVER;
            state.queue = 0;
            state.recovery = Recovery::default();
        }
        self.wheel.stop(slot);
        self.free.push_back(slot);
    }

    /// The program is done with the connection and the daemon cannot take it back: close it here, freed when the peer
    /// has acknowledged everything.
    pub fn orphan(&mut self, slot: u32, now: Instant) {
        let now = self.not_back(now);
        if self.record(slot).is_some_and(|record| Phase::from_raw(record.phase) == Phase::Frozen)
            && let Some(state) = self.slots.get_mut(slot as usize)
        {
            // Whoever thaws it goes on here.
            state.orphan = true;
            return;
        }
        let Some(mut connection) = self.connection(slot) else { return };
        connection.shutdown_write(now);
        if connection.tcb.is_closed() {
            return self.bury(slot);
        }
        if let Some(state) = self.slots.get_mut(slot as usize) {
            state.orphan = true;
        }
        self.limit_orphan(slot, now);
        self.touch(slot);
    }

    /// Something has happened to an orphan: it does not wait for its peer for ever.
    pub(super) fn limit_orphan(&mut self, slot: u32, now: Instant) {
        let Some(mut connection) = self.connection(slot) else { return };
        if connection.is_shut_out() {
            return self.bury(slot);
        }
        connection.hurry_peer(now);
        let bound = connection.tcb.deadline_bound();
        if let Some(state) = self.slots.get_mut(slot as usize) {
            state.schedule(&mut self.wheel, slot, bound, now);
        }
    }

    /// Packets of a connection take another path from now on.
    pub fn set_path(&mut self, slot: u32, generation: u32, path: Path, now: Instant) {
        let now = self.not_back(now);
        let Some(record) = self.record_mut(slot) else { return };
        if record.generation != generation || Phase::from_raw(record.phase) == Phase::Free {
            return;
        }
        record.path = path;
        if let Some(mut connection) = self.connection(slot) {
            connection.set_path_mtu(now, path.mtu, path.known());
        }
        self.touch(slot);
    }

    /// The slots of live connections.
    pub fn live_slots(&self) -> Vec<u32> {
        (0..self.slots.len() as u32)
            .filter(|&slot| self.record(slot).is_some_and(|r| Phase::from_raw(r.phase) == Phase::Live))
            .collect()
    }

    /// Has the connection something to say at the end of this pass?
    #[inline]
    pub fn touch(&mut self, slot: u32) {
        if let Some(state) = self.slots.get_mut(slot as usize)
            && !state.touched
        {
            state.touched = true;
            self.touched.push(slot);
        }
    }
}
