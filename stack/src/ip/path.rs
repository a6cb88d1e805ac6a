//! How to reach a destination.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Interface, next hop and size limit of a connection's packets. Found by the daemon (route and neighbour
/// lookup), kept in the connection's record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Path {
    /// Interface index in the socket's network namespace.
    pub ifindex: u32,
    /// Largest IP packet that route and interface allow, bytes.
    pub mtu: u32,
    /// IPv6 flow label for packets sent, 20 bits (RFC 6437); 0 for none.
    pub flow_label: u32,
    /// Our Ethernet address.
    pub src_mac: [u8; 6],
    /// The next hop's Ethernet address.
    pub dst_mac: [u8; 6],
    /// IPv4 TTL / IPv6 hop limit for packets sent.
    pub ttl: u8,
    /// IPv4 TOS / IPv6 traffic class for packets sent.
    pub tos: u8,
    /// Largest IP packet that is known to get through, bytes; 0 where nothing less than `mtu` is known.
    pub known_mtu: u16,
    /// Always zero.
    pub pad: [u8; 4],
}

impl Path {
    /// Largest packet that is known, or must be supposed, to get through, bytes.
    pub fn known(&self) -> u32 {
        if self.known_mtu == 0 { self.mtu } else { u32::from(self.known_mtu).min(self.mtu) }
    }
}
