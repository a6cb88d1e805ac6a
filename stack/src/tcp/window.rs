//! What window do we offer?

use super::connection::Connection;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};

impl Tcb {
    /// The window that the peer may still use, bytes.
    pub(crate) fn rcv_window(&self) -> u32 {
        self.rcv_adv.ahead_of(self.rcv_nxt)
    }

    /// No window is offered beyond this many bytes (an older promise is kept all the same): a ring that had to be large for what
    /// the kernel had promised does not make the next promise larger still.
    pub fn limit_window(&mut self, bytes: u32) {
        self.rcvbuf = bytes;
    }

    /// No more is queued for sending than this many bytes, though the ring may be larger, for what had been queued in the kernel.
    pub fn limit_queue(&mut self, bytes: u32) {
        self.snd_limit = bytes;
    }

    /// What of the ring may be offered.
    fn offerable(&self, ring: usize) -> u32 {
        match self.rcvbuf {
            0 => ring as u32,
            limit => limit.min(ring as u32),
        }
    }

    /// The window field of a segment that goes out now; what it promises is remembered in `rcv_adv`.
    ///
    /// The right edge never moves back and never past the free space of the ring. Where the scaled field cannot express
    /// the promised edge, it is rounded up if there is room, else down; what was promised is accepted all the same.
    #[inline(always)]
    pub(crate) fn offer_window(&mut self, ring: usize) -> u16 {
        let scale = self.rcv_wscale.min(14);
        let room_edge = self.rcv_read.plus(self.offerable(ring));
        let edge = if self.worth_growing(ring) { room_edge } else { self.rcv_adv };
        let mut field = (edge.ahead_of(self.rcv_nxt) >> scale).min(u32::from(u16::MAX));
        let at = |field: u32| self.rcv_nxt.plus(field << scale);
        if at(field).lt(self.rcv_adv) && field < u32::from(u16::MAX) && at(field + 1).le(room_edge) {
            field += 1;
        }
        self.rcv_adv = self.rcv_adv.later(at(field));
        field as u16
    }

    /// Would the edge move far enough to be worth it (RFC 9293, section 3.8.6.2.2)?
    fn worth_growing(&self, ring: usize) -> bool {
        let offerable = self.offerable(ring);
        let room_edge: SeqNr = self.rcv_read.plus(offerable);
        room_edge.ahead_of(self.rcv_adv) >= self.rcv_mss.min(offerable / 2)
    }
}

impl Connection<'_> {
    /// The largest window that is offered, bytes: what [`Tcb::limit_window`] said, or the whole ring.
    pub fn recv_limit(&self) -> usize {
        self.tcb.offerable(self.rcv.len()) as usize
    }

    /// The program has read: is an acknowledgement due? Either because the window could at least double (as Linux does,
    /// so that a bulk transfer needs few updates), or because a pushed message was read and no answer is to be expected.
    #[inline(always)]
    pub(crate) fn after_read(&mut self) {
        let ring = self.rcv.len();
        let tcb = &mut *self.tcb;
        let (window, offerable) = (tcb.rcv_window(), tcb.offerable(ring));
        let opens = window <= offerable / 2 && {
            let room = tcb.rcv_read.plus(offerable).ahead_of(tcb.rcv_nxt);
            room >= window.saturating_mul(2) && tcb.worth_growing(ring)
        };
        let is_one_way = tcb.bits & (bit::PUSHED | bit::PINGPONG) == bit::PUSHED && tcb.readable() == 0;
        if (opens || (is_one_way && tcb.rcv_wup != tcb.rcv_nxt)) && !tcb.fin_received() {
            tcb.set(bit::ACK_NOW);
        }
    }
}
