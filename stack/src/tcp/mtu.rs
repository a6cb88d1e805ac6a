//! How large may packets be? (RFC 1191, RFC 8201; RFC 4821 and RFC 8899 where routers say nothing)
//!
//! Downwards: a router says so (believed only if it quotes something that is in flight, RFC 5927, section 4.1), or full segments
//! stay unanswered while nothing says why: a black hole. Upwards: now and then one segment is sent larger than the others.
//! If it is lost, it is sent again in the proven size, and the congestion window stays as it is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::connection::Connection;
use super::image::flag;
use super::outcome::Outcome;
use super::segment::SackBlocks;
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;
use super::timer::Timer;
use crate::stats::Counter;
use crate::wire::tcp::options_len;

/// Linux: `net.ipv4.route.min_pmtu`. Who claims that less fits is not believed that far: all would be headers.
const CLAIM_MIN: u32 = 552;
/// Sizes to fall back to, one after the other, when full segments vanish: what IPv6 guarantees, RFC 4821's (section 7.2), and
/// what every IPv4 host takes (RFC 791). Packets that were never larger than the first are not suspected.
const FALLBACKS: [u32; 3] = [1280, 1024, 576];
/// Timeouts in a row that make a black hole of silence; each smaller size takes one more, for where much is lost they are common.
const SILENCE: u32 = 2;
/// Probes of one size that are lost before it counts as too large (RFC 8899, section 5.1.2, MAX_PROBES).
const PROBES_MAX: u8 = 3;
/// A gain in size that is not worth a probe, bytes (Linux: TCP_PROBE_THRESHOLD).
const GAIN_MIN: u32 = 8;
/// After this, what was too large may be tried again, ns (RFC 8899, section 5.1.1, PMTU_RAISE_TIMER).
const RAISE: u64 = 600_000_000_000;
/// Full segments that follow a probe, so that its loss shows without a timeout (RFC 4821, section 7.4).
const FOLLOWERS: u32 = 3;

/// The size of a connection's packets, all in bytes of IP packet, which are never more than 16 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct PathMtu {
    /// After this the search may begin anew; [`Instant::NEVER`]: it has never ended.
    rested: Instant,
    /// Largest packet to send.
    current: u16,
    /// What route and interface allow.
    limit: u16,
    /// Larger packets than this are known not to get through; while [`Source::Suspected`], what got through before.
    ceiling: u16,
    /// Size of the probe that is in flight, or 0.
    probe: u16,
    /// Where the probe's data begins ...
    probe_start: SeqNr,
    /// ... and how much of the sequence space it takes.
    probe_len: u16,
    /// Probes of the next size that were lost.
    lost: u8,
    /// A [`Source`], [`HALVING`] and [`WAS_HOLE`].
    bits: u8,
}

/// The ceiling itself was tried in vain: with [`Source`] in [`PathMtu::bits`].
const HALVING: u8 = 4;
/// Before the present suspicion there was a black hole already.
const WAS_HOLE: u8 = 8;

/// No packet is larger than 65,535 bytes.
fn short(bytes: u32) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// Where the present size comes from, if it is less than the route allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// From a router, or from the route.
    Told,
    /// Full segments vanished; nothing has been acknowledged since.
    Suspected,
    /// They did, and smaller ones arrive.
    BlackHole,
}

impl PathMtu {
    /// Nothing is known but what the route allows.
    pub fn new(limit: u32) -> Self {
        let limit = short(limit);
        Self { current: limit, limit, ceiling: limit, ..Self::default() }
    }

    /// Largest packet to send.
    pub fn current(&self) -> u32 {
        self.current.into()
    }

    fn source(&self) -> Source {
        match self.bits & !(HALVING | WAS_HOLE) {
            1 => Source::Suspected,
            2 => Source::BlackHole,
            _ => Source::Told,
        }
    }

    fn set_source(&mut self, source: Source) {
        self.bits = (self.bits & (HALVING | WAS_HOLE)) | source as u8;
    }

    /// The size that a black hole has taught. The kernel cannot find it out by itself.
    pub fn black_hole(&self) -> Option<u32> {
        (self.source() == Source::BlackHole && self.current < self.limit).then(|| self.current())
    }

    fn lower(&mut self, to: u32, source: Source) {
        self.current = short(to);
        self.set_source(source);
        (self.probe, self.lost) = (0, 0);
    }

    /// Full segments vanish: less may get through.
    fn suspect(&mut self, smaller: u32) {
        let source = self.source();
        if source != Source::Suspected {
            let before = self.current();
            self.bits &= !WAS_HOLE;
            self.bound(before);
            if source == Source::BlackHole {
                self.bits |= WAS_HOLE;
            }
        }
        self.lower(smaller, Source::Suspected);
        self.rested = Instant::NEVER;
    }

    /// The suspicion was wrong: what was sent before it arrived after all. What was larger than that is left alone for a while.
    fn acquit(&mut self, now: Instant) {
        let source = if self.bits & WAS_HOLE == 0 { Source::Told } else { Source::BlackHole };
        self.lower(self.ceiling.max(self.current).into(), source);
        if self.current < self.limit {
            self.rested = now.after(RAISE);
        }
    }

    /// The suspicion was right: smaller ones arrive.
    fn confirm(&mut self) {
        self.set_source(Source::BlackHole);
        self.bound(self.limit.into());
    }

    /// The size to try next, at most `largest`: first the largest, since silence has other causes too, then the middle.
    fn candidate(&self, largest: u32) -> Option<u32> {
        let top = u32::from(self.ceiling).min(largest);
        let gain = top.checked_sub(self.current()).filter(|gain| *gain >= GAIN_MIN)?;
        Some(if self.bits & HALVING == 0 { top } else { self.current() + gain.div_ceil(2) })
    }

    fn probe_lost(&mut self) {
        let size = std::mem::take(&mut self.probe);
        if size > self.ceiling {
            // A router has said why already.
            return;
        }
        self.lost = self.lost.saturating_add(1);
        if self.lost >= PROBES_MAX {
            self.bound(u32::from(size.saturating_sub(1)));
            self.bits |= HALVING;
        }
    }

    /// Nothing larger than `ceiling` gets through; that itself is worth a try.
    fn bound(&mut self, ceiling: u32) {
        self.ceiling = short(ceiling).max(self.current);
        self.lost = 0;
        self.bits &= !HALVING;
    }

    /// Does the probe begin at the oldest byte in flight?
    fn probes_at(&self, una: SeqNr) -> bool {
        self.probe != 0 && self.probe_start == una
    }

    /// One past the probe.
    fn probe_end(&self) -> SeqNr {
        self.probe_start.plus(self.probe_len.into())
    }
}

impl Connection<'_> {
    /// The path's MTU is another now: `limit` is what its route and interface allow, `known` what is known to get through.
    pub fn set_path_mtu(&mut self, now: Instant, limit: u32, known: u32) {
        let tcb = &mut *self.tcb;
        let limit = limit.max(tcb.least_mtu());
        if short(limit) != tcb.pmtu.limit {
            tcb.pmtu = PathMtu::new(limit);
            tcb.fit_segments();
        }
        tcb.know_path_mtu(now, known, false);
    }

    /// A router has dropped a packet of ours whose segment began at `seq`: no more than `claim` bytes fit into its next link.
    pub fn packet_too_big(&mut self, now: Instant, seq: SeqNr, claim: u32) -> Outcome {
        let mut out = Outcome::default();
        let tcb = &mut *self.tcb;
        let in_flight = tcb.snd_una.le(seq) && seq.lt(tcb.snd_nxt);
        let claim = claim.max(tcb.least_claim());
        let (current, probe) = (tcb.pmtu.current(), u32::from(tcb.pmtu.probe));
        let was_probe = probe != 0 && seq == tcb.pmtu.probe_start && (current..probe).contains(&claim);
        if !in_flight || (claim >= current && !was_probe) {
            out.count(Counter::TooBigIgnored);
            return out;
        }
        out.count(Counter::TooBigTaken);
        if was_probe {
            // The next probe has that size; the loss of this one will show, and be repaired.
            tcb.pmtu.bound(claim);
            return out;
        }
        out.path_mtu = true;
        tcb.pmtu.lower(claim, Source::Told);
        tcb.pmtu.bound(claim);
        tcb.pmtu.rested = now.after(RAISE);
        tcb.fit_segments();
        // Not among what the delivery rate counts as lost: the path drops no more than before.
        self.recovery.sent.lose_range(tcb.snd_una, tcb.snd_nxt);
        self.recovery.repair(tcb);
        tcb.timers.stop(Timer::Reorder);
        out
    }
}

impl Tcb {
    /// Packets larger than this are known not to get through, from another connection or from the kernel; `silent` if no router
    /// says so.
    pub fn know_path_mtu(&mut self, now: Instant, known: u32, silent: bool) {
        let known = known.max(self.least_claim());
        if known < self.pmtu.current() {
            self.pmtu.rested = now.after(RAISE);
            self.pmtu.lower(known, if silent { Source::BlackHole } else { Source::Told });
            self.pmtu.bound(known);
            self.fit_segments();
        }
    }

    /// Who claims that less fits is not believed that far.
    fn least_claim(&self) -> u32 {
        CLAIM_MIN.max(self.least_mtu())
    }

    /// Do packets larger than [`Tcb::path_mtu`] vanish without a word?
    pub fn in_black_hole(&self) -> bool {
        self.pmtu.black_hole().is_some()
    }

    /// Largest packet that is sent, bytes.
    pub fn path_mtu(&self) -> u32 {
        self.pmtu.current()
    }

    /// Bytes of data in a packet of this size beside these SACK blocks.
    fn room_in(&self, packet: u32, blocks: &SackBlocks) -> u32 {
        self.segment_in(packet).saturating_sub(options_len(false, blocks) as u32).max(1)
    }

    /// Could [`Tcb::plan_probe`] plan one, or note something?
    #[inline]
    pub(crate) fn may_probe(&self, now: Instant) -> bool {
        self.pmtu.current < self.pmtu.limit && self.pmtu.probe == 0 && now >= self.pmtu.rested
    }

    /// Shall the next new segment be larger than the others, to see whether it gets through? Says how much data it holds.
    /// At most `most` bytes can go out now: those that wait, as the peer allows. Not while something is lost.
    pub(crate) fn plan_probe(&mut self, now: Instant, most: u32, blocks: &SackBlocks) -> Option<u32> {
        if self.pmtu.current >= self.pmtu.limit || self.pmtu.probe != 0 {
            return None;
        }
        if self.pmtu.rested.is_set() {
            if now < self.pmtu.rested {
                return None;
            }
            self.pmtu.rested = Instant::NEVER;
            self.pmtu.bound(self.pmtu.limit.into());
        }
        let Some(size) = self.pmtu.candidate(self.largest_packet()) else {
            self.pmtu.rested = now.after(RAISE);
            return None;
        };
        let len = self.room_in(size, blocks);
        let needed = len.saturating_add(FOLLOWERS * self.mss);
        (needed <= most.min(self.cc.cwnd())).then(|| {
            self.pmtu.probe = short(size);
            len
        })
    }

    /// The planned probe goes out as `[start, end)`.
    pub(crate) fn probe_sent(&mut self, start: SeqNr, end: SeqNr) {
        (self.pmtu.probe_start, self.pmtu.probe_len) = (start, short(end.since(start)));
    }

    /// The planned probe does not go out now.
    pub(crate) fn drop_probe(&mut self) {
        self.pmtu.probe = 0;
    }

    /// Has [`Tcb::take_probe`] something to wait for?
    #[inline]
    pub(crate) fn awaits_probe(&self) -> bool {
        (self.pmtu.probe != 0) | (self.pmtu.source() == Source::Suspected)
    }

    /// A segment was looked at: what has been acknowledged says something of the size.
    /// `timeouts` have passed since something new was acknowledged.
    pub(crate) fn take_probe(&mut self, timeouts: u32, out: &mut Outcome) {
        if self.pmtu.source() == Source::Suspected && timeouts == 0 {
            self.pmtu.confirm();
            out.path_mtu = true;
        }
        if self.pmtu.probe != 0 && self.snd_una.ge(self.pmtu.probe_end()) {
            let size = std::mem::take(&mut self.pmtu.probe);
            self.pmtu.current = size;
            self.pmtu.lost = 0;
            out.path_mtu = true;
            self.fit_segments();
        }
    }

    /// `lost` bytes turned out lost. True if they are those of the probe, which says nothing of congestion (RFC 4821, section 7.6.1).
    pub(crate) fn lost_probe(&mut self, lost: u32, out: &mut Outcome) -> bool {
        let at_probe = self.pmtu.probes_at(self.snd_una);
        let alone = lost <= u32::from(self.pmtu.probe_len);
        if at_probe {
            out.count(Counter::MtuProbesLost);
            self.pmtu.probe_lost();
        }
        at_probe && alone
    }

    /// One past the probe that went out last.
    pub(crate) fn probe_end(&self) -> SeqNr {
        self.pmtu.probe_end()
    }

    /// `[start, end)` is sent again: if it is the probe's, its acknowledgement says nothing any more.
    pub(crate) fn forget_probe(&mut self, start: SeqNr, end: SeqNr) {
        if self.pmtu.probe != 0 && start.lt(self.pmtu.probe_end()) && end.gt(self.pmtu.probe_start) {
            self.pmtu.probe = 0;
        }
    }

    /// The retransmission timer ran out, the `silent`th time since the peer was heard of: perhaps only small packets get through
    /// (RFC 8899, section 4.3).
    pub(crate) fn suspect_black_hole(&mut self, silent: u32, out: &mut Outcome) {
        if self.pmtu.probes_at(self.snd_una) {
            self.pmtu.probe_lost();
        }
        self.pmtu.probe = 0;
        let oldest = self.packet_of(self.flight().min(self.mss));
        let suspect = oldest > FALLBACKS[0] || self.pmtu.source() == Source::Suspected;
        // Without SACK nobody tells what else arrives: many losses look the same, small segments need more round trips through them,
        // and with a window of few segments no probe finds the way back up.
        let least = if self.has(flag::SACK) { self.least_mtu() } else { FALLBACKS[0] };
        let smaller =
            (SILENCE..).zip(FALLBACKS).find(|(_, size)| (least..oldest.min(self.pmtu.current())).contains(size));
        let Some((_, smaller)) = smaller.filter(|(enough, _)| suspect && silent >= *enough) else { return };
        out.count(Counter::BlackHoles);
        self.pmtu.suspect(smaller);
        self.fit_segments();
    }

    /// The timeouts were spurious: what was in flight arrived in the size that it had.
    pub(crate) fn acquit_path(&mut self, now: Instant) {
        if self.pmtu.source() == Source::Suspected {
            self.pmtu.acquit(now);
            self.fit_segments();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_known_before_a_wrong_suspicion_is_known_after_it() {
        let mut path = PathMtu::new(1500);
        path.suspect(1280);
        path.acquit(Instant(1));
        assert_eq!((path.current(), path.black_hole(), path.rested), (1500, None, Instant::NEVER));
        path.suspect(1280);
        path.confirm();
        path.suspect(1024);
        path.suspect(576);
        path.acquit(Instant(1));
        assert_eq!((path.current(), path.black_hole(), path.rested), (1280, Some(1280), Instant(1 + RAISE)));
    }

    proptest! {
        /// Whatever the path's true MTU, the search ends close below it, and after a bounded number of probes.
        #[test]
        fn the_search_ends_close_below_the_truth(limit in 600u32..9000, truth in 0u32..9000, start in 552u32..600) {
            let truth = truth.clamp(start, limit);
            let mut path = PathMtu { current: short(start), ..PathMtu::new(limit) };
            let mut probes = 0;
            while let Some(size) = path.candidate(limit) {
                probes += 1;
                prop_assert!(probes < 100 && size > path.current() && size <= u32::from(path.ceiling));
                path.probe = short(size);
                if size <= truth { (path.current, path.lost) = (short(size), 0) } else { path.probe_lost() }
            }
            prop_assert!(path.current() <= truth && truth - path.current() < GAIN_MIN, "{path:?}, truly {truth}");
        }

        /// A record that somebody scribbled over.
        #[test]
        fn no_record_is_nonsense(bytes in proptest::collection::vec(any::<u8>(), size_of::<PathMtu>()), largest in any::<u32>()) {
            let mut path = PathMtu::read_from_bytes(&bytes).unwrap();
            if let Some(size) = path.candidate(largest) {
                prop_assert!(size > path.current() && size <= largest);
            }
            path.probe_lost();
            path.black_hole();
            path.lower(576, Source::Suspected);
        }
    }
}
