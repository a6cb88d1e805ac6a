//! The addresses of a connection, and whether its other end is on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use underpass_stack::lane::shm::meeting::canonical;

use super::diag;
use crate::errno::Result;
use crate::sys;

/// Where the other end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Locality {
    /// Not looked at yet.
    Unknown = 0,
    /// In this network namespace.
    Local = 1,
    /// Elsewhere.
    Remote = 2,
}

impl Locality {
    /// Decodes what [`crate::socket::Socket`] keeps.
    pub fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Local,
            2 => Self::Remote,
            _ => Self::Unknown,
        }
    }

    /// Finds out. A socket without a peer is `Unknown`.
    pub fn of(fd: RawFd) -> Self {
        let Ok(ends) = Ends::of(fd) else { return Self::Unknown };
        let near = ends.remote.ip().is_loopback() || ends.remote.ip() == ends.local.ip();
        if near || diag::owner(ends.remote, ends.local).is_some() { Self::Local } else { Self::Remote }
    }
}

/// The two addresses of a connection, in the form in which both ends see them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl Ends {
    /// Of a connected socket.
    pub fn of(fd: RawFd) -> Result<Self> {
        Ok(Self { local: canonical(sys::socket_name(fd)?), remote: canonical(sys::peer_name(fd)?) })
    }

    /// As the peer sees them.
    pub fn mirrored(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

/// An address as the kernel writes it (`struct sockaddr_in`, `struct sockaddr_in6`).
pub fn from_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?)),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
