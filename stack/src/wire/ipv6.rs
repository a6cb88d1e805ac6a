//! The IPv6 header (RFC 8200, section 3).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Every link carries packets of so many bytes (RFC 8200, section 5).
pub const MTU_MIN: u32 = 1280;
/// Bits of a flow label (RFC 6437).
pub const FLOW_LABEL: u32 = 0xf_ffff;

/// The header; extension headers are not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
pub struct Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub start: U32,
    /// Bytes that follow the header.
    pub payload_len: U16,
    /// Type of what follows: a protocol, or an extension header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Header {
    /// The first word of a header. Bits of the label beyond its twenty are dropped.
    pub fn start(traffic_class: u8, flow_label: u32) -> U32 {
        (6 << 28 | u32::from(traffic_class) << 20 | flow_label & FLOW_LABEL).into()
    }

    /// The version as the header claims.
    pub fn version(&self) -> u32 {
        self.start.get() >> 28
    }

    /// The traffic class.
    pub fn traffic_class(&self) -> u8 {
        (self.start.get() >> 20) as u8
    }
}
