//! What do marks of congestion in packets mean, and how does the peer learn of them? (RFC 3168, section 6.1; RFC 8257)
//!
//! A router that would have to drop a packet marks it instead. Its receiver says so in every acknowledgement (ECE) until the
//! sender says that it has slowed down (CWR). Under DCTCP each acknowledgement tells of the data that it acknowledges, no more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cc::Algorithm;
use super::connection::Connection;
use super::image::flag;
use super::loss::Phase;
use super::segment::{Flags, Kind, Segment};
use super::seq::SeqNr;
use super::tcb::{Tcb, bit};

/// The ECN field of an IP header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codepoint {
    /// The transport does not take part.
    #[default]
    NotEct = 0,
    /// ECN-capable transport, as well.
    Ect1 = 1,
    /// ECN-capable transport: routers may mark instead of dropping.
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Codepoint {
    /// The field in a TOS byte or traffic class.
    pub fn of(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// Bits of [`Ecn::bits`].
mod bits {
    /// A mark arrived: the peer hears of it until it answers. Under DCTCP: the newest data was marked.
    pub const ECHO: u32 = 1;
    /// The window was reduced: the next new data says so.
    pub const CWR: u32 = 1 << 1;
    /// The window was reduced, and not everything before `reduced_at` is acknowledged.
    pub const REDUCED: u32 = 1 << 2;
    /// DCTCP: what came before `told_to` has to be acknowledged apart, with the echo that it had.
    pub const APART: u32 = 1 << 3;
}

/// ECN state of one connection, of use only with [`flag::ECN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Ecn {
    bits: u32,
    /// One reduction is enough for everything before this (RFC 3168, section 6.1.2).
    reduced_at: SeqNr,
    /// With `APART`.
    told_to: SeqNr,
}

impl Ecn {
    fn has(&self, bit: u32) -> bool {
        self.bits & bit != 0
    }

    fn assign(&mut self, bit: u32, on: bool) {
        if on { self.bits |= bit } else { self.bits &= !bit }
    }

    /// Does a reduction for a mark still cover what is acknowledged now?
    pub fn is_reduced(&self) -> bool {
        self.has(bits::REDUCED)
    }
}

impl Ecn {
    /// Does a reduction cover the losses of what is out from `una` on: is something out that was when it was made?
    pub fn covers_losses(&self, una: SeqNr) -> bool {
        self.is_reduced() && una.plus(1).lt(self.reduced_at)
    }
}

impl Tcb {
    /// Was ECN agreed on?
    pub(crate) fn uses_ecn(&self) -> bool {
        self.has(flag::ECN)
    }

    /// A segment with data came, within the window or a duplicate: the peer may have heard us (RFC 3168, section 6.1.3).
    pub(crate) fn take_cwr(&mut self, segment: &Segment<'_>) {
        if !self.uses_ecn() || !segment.flags.has(Flags::CWR) || self.cc.algorithm() == Algorithm::Dctcp {
            return;
        }
        self.ecn.assign(bits::ECHO, false);
        // As Linux: the sender shall not wait for the news that its answer has arrived.
        self.set(bit::ACK_NOW);
    }

    /// New data was accepted, which may be marked. Data out of the window is not looked at: it may be forged (section 6.1.5).
    pub(crate) fn take_mark(&mut self, segment: &Segment<'_>, before: SeqNr) {
        if !self.uses_ecn() {
            return;
        }
        let marked = segment.ecn == Codepoint::Ce;
        if self.cc.algorithm() == Algorithm::Dctcp {
            return self.take_mark_dctcp(marked, before);
        }
        if marked && !self.ecn.has(bits::ECHO) {
            self.ecn.assign(bits::ECHO, true);
            // As Linux: the sender's window may be small, and a delayed acknowledgement the last for some time.
            self.set(bit::ACK_NOW);
        }
    }

    /// RFC 8257, section 3.2: where marks begin or end, what came before is acknowledged at once with the echo of before. Of
    /// several such places in one pass, only the first is told apart.
    fn take_mark_dctcp(&mut self, marked: bool, before: SeqNr) {
        if marked == self.ecn.has(bits::ECHO) {
            return;
        }
        if before != self.rcv_wup && !self.ecn.has(bits::APART) {
            self.ecn.assign(bits::APART, true);
            self.ecn.told_to = before;
        }
        self.ecn.assign(bits::ECHO, marked);
        self.set(bit::ACK_NOW);
    }

    /// The acknowledgement that goes out before the others because of [`Tcb::take_mark`], and whether it has the echo.
    pub(crate) fn take_apart(&mut self) -> Option<(SeqNr, bool)> {
        if !self.ecn.has(bits::APART) {
            return None;
        }
        self.ecn.assign(bits::APART, false);
        let unheard = self.ecn.told_to.gt(self.rcv_wup) && self.ecn.told_to.le(self.rcv_nxt);
        unheard.then_some((self.ecn.told_to, !self.ecn.has(bits::ECHO)))
    }

    /// A loss reduces the window, unless a mark has done so in this window of data (RFC 3168, section 6.1.2).
    /// What marks alone reduce differently is reduced for the loss all the same (RFC 8257, section 3.5; BBR does nothing at marks, and
    /// remembers what it has).
    pub(crate) fn reduce_for_loss(&mut self) {
        let marks_differ = matches!(self.cc.algorithm(), Algorithm::Dctcp | Algorithm::Bbr);
        if marks_differ || !self.ecn.covers_losses(self.snd_una) {
            self.cc.on_loss(self.mss);
            self.window_reduced();
        }
    }

    /// The window was reduced, whatever for: the peer hears of it, and marks on what is in flight change nothing more.
    pub(crate) fn window_reduced(&mut self) {
        if self.uses_ecn() {
            self.ecn.reduced_at = self.snd_nxt;
            self.ecn.bits |= bits::CWR | bits::REDUCED;
        }
    }

    /// Everything before `una` is acknowledged.
    pub(crate) fn end_reduction(&mut self, una: SeqNr) {
        if self.ecn.is_reduced() && una.ge(self.ecn.reduced_at) {
            self.ecn.assign(bits::REDUCED, false);
        }
    }

    /// The reduction was a mistake: the peer need not hear of it, and the next mark counts.
    pub(crate) fn withdraw_reduction(&mut self) {
        self.ecn.bits &= !(bits::CWR | bits::REDUCED);
    }

    /// What ECN adds to an outgoing segment with `len` bytes of data. Only new data may be marked: for what is sent again,
    /// acknowledgements and probes, nobody would answer (sections 6.1.4 to 6.1.6).
    pub(crate) fn ecn_of(&mut self, kind: Kind, len: u32) -> (Flags, Codepoint) {
        if !self.uses_ecn() {
            return (Flags::default(), Codepoint::NotEct);
        }
        let mut flags = if self.ecn.has(bits::ECHO) { Flags::ECE } else { Flags::default() };
        if kind != Kind::Data || len == 0 {
            return (flags, Codepoint::NotEct);
        }
        if self.ecn.has(bits::CWR) {
            flags = flags.with(Flags::CWR);
            self.ecn.assign(bits::CWR, false);
        }
        (flags, Codepoint::Ect0)
    }
}

impl Connection<'_> {
    /// An acknowledgement delivered so many bytes: does it say that some of them were marked?
    pub(crate) fn note_marked(&mut self, segment: &Segment<'_>, bytes: u32) {
        if self.tcb.uses_ecn() && segment.flags.has(Flags::ECE) {
            let (seldom, segments) = (self.recovery.seldom(), bytes.div_ceil(self.tcb.mss.max(1)));
            seldom.delivered_ce = seldom.delivered_ce.wrapping_add(segments);
        }
    }

    /// What an acceptable acknowledgement tells of marks. The window is reduced as for a loss, once a round trip (RFC 3168, section
    /// 6.1.2); recovery has reduced it already.
    pub(crate) fn take_feedback(&mut self, segment: &Segment<'_>) {
        let (tcb, phase) = (&mut *self.tcb, self.recovery.loss.phase);
        if !tcb.uses_ecn() {
            return;
        }
        let echo = segment.flags.has(Flags::ECE);
        tcb.cc.on_feedback(segment.ack.ahead_of(tcb.snd_una), echo, segment.ack, tcb.snd_nxt);
        tcb.end_reduction(segment.ack);
        if !echo {
            return;
        }
        if phase == Phase::Open && !tcb.ecn.is_reduced() && tcb.flight() != 0 {
            self.recovery.end_undo();
            tcb.cc.on_mark(tcb.mss);
            tcb.window_reduced();
            // Until the peer has heard of it, which it has not with what was out, its echoes are of the same mark.
            tcb.ecn.reduced_at = tcb.snd_nxt.plus(1);
        } else if let Some(rare) = &mut self.recovery.rare {
            // Then the window was not reduced by mistake, whatever the losses were.
            rare.saved = tcb.cc.save();
        }
    }
}
