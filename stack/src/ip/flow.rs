//! Addresses and flows, in one form for both IP versions.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::checksum::Sum;

/// An IP address in 16 bytes, network order; IPv4 is v4-mapped (RFC 4291, section 2.5.5.2).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// From four octets.
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The four octets, if this is an IPv4 address.
    pub fn as_v4(&self) -> Option<[u8; 4]> {
        const PREFIX: u128 = 0xffff << 32;
        let number = u128::from_be_bytes(self.0);
        (number >> 32 == PREFIX >> 32).then(|| (number as u32).to_be_bytes())
    }

    /// As the standard library's type, v4-mapped addresses as IPv4.
    pub fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl std::fmt::Debug for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// IPPROTO_TCP.
pub const PROTO_TCP: u8 = 6;

/// The exact flow as seen from this host; the key of the XDP flow map (same layout as `struct flow_key` in
/// `ctl/bpf/steer.bpf.c`) and of the stack's demux.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FlowKey {
    /// Our address.
    pub local: Addr,
    /// The peer's address.
    pub remote: Addr,
    /// Our port, network order.
    pub local_port: [u8; 2],
    /// The peer's port, network order.
    pub remote_port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

impl FlowKey {
    /// A TCP flow.
    pub fn tcp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: local.ip().into(),
            remote: remote.ip().into(),
            local_port: local.port().to_be_bytes(),
            remote_port: remote.port().to_be_bytes(),
            proto: PROTO_TCP,
            pad: [0; 3],
        }
    }

    /// A TCP flow over IPv4, all in network order.
    #[inline(always)]
    pub(crate) fn of_v4(local: [u8; 4], remote: [u8; 4], local_port: [u8; 2], remote_port: [u8; 2]) -> Self {
        // In whole words, which is how it is hashed and compared.
        let mapped = |[a, b, c, d]: [u8; 4]| u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d]);
        let ([a, b], [c, d]) = (local_port, remote_port);
        let ports = u64::from_ne_bytes([a, b, c, d, PROTO_TCP, 0, 0, 0]);
        zerocopy::transmute!([0, mapped(local), 0, mapped(remote), ports])
    }

    /// The octets of both addresses, the local one first, if both are IPv4.
    #[inline(always)]
    pub(crate) fn both_v4(&self) -> Option<([u8; 4], [u8; 4])> {
        const PREFIX: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        const BEFORE: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let [local, local_end, remote, remote_end, _] = self.words();
        let differs = local | remote | ((local_end ^ PREFIX) | (remote_end ^ PREFIX)) & BEFORE;
        let octets = |Addr([.., a, b, c, d]): Addr| [a, b, c, d];
        (differs == 0).then(|| (octets(self.local), octets(self.remote)))
    }

    /// Both ports as a packet to the peer has them.
    #[inline(always)]
    pub(crate) fn ports(&self) -> [u8; 4] {
        zerocopy::transmute!([self.local_port, self.remote_port])
    }

    /// All of it in five words, for hashing and comparing.
    #[inline]
    pub(crate) fn words(&self) -> [u64; 5] {
        zerocopy::transmute!(*self)
    }

    /// Is it the same flow? Without a branch for each field.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        let (own, other) = (self.words(), other.words());
        (own[0] ^ other[0]) | (own[1] ^ other[1]) | (own[2] ^ other[2]) | (own[3] ^ other[3]) | (own[4] ^ other[4]) == 0
    }

    /// Do its packets have IPv6 headers?
    pub fn is_v6(&self) -> bool {
        self.local.as_v4().is_none()
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local.to_ip(), u16::from_be_bytes(self.local_port))
    }

    /// The peer's end.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote.to_ip(), u16::from_be_bytes(self.remote_port))
    }
}

/// The flow of a received TCP packet over IPv4 as its headers have it, in two words: quick to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source and destination.
    addresses: u64,
    /// Ports of both.
    ports: u64,
}

impl Ends {
    /// Those of no packet.
    pub(crate) const NONE: Self = Self { addresses: 0, ports: u64::MAX };

    /// From the addresses of an IP header and the ports of a TCP header, as they lie there.
    #[inline(always)]
    pub(crate) fn of_packet(addresses: [u8; 8], ports: [u8; 4]) -> Self {
        Self { addresses: u64::from_ne_bytes(addresses), ports: u32::from_ne_bytes(ports).into() }
    }

    /// Those of the packets that come in a flow over IPv4.
    #[inline]
    pub(crate) fn of_flow(flow: &FlowKey) -> Option<Self> {
        let (local, remote) = flow.both_v4()?;
        Some(Self::of_packet(
            zerocopy::transmute!([remote, local]),
            zerocopy::transmute!([flow.remote_port, flow.local_port]),
        ))
    }

    /// Are they of the packets that come in this flow?
    #[inline(always)]
    pub(crate) fn are_of(self, flow: &FlowKey) -> bool {
        flow.is(&self.flow())
    }

    /// All of it in two words, for hashing.
    #[inline(always)]
    pub(crate) fn words(self) -> [u64; 2] {
        [self.addresses, self.ports]
    }

    /// The sum of the addresses.
    #[inline(always)]
    pub(crate) fn addresses(self) -> Sum {
        Sum::of_word(self.addresses)
    }

    /// As seen from this host, which is the destination.
    #[inline(always)]
    pub(crate) fn flow(self) -> FlowKey {
        let [remote, local]: [[u8; 4]; 2] = zerocopy::transmute!(self.addresses);
        // The ports change places.
        let ports: [[u8; 2]; 2] = zerocopy::transmute!((self.ports as u32).rotate_left(16));
        FlowKey::of_v4(local, remote, ports[0], ports[1])
    }
}

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}<->{}/{}", self.local(), self.remote(), self.proto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_of_four_octets_is_a_flow_of_addresses() {
        let flow = FlowKey::of_v4([10, 0, 0, 1], [192, 168, 7, 200], 80u16.to_be_bytes(), 40_000u16.to_be_bytes());
        let expected = FlowKey::tcp(([10, 0, 0, 1], 80).into(), ([192, 168, 7, 200], 40_000).into());
        assert_eq!(flow, expected);
        assert!(flow.is(&expected));
        assert_eq!(flow.both_v4(), Some(([10, 0, 0, 1], [192, 168, 7, 200])));
        for (side, at) in (0..2).flat_map(|side| (0..12).map(move |at| (side, at))) {
            let mut other = flow;
            let addr = if side == 0 { &mut other.local } else { &mut other.remote };
            addr.0[at] ^= 1;
            assert_eq!((other.both_v4(), addr_is_v4(&other, side)), (None, false));
        }
    }

    #[test]
    fn a_packet_comes_from_the_remote_end() {
        let packet = Ends::of_packet([192, 168, 7, 200, 10, 0, 0, 1], [0x9c, 0x40, 0, 80]);
        let expected = FlowKey::tcp(([10, 0, 0, 1], 80).into(), ([192, 168, 7, 200], 40_000).into());
        assert_eq!(packet.flow(), expected);
        assert_eq!(Ends::of_flow(&expected), Some(packet));
        assert!(packet.are_of(&expected));
        for at in 0..size_of::<FlowKey>() {
            let mut other = expected;
            other.as_mut_bytes()[at] ^= 1;
            assert!(!packet.are_of(&other), "byte {at}");
        }
        assert_ne!(Ends::of_packet([0xff; 8], [0xff; 4]), Ends::NONE);
        assert_ne!(Ends::of_packet([0; 8], [0; 4]), Ends::NONE);
    }

    fn addr_is_v4(flow: &FlowKey, side: usize) -> bool {
        if side == 0 { flow.local.as_v4().is_some() } else { flow.remote.as_v4().is_some() }
    }
}
