//! What goes out next, where nothing is unusual?
//!
//! Nearly always it is the next new data as far as a full segment holds it, or an acknowledgement alone. A few looks find that out; all
//! that [`super::output`] asks of other states need not be asked then. Both do the same to such a segment; the test of
//! [`super::predict`] holds them against each other.

use super::connection::Connection;
use super::image::flag;
use super::nagle::Partial;
use super::segment::PlainOut;
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};
use super::time::Instant;
use super::undo::Frto;

/// With one of these there is more to say, or less may be said.
const UNUSUAL: u32 = flag::RESET_RECEIVED
    | flag::FIN_QUEUED
    | flag::CORK
    | flag::ECN
    | bit::MORE
    | bit::DONE
    | bit::CHALLENGE
    | bit::ACK_LATE
    | bit::WINDOW_PROBE
    | bit::KEEPALIVE_PROBE
    | bit::LOSS_PROBE
    | bit::OVERRIDE
    | bit::DUPLICATE;

impl Connection<'_> {
    /// The next segment, if it is an ordinary one: new data or a bare acknowledgement, without SACK blocks, mark or FIN. `None`:
    /// [`Connection::next_segment`] has to be asked, and nothing has happened.
    #[inline(always)]
    pub(crate) fn foreseen_segment(&mut self, now: Instant) -> Option<PlainOut> {
        let (tcb, recovery) = (&*self.tcb, &*self.recovery);
        let is_usual = tcb.has_usual_bits() & recovery.is_calm() & (recovery.frto == Frto::Off) & tcb.ooo.is_empty();
        if !is_usual {
            return None;
        }
        if tcb.snd_end != tcb.snd_nxt {
            let (start, (end, full)) = (tcb.snd_nxt, self.foreseen_data(now)?);
            // It is calm: all that was sent and not acknowledged is in the network.
            self.depart(now, end, full, self.recovery.sent.span());
            return Some(self.plain_segment(now, start, end.since(start)));
        }
        if !tcb.has(bit::ACK_NOW) || tcb.snd_nxt.gt(tcb.snd_edge()) {
            return None;
        }
        Some(self.plain_segment(now, tcb.snd_nxt, 0))
    }

    /// Where the next segment of new data ends, and what a full one holds, if it may leave now.
    #[inline(always)]
    fn foreseen_data(&mut self, now: Instant) -> Option<(SeqNr, u32)> {
        let (tcb, recovery) = (&*self.tcb, &*self.recovery);
        let (unsent, full, in_flight) = (tcb.snd_end.ahead_of(tcb.snd_nxt), tcb.mss.max(1), recovery.sent.span());
        let len = unsent.min(full);
        let fits_peer = len != 0 && tcb.snd_edge().ahead_of(tcb.snd_nxt) >= len;
        let fits_path = in_flight == 0 || in_flight.saturating_add(len) <= tcb.cc.cwnd();
        let is_paced = (tcb.pacing.rate() != 0) | tcb.cc.goes_by_rate();
        let is_free = recovery.loss.dup_acks == 0 && !is_paced && !tcb.may_probe(now);
        if !(fits_peer & fits_path & is_free) || (len < full && tcb.partial() != Partial::Send) {
            return None;
        }
        if tcb.flight() == 0 {
            // Only this may change the window, and never below a segment.
            self.tcb.restart(now, recovery.rate.is_app_limited());
        }
        Some((self.tcb.snd_nxt.plus(len), full))
    }
}

impl Tcb {
    #[inline(always)]
    fn has_usual_bits(&self) -> bool {
        self.bits & UNUSUAL == 0
    }
}
