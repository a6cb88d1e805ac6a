//! The system calls of this room that need `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// linux/sockios.h: descriptor of a socket's network namespace.
const SIOCGSKNS: libc::Ioctl = 0x894C;
/// linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// Socket options, linux/icmp.h and linux/icmpv6.h.
const ICMP_FILTER: i32 = 1;
const ICMP6_FILTER: i32 = 1;
/// linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ifreq` with the pointer member in use, netdevice(7).
#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    data: *mut Channels,
    pad: [u8; 16],
}

/// A netlink socket in the calling thread's namespace.
pub fn netlink_socket(protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just returned to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A raw socket in the calling thread's namespace that receives ICMP (AF_INET) or ICMPv6 (AF_INET6) messages of one type.
pub fn icmp_socket(family: i32, kind: u8) -> io::Result<OwnedFd> {
    // The bits of `struct icmp_filter` and `struct icmp6_filter` (linux/icmp.h, linux/icmpv6.h) name the types that are kept out.
    let mut blocked = [u32::MAX; 8];
    blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    let (protocol, level, name, words) = match family {
        libc::AF_INET => (libc::IPPROTO_ICMP, libc::SOL_RAW, ICMP_FILTER, 1),
        _ => (libc::IPPROTO_ICMPV6, libc::IPPROTO_ICMPV6, ICMP6_FILTER, blocked.len()),
    };
    // SAFETY: plain system call.
    let raw = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as in `netlink_socket`.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let len = (words * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `blocked`, which is at least as long.
    if unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, blocked.as_ptr().cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// The network namespace that a socket lives in. Needs CAP_NET_ADMIN there.
pub fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument.
    let raw = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as in `netlink_socket`.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// RX queues in use of an interface (ETHTOOL_GCHANNELS), asked through any socket of its namespace. `None` if the driver
/// does not tell.
pub fn rx_channels(socket: BorrowedFd<'_>, name: &str) -> Option<u32> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    let mut request = IfReq { name: [0; libc::IFNAMSIZ], data: &raw mut channels, pad: [0; 16] };
    let len = name.len().min(libc::IFNAMSIZ - 1);
    request.name[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: `request` is a whole `struct ifreq` whose pointer leads to a whole `struct ethtool_channels`; both outlive
    // the call, which writes nothing else.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    let count = channels.rx.saturating_add(channels.combined);
    (done == 0 && count > 0).then_some(count)
}
