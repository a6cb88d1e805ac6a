//! Which segments are lost, and what is still in the network? (RFC 6675; RFC 6582 where the peer sends no SACK)
//!
//! Everything before `lost_below` that is not selectively acknowledged counts as lost; what of it lies before `rtx_nxt`
//! was sent again. Both stand at `snd_una` while nothing is known to be lost.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ranges::{Range, Ranges};
use super::seq::SeqNr;

/// Duplicate acknowledgements that mean loss (RFC 5681, section 3.2).
const DUP_THRESH: u32 = 3;

/// Where loss recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// What recovery needs to know of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub una: SeqNr,
    pub nxt: SeqNr,
    pub mss: u32,
    /// Does the peer send SACK?
    pub sack: bool,
}

/// Loss state of one connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Loss {
    /// Selectively acknowledged data.
    sacked: Ranges,
    /// A [`Phase`].
    phase: u32,
    /// Recovery ends when everything before this is acknowledged.
    recover: SeqNr,
    lost_below: SeqNr,
    rtx_nxt: SeqNr,
    /// `snd_nxt` when something was last sent again.
    resent_at: SeqNr,
    /// Duplicate acknowledgements in a row; without SACK, each stands for a segment that has left the network.
    dup_acks: u32,
    /// Retransmission timeouts in a row.
    timeouts: u32,
    /// Always zero.
    pad: u32,
}

impl Loss {
    /// Nothing is lost, `una` is the oldest unacknowledged number.
    pub fn new(una: SeqNr) -> Self {
        Self { recover: una.minus(1), lost_below: una, rtx_nxt: una, ..Self::default() }
    }

    pub fn phase(&self) -> Phase {
        match self.phase {
            1 => Phase::Recovery,
            2 => Phase::Loss,
            _ => Phase::Open,
        }
    }

    /// Retransmission timeouts since the peer last acknowledged something new.
    pub fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// Has the peer selectively acknowledged anything?
    pub fn has_sacked(&self) -> bool {
        !self.sacked.is_empty()
    }

    /// Bytes that the peer has selectively acknowledged.
    pub fn sacked_bytes(&self) -> u32 {
        self.sacked.total()
    }

    /// Estimate of the bytes in the network (RFC 6675, section 4, SetPipe).
    pub fn pipe(&self, f: Flight) -> u32 {
        if self.phase == 0 && self.dup_acks == 0 && self.sacked.is_empty() {
            return f.nxt.since(f.una);
        }
        let resent = self.sacked.missing(f.una, self.rtx_nxt);
        let unharmed = self.sacked.missing(self.lost_below, f.nxt);
        let left = if f.sack || self.phase() == Phase::Loss { 0 } else { self.dup_acks.saturating_mul(f.mss) };
        (resent + unharmed).saturating_sub(left)
    }

    /// A SACK block of the peer (RFC 2018). Blocks of nothing in flight (D-SACK, nonsense) are passed over.
    pub fn sack(&mut self, start: SeqNr, end: SeqNr, f: Flight) {
        if f.una.lt(start) && start.lt(end) && end.le(f.nxt) {
            // A block that finds no room is reported again by the peer, or its data sent again in vain.
            self.sacked.insert(start, end);
        }
    }

    /// A duplicate acknowledgement, or one with news about gaps. True if recovery begins with it.
    pub fn duplicate(&mut self, f: Flight, probed: bool) -> bool {
        self.dup_acks = self.dup_acks.saturating_add(1);
        match self.phase() {
            Phase::Open => self.open_to_recovery(f, probed),
            Phase::Recovery | Phase::Loss if f.sack => {
                self.look_again(f);
                false
            }
            Phase::Recovery | Phase::Loss => false,
        }
    }

    /// News about gaps during recovery: all of them are losses; and if data that left after the last retransmission has
    /// arrived, then those retransmissions which have not are lost as well.
    fn look_again(&mut self, f: Flight) {
        let Some(top) = self.sacked.highest() else { return };
        self.lost_below = top.later(self.lost_below);
        if self.rtx_nxt.gt(f.una) && top.gt(self.resent_at.plus((DUP_THRESH - 1) * f.mss)) {
            self.rtx_nxt = f.una;
        }
    }

    /// Enters recovery if the signs suffice. After an answered tail loss probe any gap is old enough to be a loss.
    pub fn open_to_recovery(&mut self, f: Flight, probed: bool) -> bool {
        let by_sack = self.sacked.total() > (DUP_THRESH - 1) * f.mss || (probed && self.has_sacked());
        // Without SACK, duplicates of our own retransmissions look the same (RFC 6582, section 3.2, step 2).
        let by_count = self.dup_acks >= DUP_THRESH && (self.has_sacked() || (!f.sack && f.una.gt(self.recover)));
        if self.phase() != Phase::Open || !(by_sack || by_count) || f.una == f.nxt {
            return false;
        }
        self.phase = Phase::Recovery as u32;
        self.recover = f.nxt;
        self.rtx_nxt = f.una;
        let head = f.una.plus(f.mss).earlier(f.nxt);
        self.lost_below = self.sacked.highest().map_or(head, |top| top.later(head));
        true
    }

    /// The retransmission timer ran out: everything counts as lost. What was selectively acknowledged is forgotten, for
    /// the peer may have dropped it (RFC 2018, section 8).
    pub fn timeout(&mut self, f: Flight) {
        self.sacked.clear();
        self.phase = Phase::Loss as u32;
        self.recover = f.nxt;
        self.lost_below = f.nxt;
        self.rtx_nxt = f.una;
        self.dup_acks = 0;
        self.timeouts = self.timeouts.saturating_add(1);
    }

    /// What is in flight was too large for the path: what the peer has not reported goes again, cut smaller. No sign of congestion.
    pub fn too_large(&mut self, f: Flight) {
        self.phase = Phase::Loss as u32;
        self.recover = f.nxt;
        self.lost_below = f.nxt;
        self.rtx_nxt = f.una;
        self.dup_acks = 0;
    }

    /// The peer acknowledged `acked` new bytes, up to `f.una`.
    pub fn progress(&mut self, f: Flight, acked: u32) {
        let resent = self.rtx_nxt;
        self.timeouts = 0;
        self.sacked.trim(f.una);
        self.rtx_nxt = self.rtx_nxt.later(f.una);
        self.lost_below = self.lost_below.later(f.una);
        match self.phase() {
            Phase::Open => {
                self.dup_acks = 0;
                // Stays close behind, so that it never looks like a number ahead.
                self.recover = self.recover.later(f.una.minus(1));
            }
            Phase::Recovery | Phase::Loss if f.una.ge(self.recover) => self.leave(f),
            Phase::Recovery if f.sack => self.partial(f, resent),
            Phase::Recovery => {
                let segments = acked / f.mss.max(1);
                self.dup_acks = self.dup_acks.saturating_sub(segments.saturating_sub(1));
                self.rtx_nxt = f.una;
                self.lost_below = f.una.plus(f.mss).earlier(f.nxt);
            }
            Phase::Loss => self.dup_acks = 0,
        }
    }

    /// A partial acknowledgement with SACK. If it covers what was sent again, whatever was sent before that and is still
    /// missing is lost too.
    fn partial(&mut self, f: Flight, resent: SeqNr) {
        if resent.le(f.una) || self.sacked.is_empty() {
            self.lost_below = self.lost_below.later(self.recover.earlier(f.nxt));
        }
    }

    fn leave(&mut self, f: Flight) {
        self.phase = Phase::Open as u32;
        self.dup_acks = 0;
        self.lost_below = f.una;
        self.rtx_nxt = f.una;
    }

    /// What to send again next: at most this range.
    pub fn next_lost(&self) -> Option<Range> {
        if self.phase() == Phase::Open {
            return None;
        }
        self.sacked.gap(self.rtx_nxt, self.lost_below)
    }

    /// Is the oldest byte still to be sent again? That one does not wait for the congestion window (RFC 6675, section 5, 4.3).
    pub fn head_is_due(&self, una: SeqNr) -> bool {
        self.rtx_nxt == una
    }

    /// Everything before `end` that was lost has been sent again; `nxt` is the next number that was never sent.
    pub fn resent(&mut self, end: SeqNr, nxt: SeqNr) {
        self.rtx_nxt = end;
        self.resent_at = nxt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn flight(una: u32, nxt: u32, sack: bool) -> Flight {
        Flight { una: SeqNr(una), nxt: SeqNr(nxt), mss: MSS, sack }
    }

    #[test]
    fn three_duplicates_lose_the_head_and_a_partial_ack_the_next() {
        let mut loss = Loss::new(SeqNr(0));
        let f = flight(0, 10_000, false);
        assert!(!loss.duplicate(f, false));
        assert!(!loss.duplicate(f, false));
        assert_eq!(loss.pipe(f), 8_000, "limited transmit: two segments have left");
        assert!(loss.duplicate(f, false));
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(0), end: SeqNr(1000) }));
        loss.resent(SeqNr(1000), f.nxt);
        assert_eq!(loss.next_lost(), None);
        let f = flight(4000, 10_000, false);
        loss.progress(f, 4000);
        assert_eq!(loss.phase(), Phase::Recovery);
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(4000), end: SeqNr(5000) }));
        loss.progress(flight(10_000, 10_000, false), 6000);
        assert_eq!(loss.phase(), Phase::Open);
    }

    #[test]
    fn sacked_bytes_show_every_hole() {
        let mut loss = Loss::new(SeqNr(0));
        let f = flight(0, 10_000, true);
        loss.sack(SeqNr(1000), SeqNr(2000), f);
        assert!(!loss.duplicate(f, false));
        loss.sack(SeqNr(3000), SeqNr(5000), f);
        assert!(loss.duplicate(f, false), "three segments are above the hole");
        assert_eq!(loss.pipe(f), 5_000);
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(0), end: SeqNr(1000) }));
        loss.resent(SeqNr(1000), f.nxt);
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(2000), end: SeqNr(3000) }));
        loss.resent(SeqNr(3000), f.nxt);
        assert_eq!(loss.next_lost(), None);
        assert_eq!(loss.pipe(f), 7_000);
    }

    #[test]
    fn a_lost_retransmission_shows_when_later_data_arrives() {
        let mut loss = Loss::new(SeqNr(0));
        let f = flight(0, 10_000, true);
        loss.sack(SeqNr(1000), SeqNr(4000), f);
        assert!(loss.duplicate(f, false));
        loss.resent(SeqNr(1000), SeqNr(10_000));
        let f = flight(0, 15_000, true);
        loss.sack(SeqNr(4000), SeqNr(12_000), f);
        assert!(!loss.duplicate(f, false));
        assert_eq!(loss.next_lost(), None, "two segments beyond could be reordering");
        loss.sack(SeqNr(12_000), SeqNr(13_000), f);
        assert!(!loss.duplicate(f, false));
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(0), end: SeqNr(1000) }));
    }

    #[test]
    fn a_timeout_sends_everything_again_once() {
        let mut loss = Loss::new(SeqNr(0));
        let f = flight(0, 3_000, true);
        loss.sack(SeqNr(1000), SeqNr(2000), f);
        loss.timeout(f);
        assert_eq!(loss.pipe(f), 0);
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(0), end: SeqNr(3000) }));
        loss.resent(SeqNr(1000), f.nxt);
        assert_eq!(loss.pipe(f), 1000);
        loss.progress(flight(2000, 3000, true), 2000);
        assert_eq!(loss.next_lost(), Some(Range { start: SeqNr(2000), end: SeqNr(3000) }));
        loss.progress(flight(3000, 3000, true), 1000);
        assert_eq!((loss.phase(), loss.timeouts()), (Phase::Open, 0));
    }

    #[test]
    fn nonsense_blocks_are_passed_over() {
        let mut loss = Loss::new(SeqNr(100));
        let f = flight(100, 200, true);
        for (start, end) in [(0, 50), (50, 150), (150, 250), (180, 170), (100, 150)] {
            loss.sack(SeqNr(start), SeqNr(end), f);
        }
        assert!(!loss.has_sacked());
    }
}
