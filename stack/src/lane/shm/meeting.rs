//! What two processes say to each other when they find that they hold the two ends of one connection.
//!
//! They meet at an abstract Unix socket named after the connection's addresses ([`name`]): one has bound it, the other connects
//! and calls. Each passes a duplicate of its own end; holding that is the proof of being the peer. The callee makes the
//! memory. SEQPACKET datagrams, descriptors beside them as SCM_RIGHTS.

use std::net::SocketAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::VERSION;
use crate::mem::Plain;

/// First word of every message: "UPSM".
const MAGIC: u32 = u32::from_be_bytes(*b"UPSM");

/// Starts every message.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
struct Header {
    magic: u32,
    version: u16,
    kind: u16,
}

/// One step of the meeting.
pub trait Step: Plain {
    /// Its number.
    const KIND: u16;

    /// The datagram.
    fn encode(&self) -> Vec<u8> {
        let header = Header { magic: MAGIC, version: VERSION as u16, kind: Self::KIND };
        [header.as_bytes(), self.as_bytes()].concat()
    }

    /// From a datagram; `None` if it is anything else.
    fn decode(datagram: &[u8]) -> Option<Self> {
        let (header, body) = Header::read_from_prefix(datagram).ok()?;
        let ours = header.magic == MAGIC && header.version == VERSION as u16 && header.kind == Self::KIND;
        ours.then(|| Self::read_from_bytes(body).ok()).flatten()
    }
}

/// Caller: here I am. Descriptor: its end of the connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Call {
    /// The calling process, a random number.
    pub process: [u64; 2],
    /// Ring size that it would like, bytes.
    pub ring: u64,
}

/// Callee: this is the channel. Descriptors: its end of the connection, the channel's memfd, and with a new trunk the trunk's
/// memfd and the callee's bells.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Offer {
    /// Ring size, bytes.
    pub ring: u64,
    /// The trunk, a random number that only the two ends know.
    pub trunk: [u64; 2],
    /// The callee, a random number.
    pub process: [u64; 2],
    /// 1: the trunk is new, and this socket stays open as long as it lives.
    pub is_new: u32,
    /// The channel's number in the trunk.
    pub channel: u32,
}

/// Caller: agreed. Descriptors: with a new trunk the caller's bells.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Agreed {
    /// As offered.
    pub channel: u32,
    /// Always zero.
    pub pad: u32,
}

impl Step for Call {
    const KIND: u16 = 1;
}
impl Step for Offer {
    const KIND: u16 = 2;
}
impl Step for Agreed {
    const KIND: u16 = 3;
}

/// Bytes of a message at most.
pub const MAX_MESSAGE: usize = 64;

/// The name at which both ends meet, without the leading NUL (unix(7), abstract sockets). `None` for a socket that is its own peer.
pub fn name(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let (local, remote) = (canonical(local), canonical(remote));
    let (low, high) = match local.cmp(&remote) {
        std::cmp::Ordering::Less => (local, remote),
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => (remote, local),
    };
    Some(format!("underpass/{VERSION}/{low}/{high}"))
}

/// An address without what differs between the two ends of one connection: v4-mapped form, flow label.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::from((ip, v6.port())),
            None => SocketAddr::from((*v6.ip(), v6.port())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_to_the_same_name() {
        let (a, b): (SocketAddr, SocketAddr) = ("127.0.0.1:80".parse().unwrap(), "127.0.0.1:4000".parse().unwrap());
        assert_eq!(name(a, b), name(b, a));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert_eq!(name(mapped, b), name(b, a));
        assert_eq!(name(a, a), None);
        assert_eq!(name(a, mapped), None);
        let (a, b): (SocketAddr, SocketAddr) = ("[::1]:80".parse().unwrap(), "[::1]:4000".parse().unwrap());
        assert_eq!(name(a, b).unwrap(), "underpass/2/[::1]:80/[::1]:4000");
        // The longest name fits sun_path.
        let long: SocketAddr = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535".parse().unwrap();
        let other: SocketAddr = "[1111:2222:3333:4444:5555:6666:7777:8889]:65535".parse().unwrap();
        assert!(name(long, other).unwrap().len() <= 107);
    }

    #[test]
    fn only_whole_messages_of_our_version_are_taken() {
        let call = Call { process: [1, 2], ring: 65_536 };
        let bytes = call.encode();
        assert!(bytes.len() <= MAX_MESSAGE && size_of::<Offer>() + 8 <= MAX_MESSAGE);
        assert_eq!(Call::decode(&bytes), Some(call));
        assert_eq!(Offer::decode(&bytes), None);
        for n in 0..bytes.len() {
            assert_eq!(Call::decode(&bytes[..n]), None);
        }
        let mut other = bytes.clone();
        other[4] ^= 1;
        assert_eq!(Call::decode(&other), None);
    }
}
