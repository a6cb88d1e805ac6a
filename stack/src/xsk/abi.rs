//! What the kernel's AF_XDP interface looks like, where libc does not say it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A packet in the UMEM: what goes through the RX and TX rings (`struct xdp_desc`, linux/if_xdp.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Desc {
    /// Offset of the first byte in the UMEM.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Flags, zero without multi-buffer packets.
    pub options: u32,
}

impl Desc {
    /// A whole packet.
    pub fn new(addr: u64, len: u32) -> Self {
        Self { addr, len, options: 0 }
    }
}

const _: () = assert!(size_of::<Desc>() == size_of::<libc::xdp_desc>());

/// Largest number of packets that one send call takes off the TX ring in copy mode (linux/if_xdp.h, since 6.17); older kernels
/// take 32 and do not know the option.
pub const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Where the parts of one ring lie in its mapping, in bytes (`struct xdp_ring_offset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOffsets {
    /// The producer's cursor.
    pub producer: usize,
    /// The consumer's cursor.
    pub consumer: usize,
    /// The flags word.
    pub flags: usize,
    /// The first entry.
    pub entries: usize,
}

impl From<libc::xdp_ring_offset> for RingOffsets {
    fn from(raw: libc::xdp_ring_offset) -> Self {
        Self {
            producer: raw.producer as usize,
            consumer: raw.consumer as usize,
            flags: raw.flags as usize,
            entries: raw.desc as usize,
        }
    }
}
