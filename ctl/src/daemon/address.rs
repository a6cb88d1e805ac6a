//! A socket's addresses, in one form for both IP versions: v4-mapped ones as IPv4, without flow label and scope.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};

/// The socket's own address.
pub fn local(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    canonical(getsockname(fd.as_raw_fd())?)
}

/// Its peer's.
pub fn remote(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    canonical(getpeername(fd.as_raw_fd())?)
}

/// The flow label that the program has chosen for a connection, with the traffic class's bits above it, in network order
/// (IPV6_FLOWINFO_SEND, ipv6(7)); 0 if it chose none.
pub fn flow_info(fd: BorrowedFd<'_>) -> u32 {
    let peer = getpeername::<SockaddrStorage>(fd.as_raw_fd());
    peer.ok().and_then(|peer| peer.as_sockaddr_in6().map(|v6| v6.flowinfo())).unwrap_or(0)
}

fn canonical(address: SockaddrStorage) -> io::Result<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Ok(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    Ok(SocketAddr::new(v6.ip().to_canonical(), v6.port()))
}
