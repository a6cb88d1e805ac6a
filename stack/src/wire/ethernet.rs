//! Ethernet II with at most one VLAN tag (IEEE 802.3, 802.1Q).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// The VLAN's number in a tag's control field.
const VLAN_NUMBER: u16 = 0x0fff;
/// Bytes of the header without a tag.
pub const HEADER_LEN: usize = size_of::<Header>();

/// The header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
pub struct Header {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// EtherType of what follows.
    pub ethertype: U16,
}

/// An 802.1Q tag, found after a header whose type is [`VLAN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
pub struct Tag {
    /// Priority and VLAN number.
    pub control: U16,
    /// EtherType of what follows.
    pub ethertype: U16,
}

/// EtherType and offset of the payload, past a tag that says no more than a priority (VLAN 0); of other VLANs the EtherType is the tag's:
/// their packets are another interface's. `None` if the frame is too short.
pub fn payload_at(frame: &[u8]) -> Option<(u16, usize)> {
    let (header, rest) = Header::ref_from_prefix(frame).ok()?;
    if header.ethertype.get() != VLAN {
        return Some((header.ethertype.get(), HEADER_LEN));
    }
    let (tag, _) = Tag::ref_from_prefix(rest).ok()?;
    if tag.control.get() & VLAN_NUMBER != 0 {
        return Some((VLAN, HEADER_LEN));
    }
    Some((tag.ethertype.get(), HEADER_LEN + size_of::<Tag>()))
}
