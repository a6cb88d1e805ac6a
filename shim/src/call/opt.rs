//! Socket options and status flags. What the lane answers itself, what the kernel answers rightly for it, and what gives
//! the connection back: the last is the default.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::lane::Reason;
use underpass_stack::tcp::image::flag;
use underpass_stack::tcp::{Connection, Instant};
use zerocopy::IntoBytes;

use super::{Act, conn, needs_kernel, socket_of, steady, told};
use crate::errno::Result;
use crate::fd::Ref;
use crate::socket::{Blocking, Lane, Socket, Where};
use crate::tcp_info;
use crate::tier::congestion::{algorithm_for, pacing_limit_of};
use crate::tier::{buffer_of, silence};
use crate::{carry, engine, sys};

/// An option with its level.
type Name = (c_int, c_int);

const SOCKET: c_int = libc::SOL_SOCKET;
const TCP: c_int = libc::IPPROTO_TCP;
const IPV6: c_int = libc::IPPROTO_IPV6;
/// linux/in6.h.
const IPV6_FLOWINFO_SEND: c_int = 33;
const IPV6_AUTOFLOWLABEL: c_int = 70;

/// Options whose value the kernel socket still has right while it is silent.
const KERNEL_KNOWS: &[Name] = &[
    (SOCKET, libc::SO_TYPE),
    (SOCKET, libc::SO_PROTOCOL),
    (SOCKET, libc::SO_DOMAIN),
    (SOCKET, libc::SO_ERROR),
    (SOCKET, libc::SO_ACCEPTCONN),
    (SOCKET, libc::SO_RCVBUF),
    (SOCKET, libc::SO_SNDBUF),
    (SOCKET, libc::SO_RCVTIMEO),
    (SOCKET, libc::SO_SNDTIMEO),
    (SOCKET, libc::SO_RCVLOWAT),
    (SOCKET, libc::SO_SNDLOWAT),
    (SOCKET, libc::SO_LINGER),
    (SOCKET, libc::SO_OOBINLINE),
    (SOCKET, libc::SO_REUSEPORT),
    (SOCKET, libc::SO_BROADCAST),
    (SOCKET, libc::SO_DONTROUTE),
    (SOCKET, libc::SO_PRIORITY),
    (SOCKET, libc::SO_INCOMING_CPU),
    (SOCKET, libc::SO_COOKIE),
    (SOCKET, libc::SO_BUSY_POLL),
    (SOCKET, libc::SO_MARK),
    (SOCKET, libc::SO_BINDTODEVICE),
    (SOCKET, libc::SO_MAX_PACING_RATE),
    (TCP, libc::TCP_NODELAY),
    (TCP, libc::TCP_CORK),
    (TCP, libc::TCP_KEEPIDLE),
    (TCP, libc::TCP_KEEPINTVL),
    (TCP, libc::TCP_KEEPCNT),
    (TCP, libc::TCP_USER_TIMEOUT),
    (TCP, libc::TCP_CONGESTION),
    (TCP, libc::TCP_QUICKACK),
    (TCP, libc::TCP_DEFER_ACCEPT),
    (TCP, libc::TCP_SYNCNT),
    (TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (IPV6, libc::IPV6_V6ONLY),
    (IPV6, libc::IPV6_TCLASS),
    (IPV6, libc::IPV6_UNICAST_HOPS),
    (IPV6, libc::IPV6_MTU_DISCOVER),
    (IPV6, IPV6_AUTOFLOWLABEL),
    (IPV6, IPV6_FLOWINFO_SEND),
];

/// Options that mean nothing to a connection on a lane, or act only when it is back: the kernel keeps them.
const KERNEL_KEEPS: &[Name] = &[
    (SOCKET, libc::SO_LINGER),
    (SOCKET, libc::SO_RCVBUF),
    (SOCKET, libc::SO_SNDBUF),
    (SOCKET, libc::SO_BROADCAST),
    (SOCKET, libc::SO_BUSY_POLL),
    (SOCKET, libc::SO_INCOMING_CPU),
    (SOCKET, libc::SO_SNDLOWAT),
    (TCP, libc::TCP_SYNCNT),
    (TCP, libc::TCP_DEFER_ACCEPT),
    (TCP, libc::TCP_LINGER2),
    // Of an open connection it changes nothing: it is for the handshake.
    (TCP, libc::TCP_MAXSEG),
];

/// Options that put something between the program and the kernel's bytes: nothing can go past that.
const REPLACES_CARRIER: &[Name] =
    &[(TCP, libc::TCP_ULP), (TCP, libc::TCP_REPAIR), (SOCKET, libc::SO_ATTACH_FILTER), (SOCKET, libc::SO_ATTACH_BPF)];

/// getsockopt(2). `real` asks the kernel into the program's memory; `store` puts a value of ours there.
pub fn get(
    fd: RawFd,
    level: c_int,
    name: c_int,
    real: &mut dyn FnMut() -> Result<c_int>,
    store: &mut dyn FnMut(&[u8]) -> bool,
) -> Act<c_int> {
    let Some(socket) = socket_of(fd) else { return Act::Real };
    if (level, name) == (IPV6, libc::IPV6_V6ONLY) && socket.dual.load(Relaxed) && store(&[0; 4]) {
        return Act::Done(Ok(0));
    }
    loop {
        match socket.place() {
            Where::Kernel => {
                return match back_in_kernel(&socket, (level, name)) {
                    Some(value) if store(&value) => Act::Done(Ok(0)),
                    _ => Act::Real,
                };
            }
            Where::Changing => socket.await_change(),
            Where::Lane(Lane::Xdp(_)) if KERNEL_KNOWS.contains(&(level, name)) => {
                return Act::Done(steady(&socket, &mut *real));
            }
            Where::Lane(Lane::Shm(channel)) => {
                return match of_channel(&socket, channel, (level, name)) {
                    Some(value) if store(&value) => Act::Done(Ok(0)),
                    _ => Act::Real,
                };
            }
            Where::Lane(Lane::Xdp(slot)) => {
                return match ours(&socket, slot, (level, name)) {
                    Some(value) if store(&value) => Act::Done(Ok(0)),
                    Some(_) => Act::Real,
                    None => needs_kernel(&socket, Reason::CallNotCarried),
                };
            }
        }
    }
}

/// The value of an option that the silent kernel socket has wrong.
fn ours(socket: &Socket, slot: u32, name: Name) -> Option<Vec<u8>> {
    let int = |value: u32| Some(value.as_bytes().to_vec());
    match name {
        (SOCKET, libc::SO_KEEPALIVE) => int(u32::from(socket.restore.lock().keepalive != 0)),
        (SOCKET, libc::SO_REUSEADDR) => int(u32::from(socket.restore.lock().reuse_addr != 0)),
        (TCP, libc::TCP_MAXSEG) => int(engine::get()?.stack.connection(slot)?.tcb.mss()),
        (libc::IPPROTO_IP, libc::IP_MTU) => int(engine::get()?.stack.connection(slot)?.tcb.path_mtu()),
        (TCP, libc::TCP_INFO) => {
            let silent = tcp_info::of_socket(socket)?;
            let mut engine = engine::get()?;
            Some(tcp_info::of_lane(silent, &mut engine.stack.connection(slot)?, sys::now()))
        }
        _ => None,
    }
}

/// The value of an option that the kernel does not know all of since the socket came back from a lane.
fn back_in_kernel(socket: &Socket, name: Name) -> Option<Vec<u8>> {
    if let Some(value) = silence::value_of(socket, name.0, name.1) {
        return Some(value.as_bytes().to_vec());
    }
    if name != (TCP, libc::TCP_INFO) || !socket.was_demoted() {
        return None;
    }
    let _inside = socket.enter_kernel()?;
    tcp_info::of_socket(socket)
}

/// The value of an option that the kernel does not know all of while bytes go through rings.
fn of_channel(socket: &Socket, channel: u32, name: Name) -> Option<Vec<u8>> {
    (name == (TCP, libc::TCP_INFO)).then_some(())?;
    let kernel = tcp_info::of_socket(socket)?;
    let [read, written, taken] = carry::shm::carried(channel)?;
    Some(tcp_info::of_channel(kernel, read, written, taken))
}

/// setsockopt(2). `real` tells the kernel; `value` is the value where it is an int.
pub fn set(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: Option<c_int>,
    real: &mut dyn FnMut() -> Result<c_int>,
) -> Act<c_int> {
    let Some(socket) = socket_of(fd) else { return Act::Real };
    if told::is_asked_by((level, name), value) {
        conn::pin(fd, Reason::SocketOption);
    }
    silence::lend_no_more(&socket, fd, level, name);
    let act = loop {
        match socket.place() {
            Where::Kernel => {
                // What would be set in the kernel after the connection has left it, the lane would not know.
                let is_there = || socket.place() == Where::Kernel;
                if let Some(result) = steady(&socket, || is_there().then(&mut *real)) {
                    break Act::Done(result);
                }
            }
            Where::Changing => socket.await_change(),
            Where::Lane(Lane::Shm(_)) if !REPLACES_CARRIER.contains(&(level, name)) => {
                break Act::Done(steady(&socket, &mut *real));
            }
            Where::Lane(Lane::Shm(_)) => match needs_kernel(&socket, Reason::SocketOption) {
                Act::Real => {
                    socket.retry_at.store(u64::MAX, Relaxed);
                }
                other => return other,
            },
            Where::Lane(Lane::Xdp(slot)) => match set_on_lane(&socket, slot, (level, name), value, real) {
                Some(result) => break Act::Done(result),
                None => match needs_kernel(&socket, Reason::SocketOption) {
                    Act::Real => {}
                    other => return other,
                },
            },
        }
    };
    told::forget(&socket);
    if matches!(act, Act::Done(Ok(_)))
        && matches!((level, name), (SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO | libc::SO_RCVLOWAT))
    {
        socket.set_blocking(Blocking::of(fd));
    }
    act
}

/// `None`: the lane cannot do it.
fn set_on_lane(
    socket: &Ref<Socket>,
    slot: u32,
    name: Name,
    value: Option<c_int>,
    real: &mut dyn FnMut() -> Result<c_int>,
) -> Option<Result<c_int>> {
    if KERNEL_KEEPS.contains(&name) {
        let kept = steady(socket, real);
        if matches!(name, (SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF)) && kept.is_ok() {
            resize(socket, slot, name.1);
        }
        return Some(kept);
    }
    match name {
        (SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO | libc::SO_RCVLOWAT) => return Some(steady(socket, real)),
        (SOCKET, libc::SO_MAX_PACING_RATE) | (TCP, libc::TCP_CONGESTION) => return set_pace(socket, slot, name, real),
        (SOCKET, libc::SO_KEEPALIVE) => {
            let on = value? != 0;
            socket.restore.lock().keepalive = u32::from(on);
            return change(socket, slot, |connection, now| {
                let keep = Keepalive::of(connection, now);
                connection.set_keepalive(now, on, keep.idle, keep.interval, keep.count);
            });
        }
        (
            TCP,
            libc::TCP_NODELAY
            | libc::TCP_CORK
            | libc::TCP_KEEPIDLE
            | libc::TCP_KEEPINTVL
            | libc::TCP_KEEPCNT
            | libc::TCP_USER_TIMEOUT
            | libc::TCP_NOTSENT_LOWAT
            | libc::TCP_QUICKACK,
        ) => {}
        _ => return None,
    }
    let value = value?;
    // The kernel judges the value and keeps it for the time after the lane.
    let judged = steady(socket, real);
    if judged.is_err() {
        return Some(judged);
    }
    change(socket, slot, |connection, now| {
        let Keepalive { on, idle, interval, count } = Keepalive::of(connection, now);
        let ms = (value as u32).saturating_mul(1_000);
        match name.1 {
            libc::TCP_NODELAY => connection.set_nodelay(value != 0),
            libc::TCP_CORK => connection.set_cork(value != 0),
            libc::TCP_KEEPIDLE => connection.set_keepalive(now, on, ms, interval, count),
            libc::TCP_KEEPINTVL => connection.set_keepalive(now, on, idle, ms, count),
            libc::TCP_KEEPCNT => connection.set_keepalive(now, on, idle, interval, value as u32),
            libc::TCP_USER_TIMEOUT => connection.set_user_timeout(value as u32),
            libc::TCP_NOTSENT_LOWAT => connection.set_notsent_lowat(value as u32),
            _ => connection.set_quickack(value != 0),
        }
    })
}

/// The program has chosen the size of a buffer: it is not tuned any more (socket(7)). The kernel knows the size, as twice of what
/// it was asked for.
fn resize(socket: &Ref<Socket>, slot: u32, name: c_int) {
    let Ok(doubled) = sys::sockopt(socket.fd.load(Relaxed), SOCKET, name) else { return };
    let bytes = buffer_of(doubled as u32);
    // If it has just left the lane, the kernel goes by it.
    let _ = change(socket, slot, |connection, _| match name {
        libc::SO_RCVBUF => connection.fix_window(bytes),
        _ => connection.fix_queue(bytes),
    });
}

/// How fast to send: the kernel judges the value, and is then asked what it made of it.
fn set_pace(
    socket: &Ref<Socket>,
    slot: u32,
    name: Name,
    real: &mut dyn FnMut() -> Result<c_int>,
) -> Option<Result<c_int>> {
    let judged = steady(socket, real);
    if judged.is_err() {
        return Some(judged);
    }
    let fd = socket.fd.load(Relaxed);
    if name == (SOCKET, libc::SO_MAX_PACING_RATE) {
        let rate = pacing_limit_of(fd);
        return change(socket, slot, |connection, _| connection.tcb.limit_pacing(rate));
    }
    let algorithm = algorithm_for(fd)?;
    change(socket, slot, |connection, _| {
        if connection.tcb.algorithm() != algorithm {
            connection.choose_congestion(algorithm);
        }
    })
}

/// A connection's keepalive settings; times in ms.
struct Keepalive {
    on: bool,
    idle: u32,
    interval: u32,
    count: u32,
}

impl Keepalive {
    fn of(connection: &Connection<'_>, now: Instant) -> Self {
        let image = connection.tcb.image(FlowKey::default(), now);
        Self {
            on: image.flags & flag::KEEPALIVE != 0,
            idle: image.keep_idle_ms,
            interval: image.keep_interval_ms,
            count: image.keep_count.into(),
        }
    }
}

fn change(socket: &Socket, slot: u32, change: impl FnOnce(&mut Connection<'_>, Instant)) -> Option<Result<c_int>> {
    let mut engine = engine::get()?;
    if socket.slot() != Some(slot) {
        return None;
    }
    let now = sys::now();
    engine.stack.with_connection(slot, now, |connection| change(connection, now))?;
    engine.tell();
    Some(Ok(0))
}

/// fcntl(2), F_SETFL.
pub fn status_flags(fd: RawFd, flags: c_int) {
    let Some(socket) = socket_of(fd) else { return };
    socket.nonblocking.store(flags & libc::O_NONBLOCK != 0, Relaxed);
    if flags & libc::O_ASYNC != 0 {
        conn::pin(fd, Reason::SocketOption);
    }
}

/// listen(2) succeeded.
pub fn listens(fd: RawFd) {
    if let Some(socket) = socket_of(fd) {
        socket.retry_at.store(u64::MAX, Relaxed);
        socket.reason.store(Reason::Listening as u16, Relaxed);
        engine::show(fd, &socket);
    }
}
