//! Reading a connection out of the kernel: TCP_REPAIR (tcp(7), linux/tcp.h, and lwn.net/Articles/495304).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, recv};
use underpass_stack::arena::MAX_RING;
use underpass_stack::control::Restore;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::tcp::Instant;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::scoreboard::{Piece, phase};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::sockopt::{self, attach_drop_all, detach_filter, get_int, ioctl_int, set_int};
use super::state::monotonic;

/// Values of TCP_REPAIR, linux/tcp.h; OFF_NO_WP leaves repair mode without a window probe.
pub(super) const REPAIR_ON: i32 = 1;
pub(super) const REPAIR_OFF_NO_WP: i32 = -1;
/// Values of TCP_REPAIR_QUEUE, linux/tcp.h.
pub(super) const RECV_QUEUE: i32 = 1;
pub(super) const SEND_QUEUE: i32 = 2;
/// SO_BUF_LOCK, asm-generic/socket.h.
pub(super) const SO_BUF_LOCK: i32 = 72;
/// linux/sockios.h: bytes not yet sent.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;
/// An skb whose head was acknowledged in part is still shown whole when the send queue is read.
const SEND_SLACK: usize = 64 << 10;
/// The kernel's "no slow start threshold".
pub(super) const TCP_INFINITE_SSTHRESH: u32 = 0x7fff_ffff;
/// `tcpi_state`, linux/tcp_states.h (netinet/tcp.h).
const TCP_ESTABLISHED: u8 = 1;
/// Values of `tcpi_ca_state`, linux/tcp.h.
const TCP_CA_CWR: u8 = 2;
const TCP_CA_RECOVERY: u8 = 3;
const TCP_CA_LOSS: u8 = 4;
/// Bits of `tcpi_options`, linux/tcp.h.
const TCPI_OPT_TIMESTAMPS: u8 = 1;
const TCPI_OPT_SACK: u8 = 2;
const TCPI_OPT_WSCALE: u8 = 4;
pub(super) const TCPI_OPT_ECN: u8 = 8;

/// The start of `struct tcp_info`, linux/tcp.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct TcpInfo {
    /// TCP_ESTABLISHED and so on.
    pub state: u8,
    /// TCP_CA_Open and so on.
    pub ca_state: u8,
    tries: [u8; 2],
    /// Doublings of the retransmission timeout, or of the wait between probes of a closed window.
    pub backoff: u8,
    /// TCPI_OPT_* bits.
    pub options: u8,
    /// Low half: shift of the peer's windows; high half: of ours.
    pub wscale: u8,
    flags: u8,
    /// Retransmission timeout, µs.
    pub rto: u32,
    ato: u32,
    mss: [u32; 2],
    counts: [u32; 5],
    times: [u32; 4],
    pmtu: u32,
    rcv_ssthresh: u32,
    /// Smoothed round-trip time, µs.
    pub rtt: u32,
    /// Its variation, µs.
    pub rttvar: u32,
    /// Slow start threshold, segments.
    pub snd_ssthresh: u32,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
}

impl TcpInfo {
    /// Has neither end closed its direction, nor given up?
    pub fn is_established(&self) -> bool {
        self.state == TCP_ESTABLISHED
    }

    /// TCP_INFO of a socket.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        sockopt::get::<Self>(fd, libc::IPPROTO_TCP, libc::TCP_INFO).map(|(info, _)| info)
    }
}

/// `struct tcp_repair_window`, linux/tcp.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct RepairWindow {
    pub(super) snd_wl1: u32,
    pub(super) snd_wnd: u32,
    pub(super) max_window: u32,
    pub(super) rcv_wnd: u32,
    pub(super) rcv_wup: u32,
}

/// A connection as read from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Its numbers.
    pub image: Image,
    /// When they were read.
    pub at: Instant,
    /// Bytes that the program has not read.
    pub recv: Vec<u8>,
    /// Bytes that the peer has not acknowledged.
    pub send: Vec<u8>,
    /// Bytes received out of order, each piece with the sequence number of its first. The kernel tells nobody of its own.
    pub ahead: Vec<(u32, Vec<u8>)>,
    /// What has become of what is in flight.
    pub sent: Transmissions,
}

impl Dump {
    /// Its numbers some time later: the clock of its timestamps has gone on. One that had stood still would make what is under way come back sooner
    /// than it does, and the shortest round trip counts for long.
    pub fn image_at(&self, now: Instant) -> Image {
        let ms = now.nanos_since(self.at) / 1_000_000;
        Image { ts_val: self.image.ts_val.wrapping_add(ms as u32), ..self.image }
    }
}

/// A [`underpass_stack::tcp::Scoreboard`] of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transmissions {
    /// One of [`phase`].
    pub phase: u32,
    /// The sequence number whose acknowledgement ends the recovery.
    pub recover: u32,
    /// In the order of the stream.
    pub pieces: Vec<Piece>,
}

/// Why a connection could not be read.
#[derive(Debug)]
pub enum DumpError {
    /// A system call failed.
    Io(io::Error),
    /// The sequence numbers moved while they were read.
    Moving,
    /// More bytes are queued than the largest ring holds.
    QueueTooLarge,
    /// Urgent data lies, or has lain, between the unread bytes: what is behind it cannot be read out.
    Urgent,
    /// A FIN or RST has come since the socket was looked at. An image of it would not say so, and the peer will not say it again.
    Closed,
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What promotion changes on the socket, as it is now.
pub fn remember(fd: BorrowedFd<'_>) -> io::Result<Restore> {
    Ok(Restore {
        reuse_addr: get_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)? as u32,
        keepalive: get_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE)? as u32,
        // Before Linux 5.14 there is no way to know; then nothing is locked again.
        buf_lock: get_int(fd, libc::SOL_SOCKET, SO_BUF_LOCK).unwrap_or(0) as u32,
        pad: 0,
    })
}

/// Turns repair mode on. The socket goes on receiving; the receive queue is selected, so that what it sends because of an
/// arriving segment is really sent.
pub fn open(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_ON)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, RECV_QUEUE)
}

/// The socket hears nothing any more and asks nothing of the peer.
pub fn silence(fd: BorrowedFd<'_>) -> io::Result<()> {
    attach_drop_all(fd)?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0)
}

/// Undoes [`open`] and [`silence`] on a socket whose queues were not touched. After a [`dump`], its window has to be opened first.
///
/// # Errors
/// The first system call's that failed; the others are made all the same.
pub fn thaw(fd: BorrowedFd<'_>, restore: &Restore) -> io::Result<()> {
    let steps = [
        detach_filter(fd),
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_OFF_NO_WP),
        set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, restore.reuse_addr as i32),
        set_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, restore.keepalive as i32),
    ];
    steps.into_iter().collect()
}

/// Is the socket in repair mode?
pub fn in_repair(fd: BorrowedFd<'_>) -> io::Result<bool> {
    get_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR).map(|mode| mode != 0)
}

/// `rcv_nxt` of a socket in repair mode.
pub fn rcv_nxt(fd: BorrowedFd<'_>) -> io::Result<u32> {
    sequence(fd, RECV_QUEUE)
}

/// The end of the window that the peer was promised last, of a socket in repair mode.
pub fn window_end(fd: BorrowedFd<'_>) -> io::Result<u32> {
    window(fd).map(|window| window.rcv_wup.wrapping_add(window.rcv_wnd))
}

/// Bytes in the send queue.
pub fn unacked(fd: BorrowedFd<'_>) -> io::Result<u32> {
    ioctl_int(fd, libc::TIOCOUTQ).map(|len| len as u32)
}

fn sequence(fd: BorrowedFd<'_>, queue: i32) -> io::Result<u32> {
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
    get_int(fd, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ).map(|seq| seq as u32)
}

/// Everything that moves when a segment is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    write_seq: u32,
    rcv_nxt: u32,
    unacked: u32,
    unread: u32,
    window: RepairWindow,
}

fn numbers(fd: BorrowedFd<'_>) -> io::Result<Numbers> {
    let write_seq = sequence(fd, SEND_QUEUE)?;
    let rcv_nxt = sequence(fd, RECV_QUEUE)?;
    Ok(Numbers {
        write_seq,
        rcv_nxt,
        unacked: ioctl_int(fd, libc::TIOCOUTQ)? as u32,
        unread: ioctl_int(fd, libc::FIONREAD)? as u32,
        window: window(fd)?,
    })
}

fn window(fd: BorrowedFd<'_>) -> io::Result<RepairWindow> {
    sockopt::get::<RepairWindow>(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW).map(|(window, _)| window)
}

/// Reads a silent socket in repair mode ([`open`], [`silence`]). What remains is a closed window for sending; if it fails, nothing.
///
/// While the send queue is selected, a pacing timer is enough for the kernel to count everything queued as sent, without
/// sending it. So the peer's window is closed first, which keeps the socket from really sending more, then what is unsent is
/// counted, and only then the queue is selected.
pub fn dump(fd: BorrowedFd<'_>, flow: FlowKey, restore: &Restore) -> Result<Dump, DumpError> {
    let opened = window(fd)?;
    sockopt::set(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &RepairWindow { snd_wnd: 0, ..opened })?;
    let dumped = dump_closed(fd, flow, restore, &opened);
    if dumped.is_err() {
        // Our own window may have moved on meanwhile.
        let now = RepairWindow { snd_wnd: opened.snd_wnd, ..window(fd)? };
        sockopt::set(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &now)?;
    }
    dumped
}

fn dump_closed(fd: BorrowedFd<'_>, flow: FlowKey, restore: &Restore, open: &RepairWindow) -> Result<Dump, DumpError> {
    let unsent = ioctl_int(fd, SIOCOUTQNSD)? as u32;
    if (ioctl_int(fd, libc::FIONREAD)?.max(ioctl_int(fd, libc::TIOCOUTQ)?)) as u32 > MAX_RING {
        return Err(DumpError::QueueTooLarge);
    }
    if has_urgent_mark(fd)? {
        return Err(DumpError::Urgent);
    }
    let before = numbers(fd)?;
    let recv = peek(fd, RECV_QUEUE, before.unread as usize)?;
    let mut send = peek(fd, SEND_QUEUE, before.unacked as usize)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, RECV_QUEUE)?;
    // Looking at the receive queue may have sent an acknowledgement that was due: its window counts.
    let now = numbers(fd)?;
    let (at, image) = (monotonic(), image_of(fd, flow, restore, &now, (unsent, open.snd_wnd))?);
    let short = recv.len() != before.unread as usize || send.len() < before.unacked as usize;
    if short || now != (Numbers { window: now.window, ..before }) || window(fd)? != now.window {
        tracing::debug!("{flow:?}: moving: {before:?}, then {now:?}; read {} and {} bytes", recv.len(), send.len());
        return Err(DumpError::Moving);
    }
    // Nothing arrives any more.
    let info = TcpInfo::of(fd)?;
    if !info.is_established() {
        return Err(DumpError::Closed);
    }
    send.drain(..send.len() - before.unacked as usize);
    let sent = Transmissions { phase: phase_of(info.ca_state), ..Transmissions::default() };
    Ok(Dump { image, at, recv, send, ahead: Vec::new(), sent })
}

/// Is there an urgent mark in the unread bytes? FIONREAD counts up to the mark, unless urgent data is part of the stream.
fn has_urgent_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let apart = ioctl_int(fd, libc::FIONREAD)?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1)?;
    let inline = ioctl_int(fd, libc::FIONREAD);
    set_int(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 0)?;
    Ok(inline? != apart)
}

fn phase_of(ca_state: u8) -> u32 {
    match ca_state {
        TCP_CA_RECOVERY => phase::RECOVERY,
        TCP_CA_LOSS => phase::LOSS,
        _ => phase::OPEN,
    }
}

/// While the kernel reduces the window, step by step, it is on its way to the threshold, which the stack takes at once.
fn window_of(info: &TcpInfo) -> u32 {
    let reduces = matches!(info.ca_state, TCP_CA_CWR | TCP_CA_RECOVERY) && info.snd_ssthresh < TCP_INFINITE_SSTHRESH;
    if reduces { info.snd_ssthresh } else { info.snd_cwnd }
}

fn peek(fd: BorrowedFd<'_>, queue: i32, len: usize) -> io::Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
    let room = len + if queue == SEND_QUEUE { SEND_SLACK } else { 0 };
    let mut bytes = vec![0; room];
    let got = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// The image of a socket; `unsent` bytes and the window for sending were read before they were changed.
fn image_of(
    fd: BorrowedFd<'_>,
    flow: FlowKey,
    restore: &Restore,
    n: &Numbers,
    (unsent, snd_wnd): (u32, u32),
) -> io::Result<Image> {
    let tcp = |name| get_int(fd, libc::IPPROTO_TCP, name).map(|value| value as u32);
    let info = TcpInfo::of(fd)?;
    let mut flags = 0;
    let mut set = |on: bool, bit: u32| flags |= if on { bit } else { 0 };
    set(info.options & TCPI_OPT_WSCALE != 0, flag::WSCALE);
    set(info.options & TCPI_OPT_SACK != 0, flag::SACK);
    set(info.options & TCPI_OPT_TIMESTAMPS != 0, flag::TIMESTAMPS);
    set(info.options & TCPI_OPT_ECN != 0, flag::ECN);
    set(tcp(libc::TCP_NODELAY)? != 0, flag::NODELAY);
    set(tcp(libc::TCP_CORK)? != 0, flag::CORK);
    set(restore.keepalive != 0, flag::KEEPALIVE);
    Ok(Image {
        flow,
        snd_una: n.write_seq.wrapping_sub(n.unacked),
        snd_nxt: n.write_seq.wrapping_sub(unsent),
        snd_end: n.write_seq,
        rcv_nxt: n.rcv_nxt,
        rcv_read: n.rcv_nxt.wrapping_sub(n.unread),
        snd_wl1: n.window.snd_wl1,
        snd_wnd,
        max_window: n.window.max_window,
        rcv_wnd: n.window.rcv_wnd,
        rcv_wup: n.window.rcv_wup,
        mss_clamp: u16::try_from(tcp(libc::TCP_MAXSEG)?).unwrap_or(u16::MAX),
        snd_wscale: info.wscale & 0xf,
        rcv_wscale: info.wscale >> 4,
        flags,
        // The kernel clears the lowest bit of what it tells; its clock may already have sent the odd value.
        ts_val: tcp(libc::TCP_TIMESTAMP)? | 1,
        ts_recent: 0,
        srtt_us: info.rtt,
        rttvar_us: info.rttvar,
        cwnd: window_of(&info),
        ssthresh: if info.snd_ssthresh >= TCP_INFINITE_SSTHRESH { u32::MAX } else { info.snd_ssthresh },
        keep_idle_ms: tcp(libc::TCP_KEEPIDLE)?.saturating_mul(1000),
        keep_interval_ms: tcp(libc::TCP_KEEPINTVL)?.saturating_mul(1000),
        keep_count: u16::try_from(tcp(libc::TCP_KEEPCNT)?).unwrap_or(u16::MAX),
        backoff: info.backoff,
        pad: 0,
        user_timeout_ms: tcp(libc::TCP_USER_TIMEOUT)?,
        rcvbuf: get_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)? as u32,
        sndbuf: get_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)? as u32,
    })
}
