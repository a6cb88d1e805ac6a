//! Routers that say that a packet was too big for their next link (RFC 1191, section 4; RFC 4443, section 3.2).
//!
//! The kernel hears them too, but the socket of a connection on a lane stands still: what is quoted is never in its flight, so it
//! does not believe them (OutOfWindowIcmps).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use underpass_stack::ip::flow::{FlowKey, PROTO_TCP};

use super::sys;

/// ICMP type and code: destination unreachable, fragmentation needed and DF set.
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMPv6 type: packet too big.
const PACKET_TOO_BIG: u8 = 2;
/// Bytes before the quoted packet in either message.
const HEADER: usize = 8;
/// Messages looked at in a row.
const BATCH: usize = 64;

/// What a router says of a packet of ours. All of it is a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// The connection, seen from this host.
    pub flow: FlowKey,
    /// Sequence number of the segment.
    pub seq: u32,
    /// Largest packet that fits, bytes; 0 if the router does not say.
    pub mtu: u32,
}

/// Hears the routers of a namespace.
pub struct Listener {
    v4: OwnedFd,
    /// Not there where IPv6 is switched off.
    v6: Option<OwnedFd>,
}

impl Listener {
    /// Listens in the calling thread's namespace. Needs CAP_NET_RAW there.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            v4: sys::icmp_socket(libc::AF_INET, UNREACHABLE)?,
            v6: sys::icmp_socket(libc::AF_INET6, PACKET_TOO_BIG).ok(),
        })
    }

    /// What becomes readable when a router speaks.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.v4).chain(&self.v6).map(AsFd::as_fd)
    }

    /// The messages since the last call, the first of many.
    pub fn heard(&self) -> Vec<TooBig> {
        let mut bytes = [0; 1500];
        let mut heard = Vec::new();
        for (fd, parse) in [(Some(&self.v4), v4 as fn(&[u8]) -> Option<TooBig>), (self.v6.as_ref(), v6)] {
            let Some(fd) = fd else { continue };
            for _ in 0..BATCH {
                let Ok(len) = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) else { break };
                heard.extend(parse(&bytes[..len]));
            }
        }
        heard
    }
}

/// An IPv4 packet as a raw socket receives it, whose ICMP checksum nobody has looked at yet.
fn v4(packet: &[u8]) -> Option<TooBig> {
    let message = packet.get(v4_header(packet)?..)?;
    let (header, quoted) = message.split_at_checked(HEADER)?;
    if header[..2] != [UNREACHABLE, FRAGMENTATION_NEEDED] || checksum(message) != 0 {
        return None;
    }
    let at = v4_header(quoted)?;
    let is_first = u16::from_be_bytes([quoted[6], quoted[7]]) & 0x1fff == 0;
    if quoted[9] != PROTO_TCP || !is_first {
        return None;
    }
    let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(quoted.get(at..at + 4)?).ok()?));
    let mtu = u32::from(u16::from_be_bytes([header[6], header[7]]));
    too_big((address(12)?, address(16)?), quoted.get(at..)?, mtu)
}

/// Length of an IPv4 header, if there is a whole one.
fn v4_header(packet: &[u8]) -> Option<usize> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    (packet[0] >> 4 == 4 && (20..=packet.len()).contains(&len)).then_some(len)
}

/// An ICMPv6 message as a raw socket receives it: the kernel has checked its checksum.
fn v6(message: &[u8]) -> Option<TooBig> {
    let (header, quoted) = message.split_at_checked(HEADER)?;
    let (ip, tcp) = quoted.split_at_checked(40)?;
    if header[..2] != [PACKET_TOO_BIG, 0] || ip[0] >> 4 != 6 || ip[6] != PROTO_TCP {
        return None;
    }
    // A v4-mapped address is on no wire: it would pass for an IPv4 connection's (RFC 4942, section 2.2).
    let address = |at: usize| {
        let address = Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?);
        address.to_ipv4_mapped().is_none().then_some(IpAddr::V6(address))
    };
    let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    too_big((address(8)?, address(24)?), tcp, mtu)
}

fn too_big((local, remote): (IpAddr, IpAddr), tcp: &[u8], mtu: u32) -> Option<TooBig> {
    let tcp: &[u8; 8] = tcp.first_chunk()?;
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let flow = FlowKey::tcp(SocketAddr::new(local, port(0)), SocketAddr::new(remote, port(2)));
    Some(TooBig { flow, seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]), mtu })
}

/// The Internet checksum (RFC 1071); 0 over a message that carries the right one.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    /// What a router at 10.9.9.9 says of a packet from 10.0.0.1:80 to 10.0.0.2:99.
    fn message() -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9, 10, 0, 0, 1];
        let mut icmp = vec![3, 4, 0, 0, 0, 0, 0x05, 0x78];
        icmp.extend([0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 63, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        icmp.extend([0, 80, 0, 99, 1, 2, 3, 4]);
        let sum = checksum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        ip.extend(icmp);
        ip
    }

    #[test]
    fn a_router_is_understood() {
        let flow = FlowKey::tcp("10.0.0.1:80".parse().unwrap(), "10.0.0.2:99".parse().unwrap());
        assert_eq!(v4(&message()), Some(TooBig { flow, seq: 0x0102_0304, mtu: 1400 }));
        let flow = FlowKey::tcp("[fd00::1]:80".parse().unwrap(), "[fd00::2]:99".parse().unwrap());
        assert_eq!(v6(&message_v6()), Some(TooBig { flow, seq: 0x0102_0304, mtu: 1280 }));
    }

    #[test]
    fn no_icmpv6_speaks_of_an_ipv4_connection() {
        for at in [16, 32] {
            let mut message = message_v6();
            message[at..at + 16].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
            assert_eq!(v6(&message), None);
        }
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_nothing() {
        let whole = message();
        for cut in 0..whole.len() {
            assert_eq!(v4(&whole[..cut]), None, "cut at {cut}");
        }
        for bit in 20 * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(v4(&damaged), None, "bit {bit}");
        }
    }

    /// What an ICMPv6 router says of a packet from [fd00::1]:80 to [fd00::2]:99.
    fn message_v6() -> Vec<u8> {
        let mut message = vec![2, 0, 0, 0, 0, 0, 5, 0, 0x60, 0, 0, 0, 0, 40, 6, 64];
        for address in ["fd00::1", "fd00::2"] {
            message.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        }
        message.extend([0, 80, 0, 99, 1, 2, 3, 4]);
        message
    }

    /// The quoted packet, once more and step by step: TCP of the right version, no later fragment, ports and sequence number as told.
    fn quotes(told: &TooBig, quoted: &[u8]) -> bool {
        let (protocol, at, is_first) = match quoted[0] >> 4 {
            4 => (quoted[9], usize::from(quoted[0] & 15) * 4, [quoted[6] & 0x1f, quoted[7]] == [0, 0]),
            _ => (quoted[6], 40, true),
        };
        let addresses = if quoted[0] >> 4 == 4 { 12..20 } else { 8..40 };
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ends = [told.flow.local.to_ip(), told.flow.remote.to_ip()].map(octets).concat();
        let tcp = [&told.flow.local_port[..], &told.flow.remote_port, &told.seq.to_be_bytes()].concat();
        protocol == PROTO_TCP && is_first && ends == quoted[addresses] && tcp == quoted[at..at + 8]
    }

    /// A good message with some bytes changed and its end cut off.
    fn mutated(good: Vec<u8>, changes: &[(usize, u8)], cut: usize) -> Vec<u8> {
        let mut message = good;
        for (at, value) in changes {
            let at = at % message.len();
            message[at] = *value;
        }
        message.truncate(message.len() - cut.min(message.len()));
        message
    }

    fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
        proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6)
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            v4(&bytes);
            v6(&bytes);
        }

        /// Whatever becomes of a good message, checksums made right again: it is nothing, or quotes a segment of the connection that it names.
        #[test]
        fn what_is_believed_quotes_a_segment(changes in changes(), cut in 0usize..4, more in 0usize..40) {
            let mut message = mutated(message(), &changes, cut);
            message.extend(std::iter::repeat_n(0, more));
            if let Some(at) = v4_header(&message).filter(|at| at + HEADER <= message.len()) {
                message[at + 2..at + 4].fill(0);
                let sum = checksum(&message[at..]).to_be_bytes();
                message[at + 2..at + 4].copy_from_slice(&sum);
                if let Some(told) = v4(&message) {
                    prop_assert!(quotes(&told, &message[at + HEADER..]), "{:?}", told);
                    prop_assert!(told.mtu <= u32::from(u16::MAX));
                    prop_assert_eq!(&message[at..at + 2], &[UNREACHABLE, FRAGMENTATION_NEEDED]);
                }
            }
        }

        #[test]
        fn what_is_believed_of_icmpv6_quotes_a_segment(changes in changes(), cut in 0usize..70) {
            let message = mutated(message_v6(), &changes, cut);
            if let Some(told) = v6(&message) {
                prop_assert!(quotes(&told, &message[HEADER..]), "{:?}", told);
                prop_assert_eq!(&message[..2], &[PACKET_TOO_BIG, 0]);
            }
        }
    }
}
