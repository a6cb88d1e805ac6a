//! Connections that change hands: from the kernel to the stack and back, while frames arrive.

use underpass_stack::arena::{ConnRecord, Phase, RingRef};
use underpass_stack::mem::ring;
use underpass_stack::stack::{ImportRequest, Keeper};
use underpass_stack::tcp::image::Image;
use underpass_stack::tcp::{Learnt, State};

use super::checks::ENDS;
use super::ends::{Ends, Home};
use super::player::Player;
use super::stream::{assert_is, bytes};

/// Promotions under way at most.
const RESERVED: usize = 3;

impl Player<'_> {
    /// A promotion is begun, or one that was begun comes to nothing.
    pub(super) fn reserve(&mut self) {
        if self.input.byte() % 2 == 0 && self.reserved.len() < RESERVED {
            let (slot, _) = self.stack.reserve().expect("a free slot");
            self.reserved.push(slot);
        } else if let Some(slot) = self.reserved.pop() {
            self.stack.unreserve(slot, self.now);
        }
    }

    pub(super) fn freeze(&mut self) {
        let n = self.pick();
        let Some(slot) = self.ends[n].slot() else { return };
        let is_live = self.is_live(n);
        assert_eq!(self.stack.freeze(slot).is_some(), is_live);
        self.check_frozen(n);
    }

    pub(super) fn thaw(&mut self) {
        let n = self.pick();
        let Some(slot) = self.ends[n].slot() else { return };
        let before = self.frames_for_kernel();
        self.stack.thaw(slot, self.now);
        let is_all = self.ends[n].orphan || self.frames_for_kernel() == before;
        assert!(is_all, "the kernel has what was held for connection {n}, which runs again");
    }

    fn frames_for_kernel(&self) -> usize {
        self.stack.kept_frames().into_iter().filter(|(keeper, _)| *keeper == Keeper::Kernel).count()
    }

    /// To the kernel or back, whichever is next.
    pub(super) fn change_hands(&mut self) {
        let n = self.pick();
        if self.input.byte() % 4 == 0 {
            return self.take_place(n);
        }
        match self.ends[n].home {
            Home::Kernel => self.promote(n),
            Home::Stack { .. } => self.demote(n),
        }
    }

    /// Another connection takes the place of one whose peer goes on, in sequence numbers that the other would take.
    fn take_place(&mut self, n: usize) {
        let other = self.pick();
        if n == other || !self.is_live(n) || !self.is_live(other) {
            return;
        }
        self.ends[n].synchronise();
        let forged = self.ends[n].honest(1);
        self.stage_honest(n, &forged);
        self.pass(usize::MAX);
        self.demote(n);
        self.demote(other);
        self.promote(other);
        self.ends[other].synchronise();
        let mut forged = self.ends[other].honest(100);
        forged.payload = bytes(self.ends[n].peers(), forged.seq, forged.payload.len());
        self.stage_hostile(n, &forged);
        self.pass(usize::MAX);
    }

    fn demote(&mut self, n: usize) {
        let Some(slot) = self.ends[n].slot() else { return };
        // Of a connection that lives on it is known what it has sent.
        self.depart_all(0);
        self.stack.freeze(slot);
        let Some(record) = self.stack.record(slot).copied() else { return };
        self.check_frozen(n);
        self.stack.release(slot);
        let ends = &mut self.ends[n];
        ends.home = Home::Kernel;
        let is_over = ends.orphan || record.tcb.state() == State::Closed || ends.events & ENDS != 0;
        if is_over {
            *ends = ends.next_life();
        } else {
            ends.seen = record.tcb.image(ends.setup.flow, self.now);
            self.reached.insert("a connection that changed hands");
        }
    }

    /// From the kernel, which has the connection as it was last seen.
    pub(super) fn promote(&mut self, n: usize) {
        let (slot, generation) = match self.reserved.pop() {
            Some(slot) => (slot, self.stack.record(slot).map_or(0, |record| record.generation)),
            None => self.stack.reserve().expect("a free slot"),
        };
        let ends = &self.ends[n];
        let image = ends.seen;
        let unread = bytes(ends.peers(), image.rcv_read, image.unread() as usize);
        let unacked = bytes(ends.own(), oldest(&image), image.unacknowledged() as usize);
        let request = ImportRequest {
            image: &image,
            recv: &unread,
            send: &unacked,
            scoreboard: Default::default(),
            port: 0,
            path: ends.setup.path(),
            fd: n as i32,
            inode: n as u64,
            rings: ends.setup.rings,
            largest: ends.setup.largest,
            congestion: ends.setup.congestion,
            learnt: Learnt::Nothing,
            pacing_limit: u64::MAX,
        };
        match self.stack.import(slot, &request, self.now) {
            Ok(()) => {
                self.ends[n].home = Home::Stack { slot, generation };
                self.ends[n].rings = (0, 0);
            }
            Err(reason) => panic!("connection {n} was not taken: {reason:?} {image:?}"),
        }
        self.stack.send_touched(self.now);
    }

    /// Nobody holds a socket for a connection any more.
    pub(super) fn end(&mut self) {
        let (n, is_meant) = (self.pick(), self.input.byte() % 4 == 0);
        if is_meant
            && self.is_live(n)
            && let Some(slot) = self.ends[n].slot()
        {
            self.stack.orphan(slot, self.now);
            self.ends[n].orphan = true;
        }
    }

    /// What the daemon finds of a frozen connection: an image that is sound, and its bytes.
    fn check_frozen(&self, n: usize) {
        let ends = &self.ends[n];
        let record = ends.slot().and_then(|slot| self.stack.record(slot));
        let Some(record) = record.filter(|record| Phase::from_raw(record.phase) == Phase::Frozen) else { return };
        let image = record.tcb.image(ends.setup.flow, self.now);
        assert!(image.is_sound(record.rcv_ring.len, record.snd_ring.len), "{image:?}");
        let unread = self.ring(record.rcv_ring, record.tcb.rcv_place(image.rcv_read), image.unread());
        assert_is(ends.peers(), image.rcv_read, &unread, "what a frozen connection has not read");
        let first = oldest(&image);
        let unacked = self.ring(record.snd_ring, record.tcb.snd_place(first), image.unacknowledged());
        assert_is(ends.own(), first, &unacked, "what a frozen connection has not delivered");
        self.check_ahead(ends, record);
    }

    /// What arrived out of order lies where the record and what is beside it say.
    fn check_ahead(&self, ends: &Ends, record: &ConnRecord) {
        let beside = record.beyond.range().and_then(|(offset, len)| self.stack.arena().bytes(offset, len));
        let mut last = record.tcb.image(ends.setup.flow, self.now).rcv_nxt;
        for (start, end) in record.tcb.ahead(record.rcv_ring.len, beside.unwrap_or_default()) {
            assert!(start.wrapping_sub(last) < 1 << 31 && end.wrapping_sub(start) < 1 << 31 && start != end);
            let held = self.ring(record.rcv_ring, record.tcb.rcv_place(start), end.wrapping_sub(start));
            assert_is(ends.peers(), start, &held, "what a frozen connection has out of order");
            last = end;
        }
    }

    /// `len` bytes of a ring from a place on.
    fn ring(&self, ring: RingRef, place: u32, len: u32) -> Vec<u8> {
        let (offset, size) = ring.range().expect("a ring of the arena");
        let mut out = vec![0; len as usize];
        ring::read(self.stack.arena().bytes(offset, size).expect("a ring of the arena"), place, &mut out);
        out
    }
}

/// The first unacknowledged byte.
fn oldest(image: &Image) -> u32 {
    image.snd_end.wrapping_sub(image.unacknowledged())
}
