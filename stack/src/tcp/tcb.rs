//! The transmission control block (RFC 9293, section 3.3.1) as it lies in the arena.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// PLACEHOLDER: the engine's author fills this in.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Tcb {
    /// x
    pub snd_una: u32,
    /// x
    pub pad: u32,
}
