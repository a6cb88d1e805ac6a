//! Which segments are lost, and what is still in the network?

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ranges::Ranges;
use super::seq::SeqNr;

/// Where loss recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery (RFC 6582, RFC 6675).
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// Loss state of one connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(crate) struct Loss {
    sacked: Ranges,
    phase: u32,
    recover: SeqNr,
    lost_below: SeqNr,
    rtx_nxt: SeqNr,
    dup_acks: u32,
    timeouts: u32,
}
