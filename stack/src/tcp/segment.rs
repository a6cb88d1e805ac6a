//! Segments as values: what came in, what shall go out.

use super::ecn::Codepoint;
use super::seq::SeqNr;
use crate::stats::Counter;

/// The control bits of the TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push function.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168, section 6.1).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168, section 6.1).
    pub const CWR: Self = Self(0x80);

    /// Are all bits of `other` set?
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// TSval and TSecr (RFC 7323, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub val: u32,
    /// The newest clock value that the sender has from us.
    pub ecr: u32,
}

/// A received segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the first byte (or of SYN).
    pub seq: SeqNr,
    /// Acknowledgement number, meaningful with [`Flags::ACK`].
    pub ack: SeqNr,
    /// Control bits.
    pub flags: Flags,
    /// Window field, not scaled.
    pub window: u16,
    /// The ECN field of its IP header.
    pub ecn: Codepoint,
    /// Timestamps option.
    pub timestamps: Option<Timestamps>,
    /// The blocks of the SACK option as they were on the wire (RFC 2018), 8 bytes each; empty without one.
    pub sack: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// Length in the sequence space: data, SYN and FIN.
    pub fn seq_len(&self) -> u32 {
        let control = u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN));
        (self.payload.len() as u32).wrapping_add(control)
    }

    /// One past the last sequence number.
    pub fn end(&self) -> SeqNr {
        self.seq.plus(self.seq_len())
    }
}

/// Blocks of a SACK option (RFC 2018).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [(SeqNr, SeqNr); Self::MAX],
    len: u8,
}

impl SackBlocks {
    /// As many as fit into a header.
    pub const MAX: usize = 4;

    /// Adds a block; false if there is no room.
    pub fn push(&mut self, start: SeqNr, end: SeqNr) -> bool {
        let Some(place) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *place = (start, end);
        self.len += 1;
        true
    }

    /// The blocks: first byte and one past the last byte.
    pub fn as_slice(&self) -> &[(SeqNr, SeqNr)] {
        &self.blocks[..usize::from(self.len)]
    }
}

/// Why a segment goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data or FIN for the first time.
    Data,
    /// Data or FIN again.
    Retransmission,
    /// Nothing but an acknowledgement or a window update.
    Ack,
    /// An acknowledgement whose timer ran out.
    DelayedAck,
    /// An answer to a suspicious segment (RFC 5961).
    ChallengeAck,
    /// Asks whether a closed window has opened.
    WindowProbe,
    /// Asks whether the peer is alive.
    KeepaliveProbe,
}

impl Kind {
    /// Every kind, at its own place.
    pub const ALL: [Self; 7] = [
        Self::Data,
        Self::Retransmission,
        Self::Ack,
        Self::DelayedAck,
        Self::ChallengeAck,
        Self::WindowProbe,
        Self::KeepaliveProbe,
    ];

    /// What to count beside [`Counter::SegmentsSent`].
    pub fn counter(self) -> Option<Counter> {
        match self {
            Self::Data | Self::Ack => None,
            Self::Retransmission => Some(Counter::Retransmits),
            Self::DelayedAck => Some(Counter::DelayedAcks),
            Self::ChallengeAck => Some(Counter::ChallengeAcks),
            Self::WindowProbe => Some(Counter::ZeroWindowProbes),
            Self::KeepaliveProbe => Some(Counter::KeepaliveProbes),
        }
    }
}

/// A segment to put on the wire. Its data is the `len` bytes of the send ring from `seq` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOut {
    /// Sequence number.
    pub seq: SeqNr,
    /// Acknowledgement number.
    pub ack: SeqNr,
    /// Control bits.
    pub flags: Flags,
    /// Window field, already scaled.
    pub window: u16,
    /// The ECN field of its IP header.
    pub ecn: Codepoint,
    /// Timestamps option.
    pub timestamps: Option<Timestamps>,
    /// SACK option, if there are blocks.
    pub sack: SackBlocks,
    /// Bytes of data.
    pub len: u32,
    /// Why it goes out.
    pub kind: Kind,
}

impl SegmentOut {
    /// Was this data sent before?
    pub fn is_retransmission(&self) -> bool {
        self.kind == Kind::Retransmission
    }

    /// What to count beside [`Counter::SegmentsSent`].
    pub fn counter(&self) -> Option<Counter> {
        self.kind.counter()
    }
}

/// An ordinary segment to put on the wire: data that was never sent, or a bare acknowledgement, without SACK blocks, mark or FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainOut {
    /// Sequence number.
    pub seq: SeqNr,
    /// Acknowledgement number.
    pub ack: SeqNr,
    /// Control bits.
    pub flags: Flags,
    /// Window field, already scaled.
    pub window: u16,
    /// Bytes of data.
    pub len: u32,
    /// Timestamps option.
    pub timestamps: Option<Timestamps>,
}

/// Ordinary segments of the same size that leave one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainOut {
    /// The first of them; the others differ in their sequence numbers.
    pub first: PlainOut,
    /// How many they are, at least 1.
    pub count: u32,
    /// Nothing is queued behind the last one, which has PSH beside the flags of the first.
    pub is_last: bool,
}

impl TrainOut {
    /// All of them, in their order.
    #[inline(always)]
    pub fn segments(self) -> impl Iterator<Item = PlainOut> {
        let Self { first, count, is_last } = self;
        let last = if is_last { count.wrapping_sub(1) } else { count };
        (0..count).scan(first.seq, move |next, number| {
            let seq = std::mem::replace(next, next.plus(first.len));
            let flags = if number == last { first.flags.with(Flags::PSH) } else { first.flags };
            Some(PlainOut { seq, flags, ..first })
        })
    }
}

impl From<PlainOut> for SegmentOut {
    fn from(plain: PlainOut) -> Self {
        let PlainOut { seq, ack, flags, window, len, timestamps } = plain;
        let (ecn, sack) = (Codepoint::NotEct, SackBlocks::default());
        let kind = if len == 0 { Kind::Ack } else { Kind::Data };
        Self { seq, ack, flags, window, ecn, timestamps, sack, len, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place() {
        assert!(Kind::ALL.into_iter().enumerate().all(|(place, kind)| kind as usize == place));
    }
}
