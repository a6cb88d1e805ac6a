//! The IPv4 header (RFC 791).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header without options.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Version 4, five words of header.
pub const VERSION_IHL: u8 = 0x45;
/// "Do not fragment" in [`Header::fragment`].
pub const DF: u16 = 0x4000;
/// "More fragments" and the fragment's offset in [`Header::fragment`].
pub const FRAGMENT: u16 = 0x3fff;

/// The header without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
pub struct Header {
    /// Version and header length in words.
    pub version_ihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags and fragment offset.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub proto: u8,
    /// Header checksum.
    pub checksum: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Header {
    /// Bytes of the header as it claims, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0xf) * 4
    }
}
