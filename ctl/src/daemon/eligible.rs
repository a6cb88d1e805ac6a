//! May this socket be promoted? What the lane cannot honour exactly stays in the kernel, with its reason.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::getpeername;
use underpass_stack::lane::Reason;

use super::repair::{TcpInfo, in_repair};
use super::reply::Refusal;
use super::restore::{local_address, to_v4};
use super::sockopt::{get, get_int, get_len, ioctl_int, poll_now};

const IPPROTO_MPTCP: i32 = 262;
const TCP_ESTABLISHED: u8 = 1;
/// Bits of `tcpi_options`, linux/tcp.h.
const TCPI_OPT_ECN: u8 = 8;
const TCPI_OPT_USEC_TS: u8 = 64;
const TCP_TX_DELAY: i32 = 37;
const TCP_AO_INFO: i32 = 40;
const IP_RECVORIGDSTADDR: i32 = 20;

/// Socket options that change what a data call does and that must have their default.
const PLAIN_OPTIONS: &[(i32, i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF, -1),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY, 0),
    (libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 0),
    (libc::SOL_SOCKET, libc::SO_TXTIME, 0),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 0),
    (libc::SOL_SOCKET, 63, 0), // SO_TIMESTAMP_NEW
    (libc::SOL_SOCKET, 64, 0), // SO_TIMESTAMPNS_NEW
    (libc::SOL_SOCKET, 65, 0), // SO_TIMESTAMPING_NEW
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, -1),
    (libc::IPPROTO_TCP, libc::TCP_INQ, 0),
    (libc::IPPROTO_TCP, TCP_TX_DELAY, 0),
    (libc::SOL_IP, libc::IP_RECVTOS, 0),
    (libc::SOL_IP, libc::IP_RECVTTL, 0),
    (libc::SOL_IP, libc::IP_RECVERR, 0),
    (libc::SOL_IP, libc::IP_RECVOPTS, 0),
    (libc::SOL_IP, libc::IP_PKTINFO, 0),
    (libc::SOL_IP, libc::IP_MINTTL, 0),
    // The lane's packets are never fragmented. (IP_PMTUDISC_DO means the same for TCP, but few ask for it.)
    (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
    (libc::SOL_IP, IP_RECVORIGDSTADDR, 0),
];

/// What the look at the socket has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Its own address.
    pub local: SocketAddrV4,
    /// The peer's.
    pub remote: SocketAddrV4,
    /// IP_TOS.
    pub tos: u8,
    /// IP_TTL.
    pub ttl: u8,
}

/// Checks everything that can be seen on the socket itself.
pub fn check(fd: BorrowedFd<'_>) -> Result<Endpoints, Refusal> {
    is_tcp(fd)?;
    if in_repair(fd)? {
        return Err(Reason::Inherited.into());
    }
    is_established(fd)?;
    let endpoints = endpoints(fd)?;
    routes_plainly(fd)?;
    has_plain_options(fd)?;
    is_quiet(fd)?;
    Ok(endpoints)
}

/// Is it a TCP socket at all?
pub fn is_tcp(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    let option = |name| get_int(fd, libc::SOL_SOCKET, name).map_err(|_| Refusal::from(Reason::NotTcp));
    let domain = option(libc::SO_DOMAIN)?;
    match (domain, option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => Ok(()),
        (_, _, IPPROTO_MPTCP) => Err(Reason::Upper.into()),
        _ => Err(Reason::NotTcp.into()),
    }
}

fn is_established(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    let info = TcpInfo::of(fd)?;
    if info.state != TCP_ESTABLISHED {
        return Err(Reason::NotConnected.into());
    }
    if info.options & TCPI_OPT_USEC_TS != 0 {
        return Err(Reason::UsecTimestamps.into());
    }
    // The engine does not echo congestion marks, and repair mode cannot carry the agreement over.
    if info.options & TCPI_OPT_ECN != 0 {
        return Err(Reason::SocketOption.into());
    }
    Ok(())
}

fn endpoints(fd: BorrowedFd<'_>) -> Result<Endpoints, Refusal> {
    let v6 = |error: io::Error| match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => Refusal::from(Reason::Ipv6),
        _ => error.into(),
    };
    let remote = getpeername(fd.as_raw_fd()).map_err(|_| Refusal::from(Reason::NotConnected))?;
    Ok(Endpoints {
        local: local_address(fd).map_err(v6)?,
        remote: to_v4(remote).map_err(v6)?,
        tos: get_int(fd, libc::SOL_IP, libc::IP_TOS)? as u8,
        ttl: get_int(fd, libc::SOL_IP, libc::IP_TTL)? as u8,
    })
}

fn routes_plainly(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    let bound = get_int(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX)?;
    let mark = get_int(fd, libc::SOL_SOCKET, libc::SO_MARK)?;
    if bound != 0 || mark != 0 { Err(Reason::Mark.into()) } else { Ok(()) }
}

fn has_plain_options(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    for &(level, name, default) in PLAIN_OPTIONS {
        // An option that this kernel does not have cannot have been set.
        if get_int(fd, level, name).is_ok_and(|value| value != default) {
            return Err(Reason::SocketOption.into());
        }
    }
    if get::<[u8; 40]>(fd, libc::SOL_IP, libc::IP_OPTIONS).is_ok_and(|(_, len)| len > 0) {
        return Err(Reason::SocketOption.into());
    }
    if get::<[u8; 16]>(fd, libc::IPPROTO_TCP, libc::TCP_ULP).is_ok_and(|(_, len)| len > 0) {
        return Err(Reason::Upper.into());
    }
    // Counts the instructions of a classic filter; fails on an extended one.
    if !matches!(get_len(fd, libc::SOL_SOCKET, libc::SO_GET_FILTER), Ok(0)) {
        return Err(Reason::Filter.into());
    }
    if get_int(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE)? != 0 {
        return Err(Reason::Urgent.into());
    }
    if get::<[u8; 64]>(fd, libc::IPPROTO_TCP, TCP_AO_INFO).is_ok() {
        return Err(Reason::SocketOption.into());
    }
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_ASYNC) { Err(Reason::SocketOption.into()) } else { Ok(()) }
}

/// Nothing pending that a lane would have to report: urgent data, errors, a shutdown.
fn is_quiet(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    const SIOCATMARK: libc::Ioctl = 0x8905;
    let seen = poll_now(fd, libc::POLLPRI | libc::POLLRDHUP)?;
    if seen & libc::POLLPRI != 0 || ioctl_int(fd, SIOCATMARK)? != 0 {
        return Err(Reason::Urgent.into());
    }
    if seen & (libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR) != 0 {
        return Err(Reason::HalfClosed.into());
    }
    Ok(())
}
