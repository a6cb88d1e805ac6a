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
    /// the kernel had promised does not make the next promise larger still. A window that the header cannot express is none: less than one
    /// unit of its scale would be told as 0 for ever, and more than the largest number never used up.
    pub fn limit_window(&mut self, bytes: u32) {
        self.rcvbuf = bytes.clamp(1 << self.rcv_wscale.min(14), self.expressible_window());
    }

    /// The largest window that the header can tell, bytes.
    pub(crate) fn expressible_window(&self) -> u32 {
        u32::from(u16::MAX) << self.rcv_wscale.min(14)
    }

    /// No more is queued for sending than this many bytes, though the ring may be larger, for what had been queued in the kernel.
    pub fn limit_queue(&mut self, bytes: u32) {
        self.snd_limit = bytes;
    }

    /// What of the ring may be offered.
    fn offerable(&self, ring: usize) -> u32 {
        // 0 wraps, and is no limit.
        if self.rcvbuf.wrapping_sub(1) < ring as u32 { self.rcvbuf } else { ring as u32 }
    }

    /// The window field of a segment that goes out now; what it promises is remembered in `rcv_adv`.
    ///
    /// The right edge never moves back and never past the free space of the ring. Where the scaled field cannot express
    /// the promised edge, it is rounded up if there is room, else down; what was promised is accepted all the same.
    #[inline(always)]
    pub(crate) fn offer_window(&mut self, ring: usize) -> u16 {
        let scale = self.rcv_wscale.min(14);
        // As distances from what has arrived, in the order in which they nearly always lie.
        let offerable = self.offerable(ring);
        let (room, promised) = (self.rcv_read.plus(offerable).since(self.rcv_nxt), self.rcv_adv.since(self.rcv_nxt));
        if (room | promised) >> scale < u32::from(u16::MAX) {
            let rest = (1 << scale) - 1;
            let grows = room.saturating_sub(promised) >= u32::from(self.rcv_mss).min(offerable / 2);
            let up = (promised + rest) & !rest;
            let told = if grows {
                room & !rest
            } else if up <= room {
                up
            } else {
                promised & !rest
            };
            self.rcv_adv = self.rcv_nxt.plus(told.max(promised));
            return (told >> scale) as u16;
        }
        self.offer_any_window(ring)
    }

    /// The same for any numbers.
    #[inline(never)]
    fn offer_any_window(&mut self, ring: usize) -> u16 {
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
        room_edge.ahead_of(self.rcv_adv) >= u32::from(self.rcv_mss).min(offerable / 2)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;
    use crate::tcp::seq::SeqNr;

    /// A distance as it nearly always is, or any.
    fn distance() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..1 << 20, 0u32..3, (0u32..1 << 20).prop_map(|n| n.wrapping_neg()), any::<u32>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        /// The short way and the one that takes any numbers.
        #[test]
        fn both_ways_offer_the_same(
            next: u32,
            unread in distance(),
            promised in distance(),
            rcvbuf in prop_oneof![Just(0u32), distance()],
            rcv_mss in prop_oneof![Just(0u16), 500u16..9000, any::<u16>()],
            scale in 0u8..20,
            ring in 10u32..27,
        ) {
            let mut tcb = Tcb::new_zeroed();
            tcb.rcv_nxt = SeqNr(next);
            (tcb.rcv_read, tcb.rcv_adv) = (tcb.rcv_nxt.minus(unread), tcb.rcv_nxt.plus(promised));
            (tcb.rcvbuf, tcb.rcv_mss, tcb.rcv_wscale) = (rcvbuf, rcv_mss, scale);
            let mut other = tcb;
            let fields = (tcb.offer_window(1 << ring), other.offer_any_window(1 << ring));
            prop_assert_eq!(fields.0, fields.1);
            prop_assert_eq!(tcb.as_bytes(), other.as_bytes());
        }
    }
}
