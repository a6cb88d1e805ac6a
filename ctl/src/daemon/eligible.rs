//! May this socket be promoted? What the lane cannot honour exactly stays in the kernel, with its reason.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use underpass_stack::lane::Reason;
use underpass_stack::wire::ipv6::FLOW_LABEL;

use super::address;
use super::repair::{TCPI_OPT_ECN, TcpInfo, in_repair};
use super::reply::Refusal;
use super::restore::loses_ecn;
use super::sockopt::{get, get_int, get_len, ioctl_int, poll_now};
use crate::net::flow_label::Label;

const IPPROTO_MPTCP: i32 = 262;
/// A bit of `tcpi_options`, linux/tcp.h.
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

/// The same of sockets that were made for IPv6 (linux/in6.h).
const PLAIN_OPTIONS_V6: &[i32] = &[
    2, // IPV6_2292PKTINFO
    3, // IPV6_2292HOPOPTS
    4, // IPV6_2292DSTOPTS
    5, // IPV6_2292RTHDR
    8, // IPV6_2292HOPLIMIT
    IPV6_FLOWINFO,
    libc::IPV6_RECVERR,
    31, // IPV6_RECVERR_RFC4884
    libc::IPV6_RECVPKTINFO,
    libc::IPV6_RECVHOPLIMIT,
    libc::IPV6_RECVHOPOPTS,
    libc::IPV6_RECVRTHDR,
    libc::IPV6_RECVDSTOPTS,
    libc::IPV6_RECVPATHMTU,
    libc::IPV6_RECVTCLASS,
    libc::IPV6_MINHOPCOUNT,
    libc::IPV6_RECVORIGDSTADDR,
    libc::IPV6_RECVFRAGSIZE,
];
/// Extension headers that a socket puts into its packets.
const EXTENSIONS: &[i32] = &[libc::IPV6_HOPOPTS, libc::IPV6_RTHDRDSTOPTS, libc::IPV6_RTHDR, libc::IPV6_DSTOPTS];
const IPV6_FLOWINFO: i32 = 11;
const IPV6_FLOWLABEL_MGR: i32 = 32;
const IPV6_FLOWINFO_SEND: i32 = 33;
const IPV6_AUTOFLOWLABEL: i32 = 70;

/// What the look at the socket has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Its own address; v4-mapped ones as IPv4.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// IP_TOS or IPV6_TCLASS.
    pub tos: u8,
    /// IP_TTL or IPV6_UNICAST_HOPS.
    pub ttl: u8,
    /// Which flow label its packets have.
    pub label: Label,
    /// ECN was negotiated; only [`check`] looks.
    pub ecn: bool,
}

impl Endpoints {
    /// Of a connected socket.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, Refusal> {
        let remote = address::remote(fd).map_err(|_| Refusal::from(Reason::NotConnected))?;
        let local = address::local(fd)?;
        let (level, tos, ttl) = match remote {
            SocketAddr::V4(_) => (libc::SOL_IP, libc::IP_TOS, libc::IP_TTL),
            SocketAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TCLASS, libc::IPV6_UNICAST_HOPS),
        };
        let small = |name| get_int(fd, level, name).map(|value| value as u8);
        Ok(Self { local, remote, tos: small(tos)?, ttl: small(ttl)?, label: label(fd, &remote)?, ecn: false })
    }
}

/// Checks everything that can be seen on the socket itself.
pub fn check(fd: BorrowedFd<'_>) -> Result<Endpoints, Refusal> {
    is_tcp(fd)?;
    if in_repair(fd)? {
        return Err(Reason::Inherited.into());
    }
    let ecn = is_established(fd)?;
    let endpoints = Endpoints { ecn, ..Endpoints::of(fd)? };
    if [endpoints.local, endpoints.remote].iter().any(|end| is_link_local(end.ip())) {
        return Err(Reason::LinkLocal.into());
    }
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

/// Is it? Says whether it has negotiated ECN.
fn is_established(fd: BorrowedFd<'_>) -> Result<bool, Refusal> {
    let info = TcpInfo::of(fd)?;
    if !info.is_established() {
        return Err(Reason::NotConnected.into());
    }
    if info.options & TCPI_OPT_USEC_TS != 0 {
        return Err(Reason::UsecTimestamps.into());
    }
    let ecn = info.options & TCPI_OPT_ECN != 0;
    // Back in such a kernel, the peer's marks would go unanswered.
    if ecn && loses_ecn() { Err(Reason::SocketOption.into()) } else { Ok(ecn) }
}

/// The flow label that the kernel would give the socket's packets (ipv6(7), linux/in6.h).
fn label(fd: BorrowedFd<'_>, remote: &SocketAddr) -> Result<Label, Refusal> {
    if remote.is_ipv4() {
        return Ok(Label::None);
    }
    let is_on = |name| get_int(fd, libc::SOL_IPV6, name).is_ok_and(|value| value != 0);
    let chosen = u32::from_be(address::flow_info(fd)) & FLOW_LABEL;
    if is_on(IPV6_FLOWINFO_SEND) && chosen != 0 {
        return Ok(Label::Fixed(chosen));
    }
    if reflects(fd) {
        // The label came with the peer's segments; nothing would bring it back into the kernel's socket.
        return Err(Reason::SocketOption.into());
    }
    Ok(if is_on(IPV6_AUTOFLOWLABEL) { Label::Auto } else { Label::None })
}

/// Does the socket send the peer's own label back (IPV6_FL_F_REFLECT)? Then the kernel tells it of a label without an owner.
fn reflects(fd: BorrowedFd<'_>) -> bool {
    /// Places of `flr_label` and `flr_share` in `struct in6_flowlabel_req`.
    const LABEL: std::ops::Range<usize> = 16..20;
    const SHARE: usize = 21;
    let request = get::<[u8; 32]>(fd, libc::SOL_IPV6, IPV6_FLOWLABEL_MGR);
    request.is_ok_and(|(known, _)| known[SHARE] == 0 && known[LABEL] != [0; 4])
}

/// fe80::/10 (RFC 4291, section 2.5.6).
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
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
    if get_int(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? == libc::AF_INET6 {
        has_plain_options_v6(fd)?;
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

fn has_plain_options_v6(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    let is_set = |&name: &i32| get_int(fd, libc::SOL_IPV6, name).is_ok_and(|value| value != 0);
    let is_added = |&name: &i32| get::<[u8; 64]>(fd, libc::SOL_IPV6, name).is_ok_and(|(_, len)| len > 0);
    let plain = !PLAIN_OPTIONS_V6.iter().any(is_set) && !EXTENSIONS.iter().any(is_added);
    if plain { Ok(()) } else { Err(Reason::SocketOption.into()) }
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
