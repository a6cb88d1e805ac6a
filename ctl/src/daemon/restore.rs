//! Writing a connection back into its kernel socket, in place.
//!
//! The order of the calls is that of the kernel's own checks (net/ipv4/tcp.c): sequence numbers only while closed, options
//! only before anything was sent, the window only when the receive queue is as it will be.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use underpass_stack::control::Restore;
use underpass_stack::tcp::image::{Image, flag};
use zerocopy::{Immutable, IntoBytes};

use super::address;
use super::repair::{RECV_QUEUE, REPAIR_OFF_NO_WP, RepairWindow, SEND_QUEUE, SO_BUF_LOCK, TCPI_OPT_ECN, TcpInfo};
use super::sockopt::{self, Family, detach_filter, get_int, set, set_int};

/// Option kinds (RFC 9293, 7323, 2018) as TCP_REPAIR_OPTIONS takes them.
const TCPOPT_MSS: u32 = 2;
const TCPOPT_WINDOW: u32 = 3;
const TCPOPT_SACK_PERM: u32 = 4;
const TCPOPT_TIMESTAMP: u32 = 8;
/// Bytes given to a queue at once: one skb each.
const CHUNK: usize = 32 << 10;
/// Room beyond the bytes themselves for the kernel's own accounting.
const BUFFER_SLACK: usize = 256 << 10;
/// A segment of Ethernet's usual size takes up to a page and some of a receive buffer: so many times its bytes.
const SEGMENT_COST: usize = 4;
/// Windows that the stack promises by itself, bytes: more than a kernel with small buffers would.
const PROMISED: usize = 8 << 20;
/// Where the kernel does not say what it lets a receive and a send buffer grow to, bytes.
const USUAL_LARGEST: (usize, usize) = (6 << 20, 4 << 20);

/// What TCP_MAXSEG takes, bytes (tcp(7)).
const MAXSEG: (i32, i32) = (88, 32_767);
/// A segment routing header (RFC 8754, section 2) with one segment, which is ::1: no next header yet, two more words, type 4.
const VIA_SELF: [u8; 24] = [0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// SOCK_SNDBUF_LOCK and SOCK_RCVBUF_LOCK of linux/socket.h: the program chose the size.
pub(super) const SNDBUF_LOCK: u32 = 1;
const RCVBUF_LOCK: u32 = 2;

/// `struct tcp_repair_opt`, linux/tcp.h.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct RepairOption {
    code: u32,
    value: u32,
}

/// The bytes of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// Those that the program has not read.
    pub recv: &'a [u8],
    /// Those before the oldest of `send`, which the peer has, but the socket is yet to hear that it does.
    pub before: &'a [u8],
    /// Those that the peer has not acknowledged, then those never sent.
    pub send: &'a [u8],
}

/// Makes the kernel socket the connection again that `image` describes: live, with these bytes to be read and to be sent.
///
/// The socket is in repair mode ([`repair::open`]) and its flow still points elsewhere. The peer's FIN and RST and its acknowledgement
/// of our FIN are not part of it: those the kernel has to receive as segments ([`super::control_frames`]). `before_waking` is called
/// once the connection is there but has sent nothing yet.
///
/// # Errors
/// A system call's. The socket is then useless: the caller closes it.
pub fn restore(
    fd: BorrowedFd<'_>,
    image: &Image,
    bytes: Bytes<'_>,
    saved: &Restore,
    before_waking: impl FnOnce(),
) -> io::Result<()> {
    let fin_sent = image.flags & (flag::FIN_SENT | flag::FIN_ACKED) != 0;
    let in_flight = if fin_sent { bytes.send.len() } else { image.snd_nxt.wrapping_sub(image.snd_una) as usize };
    let (sent, unsent) = bytes.send.split_at_checked(in_flight).ok_or_else(invalid)?;
    let buffers = Buffers::widen(fd, image, bytes.recv.len(), bytes.send.len())?;
    reopen(fd, image, bytes.before.len() as u32)?;
    negotiate(fd, image)?;
    fill(fd, RECV_QUEUE, bytes.recv)?;
    set_window(fd, image)?;
    if !image.flow.is_v6() {
        fit_segments(fd)?;
    }
    // A segment of its own: the round trip of one that is acknowledged in part is not taken.
    fill(fd, SEND_QUEUE, bytes.before)?;
    fill(fd, SEND_QUEUE, sent)?;
    if fin_sent {
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, SEND_QUEUE)?;
        shutdown(fd.as_raw_fd(), Shutdown::Write)?;
    }
    before_waking();
    buffers.bound_promises(fd, saved)?;
    wake(fd, image)?;
    fill_live(fd, unsent)?;
    if !fin_sent && image.flags & flag::FIN_QUEUED != 0 {
        shutdown(fd.as_raw_fd(), Shutdown::Write)?;
    }
    buffers.put_back(fd, saved)?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, saved.reuse_addr as i32)
}

/// Empties the socket's queues but keeps it established at the image's numbers: nothing is left to retransmit.
pub fn hollow(fd: BorrowedFd<'_>, image: &Image) -> io::Result<()> {
    let empty = Image { snd_una: image.snd_end, snd_nxt: image.snd_end, rcv_read: image.rcv_nxt, ..*image };
    reopen(fd, &empty, 0)?;
    negotiate(fd, &empty)?;
    set_window(fd, &empty)
}

/// Closes the socket without a sound and establishes it anew at the numbers of the image's oldest queued bytes; for sending, so many bytes `before`
/// them.
fn reopen(fd: BorrowedFd<'_>, image: &Image, before: u32) -> io::Result<()> {
    let ends = Ends {
        family: family_of(fd)?,
        local: image.flow.local(),
        remote: image.flow.remote(),
        flow_info: address::flow_info(fd),
    };
    let fin_acked = u32::from(image.flags & flag::FIN_ACKED != 0);
    sockopt::disconnect(fd)?;
    set_sequence(fd, SEND_QUEUE, image.snd_una.wrapping_sub(fin_acked).wrapping_sub(before))?;
    set_sequence(fd, RECV_QUEUE, image.rcv_read)?;
    if image.flow.is_v6() {
        // The IPv6 counterpart of `fit_segments`: connect(2) takes the size from here. What the program may once have set here counts for
        // opening a connection only.
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, i32::from(image.mss_clamp).clamp(MAXSEG.0, MAXSEG.1))?;
    }
    if let Err(error) = ends.establish(fd) {
        tracing::debug!("{:?}: {error}: established without its address or route", image.flow);
        if image.flow.is_v6() { detached_v6(fd, &ends)? } else { detached(fd, &ends)? }
    }
    if image.flow.is_v6() {
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, 0)?;
    }
    // The disconnection left ECONNABORTED for the program to find; reading takes it away.
    get_int(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
    if address::local(fd)? != ends.local { Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)) } else { Ok(()) }
}

/// Whom a socket connects.
struct Ends {
    family: Family,
    local: SocketAddr,
    remote: SocketAddr,
    /// Of the program's choice ([`address::flow_info`]).
    flow_info: u32,
}

impl Ends {
    fn establish(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match sockopt::bind(fd, self.family, self.local) {
            // A socket that the program had bound keeps its port over the disconnection and cannot be bound again.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
        match sockopt::connect(fd, self.family, self.remote, self.flow_info) {
            // The program has given its flow label back meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.flow_info != 0 => {
                sockopt::connect(fd, self.family, self.remote, 0)
            }
            other => other,
        }
    }
}

/// Connects as if address and route existed: the kernel keeps connections whose address or link went away, so must we.
fn detached(fd: BorrowedFd<'_>, ends: &Ends) -> io::Result<()> {
    let transparent = get_int(fd, libc::SOL_IP, libc::IP_TRANSPARENT)?;
    set_int(fd, libc::SOL_IP, libc::IP_TRANSPARENT, 1)?;
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0")?;
    let done = ends.establish(fd);
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"\0")?;
    set_int(fd, libc::SOL_IP, libc::IP_TRANSPARENT, transparent)?;
    done
}

/// The same over IPv6, where an interface without the route is of no use: the way is made to lead over this host itself, by a
/// routing header (RFC 8754), which is taken away before anything is sent. It leaves its bytes free in every later segment.
fn detached_v6(fd: BorrowedFd<'_>, ends: &Ends) -> io::Result<()> {
    let transparent = get_int(fd, libc::SOL_IPV6, libc::IPV6_TRANSPARENT)?;
    set_int(fd, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)?;
    set(fd, libc::SOL_IPV6, libc::IPV6_RTHDR, VIA_SELF.as_slice())?;
    let done = ends.establish(fd);
    set(fd, libc::SOL_IPV6, libc::IPV6_RTHDR, [0u8; 0].as_slice())?;
    set_int(fd, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, transparent)?;
    done
}

fn set_sequence(fd: BorrowedFd<'_>, queue: i32, seq: u32) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, seq as i32)
}

fn negotiate(fd: BorrowedFd<'_>, image: &Image) -> io::Result<()> {
    let mut options = vec![RepairOption { code: TCPOPT_MSS, value: u32::from(image.mss_clamp) }];
    if image.flags & flag::WSCALE != 0 {
        let value = u32::from(image.snd_wscale) | u32::from(image.rcv_wscale) << 16;
        options.push(RepairOption { code: TCPOPT_WINDOW, value });
    }
    if image.flags & flag::SACK != 0 {
        options.push(RepairOption { code: TCPOPT_SACK_PERM, value: 0 });
    }
    if image.flags & flag::TIMESTAMPS != 0 {
        options.push(RepairOption { code: TCPOPT_TIMESTAMP, value: 0 });
    }
    set(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, options.as_slice())?;
    look_after_ecn(fd, image)?;
    // An odd value would switch the clock to microseconds; rounding up keeps it from going backwards.
    let ts_val = image.ts_val.wrapping_add(image.ts_val & 1);
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_TIMESTAMP, ts_val as i32)
}

/// Did this kernel once forget that ECN was negotiated?
static LOSES_ECN: AtomicBool = AtomicBool::new(false);

/// Does a socket of this kernel forget, when it is restored, that ECN was negotiated? No known one does.
pub fn loses_ecn() -> bool {
    LOSES_ECN.load(Ordering::Relaxed)
}

/// Repair mode has no word for ECN, but a socket that is disconnected and connected in repair mode keeps what it had negotiated
/// (tcp_disconnect and tcp_connect of net/ipv4/ leave `ecn_flags` alone). If a kernel does not, this connection goes on without
/// answering marks, and none like it is promoted again.
fn look_after_ecn(fd: BorrowedFd<'_>, image: &Image) -> io::Result<()> {
    if image.flags & flag::ECN != 0
        && TcpInfo::of(fd)?.options & TCPI_OPT_ECN == 0
        && !LOSES_ECN.swap(true, Ordering::Relaxed)
    {
        tracing::warn!("{:?}: this kernel loses ECN: connections with it stay in the kernel from now on", image.flow);
    }
    Ok(())
}

/// Makes the kernel work out the size of its segments once more: connect(2) took 536 bytes for the peer's MSS, and no window.
/// There are no IP options to lose: sockets with some are not promoted.
fn fit_segments(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_IP, libc::IP_OPTIONS, [0u8; 0].as_slice())
}

/// Gives a socket in repair mode the image's windows.
pub fn set_window(fd: BorrowedFd<'_>, image: &Image) -> io::Result<()> {
    let fin = u32::from(image.flags & flag::FIN_RECEIVED != 0);
    let rcv_nxt = image.rcv_nxt.wrapping_sub(fin);
    let mut window = RepairWindow {
        snd_wl1: image.snd_wl1,
        snd_wnd: image.snd_wnd,
        max_window: image.max_window.max(image.snd_wnd),
        rcv_wnd: image.rcv_wnd,
        rcv_wup: image.rcv_wup,
    };
    // The kernel refuses numbers from beyond `rcv_nxt`; with the peer's FIN taken back they may lie one beyond.
    if (window.rcv_wup.wrapping_sub(rcv_nxt) as i32) > 0 {
        let ahead = window.rcv_wup.wrapping_sub(rcv_nxt);
        window.rcv_wnd = window.rcv_wnd.saturating_add(ahead);
        window.rcv_wup = rcv_nxt;
    }
    if (window.snd_wl1.wrapping_sub(rcv_nxt) as i32) > 0 {
        window.snd_wl1 = rcv_nxt;
    }
    set(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &window)
}

/// Writes bytes straight into a queue of a socket in repair mode.
fn fill(fd: BorrowedFd<'_>, queue: i32, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
    fill_live(fd, bytes)
}

fn fill_live(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(CHUNK)];
        let done = send(fd.as_raw_fd(), chunk, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        rest = &rest[done..];
    }
    Ok(())
}

/// The socket hears and speaks again.
fn wake(fd: BorrowedFd<'_>, image: &Image) -> io::Result<()> {
    let on = |bit: u32| i32::from(image.flags & bit != 0);
    detach_filter(fd)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_OFF_NO_WP)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, on(flag::NODELAY))?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_CORK, on(flag::CORK))?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, on(flag::KEEPALIVE))
}

/// Buffer sizes (as the kernel counts them, twice the bytes) before and after the queues are filled.
struct Buffers {
    /// The send buffer as it was.
    sndbuf: i32,
    /// The receive buffer as it was.
    rcvbuf: i32,
    /// Which sizes the program chose while the lane carried the connection, as bits of SO_BUF_LOCK.
    chosen: u32,
    /// The receive buffer that holds what the peer may still send into the window that it was promised.
    promised: i32,
    /// A send buffer as large as what lies in it: from a queue of more than twice the buffer, overhead included, the kernel cuts no segments to
    /// be sent again (tcp_fragment).
    queued: i32,
}

impl Buffers {
    /// Makes room for everything that will lie in the queues.
    fn widen(fd: BorrowedFd<'_>, image: &Image, recv: usize, to_send: usize) -> io::Result<Self> {
        let sndbuf = get_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        let rcvbuf = get_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
        let chosen = get_int(fd, libc::SOL_SOCKET, SO_BUF_LOCK).unwrap_or(0) as u32;
        let window =
            (image.rcv_wnd as usize).saturating_add(recv).min((largest_receive_buffer() / SEGMENT_COST).max(PROMISED));
        force(fd, libc::SO_RCVBUFFORCE, rcvbuf.max(2 * (recv + BUFFER_SLACK) as i32))?;
        force(fd, libc::SO_SNDBUFFORCE, sndbuf.max(2 * (to_send + BUFFER_SLACK) as i32))?;
        let queued = sndbuf.max(to_send.min(i32::MAX as usize / 2) as i32);
        Ok(Self { sndbuf, rcvbuf, chosen, promised: rcvbuf.max((SEGMENT_COST * window) as i32), queued })
    }

    /// Which sizes are the program's choice.
    fn locks(&self, saved: &Restore) -> u32 {
        (saved.buf_lock | self.chosen) & (SNDBUF_LOCK | RCVBUF_LOCK)
    }

    /// The receive buffer as it stays, before the first segment tells a window. Left to itself, the kernel takes segments to be half as
    /// expensive as they are, promises twice what the buffer holds, and has to drop what then comes. The clamp is lifted by the kernel
    /// itself when it lets the buffer grow, and by kernels that know a `scaling_ratio` once segments have shown what they cost.
    fn bound_promises(&self, fd: BorrowedFd<'_>, saved: &Restore) -> io::Result<()> {
        if self.locks(saved) & RCVBUF_LOCK != 0 {
            return force(fd, libc::SO_RCVBUFFORCE, self.rcvbuf);
        }
        force(fd, libc::SO_RCVBUFFORCE, self.promised)?;
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, self.promised / SEGMENT_COST as i32)
    }

    /// Sizes that the program chose come back exactly; those that the kernel tunes fit what is there. A send buffer that is larger than the
    /// kernel would make it is not left to it: it would shrink in the attempt to let it grow (tcp_sndbuf_expand), under the queue in it.
    fn put_back(&self, fd: BorrowedFd<'_>, saved: &Restore) -> io::Result<()> {
        let mut locks = self.locks(saved);
        if locks & SNDBUF_LOCK != 0 {
            force(fd, libc::SO_SNDBUFFORCE, self.sndbuf)?;
        } else {
            force(fd, libc::SO_SNDBUFFORCE, self.queued)?;
            locks |= if self.queued > largest_send_buffer() as i32 { SNDBUF_LOCK } else { 0 };
        }
        match set_int(fd, libc::SOL_SOCKET, SO_BUF_LOCK, locks as i32) {
            // Before Linux 5.14: the kernel then does not tune these buffers any more, nothing worse.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
            other => other,
        }
    }
}

/// What the kernel itself lets a receive buffer grow to (tcp_rmem, tcp(7)), bytes.
fn largest_receive_buffer() -> usize {
    static LARGEST: OnceLock<usize> = OnceLock::new();
    *LARGEST.get_or_init(|| largest("/proc/sys/net/ipv4/tcp_rmem").unwrap_or(USUAL_LARGEST.0))
}

/// The same of a send buffer (tcp_wmem).
fn largest_send_buffer() -> usize {
    static LARGEST: OnceLock<usize> = OnceLock::new();
    *LARGEST.get_or_init(|| largest("/proc/sys/net/ipv4/tcp_wmem").unwrap_or(USUAL_LARGEST.1))
}

/// The last of three sizes. Namespaces begin with those of the first one.
fn largest(path: &str) -> Option<usize> {
    let told = std::fs::read_to_string(path).ok()?;
    told.split_whitespace().nth(2)?.parse().ok().map(|size: usize| size.min(1 << 30))
}

/// Sets a buffer's size past the limits for programs. The kernel doubles what it is given.
fn force(fd: BorrowedFd<'_>, name: i32, size: i32) -> io::Result<()> {
    set_int(fd, libc::SOL_SOCKET, name, size / 2)
}

/// Which family the socket was made with.
pub fn family_of(fd: BorrowedFd<'_>) -> io::Result<Family> {
    match get_int(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        libc::AF_INET => Ok(Family::V4),
        libc::AF_INET6 => Ok(Family::V6),
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}
