//! How to reach a destination.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Interface, next hop and size limit of a connection's packets. Found by the daemon (route and neighbour
/// lookup), kept in the connection's record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Path {
    /// Interface index in the socket's network namespace.
    pub ifindex: u32,
    /// Largest IP packet in bytes.
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
    /// Always zero.
    pub pad: [u8; 6],
}
