//! What is a connection on the `shm` lane ready for, and who is told when it is?

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::lane::shm::Corrupt;

use super::{ENOUGH, is_on};
use crate::carry::kernel;
use crate::fd::Ref;
use crate::shm::{self, Channel, Rx, channel, leave};
use crate::socket::Socket;
use crate::wait::Look;

/// Part of the ring that has to be free for a socket to count as writable.
const WRITABLE: usize = 3;
/// The kernel is looked at while a thread spins no less often than this, ns.
const KERNEL_LOOK: u64 = 32_000;
const IN: c_int = (libc::POLLIN | libc::POLLRDNORM) as c_int;
const OUT: c_int = (libc::POLLOUT | libc::POLLWRNORM) as c_int;

/// Are `missing` bytes, the end of the stream, an error or another tier there? A sure look arms the want of inbox `place`.
pub fn has_bytes(socket: &Socket, fd: RawFd, number: u32, missing: usize, look: Look, place: usize) -> Option<()> {
    if !is_on(socket, number) {
        return Some(());
    }
    let Some(channel) = channel(number) else { return Some(()) };
    let mut guard = if look.sure { channel.rx() } else { channel.try_rx()? };
    let Some(rx) = guard.as_mut() else { return Some(()) };
    if rx.is_in_ring() {
        let has =
            |rx: &Rx| rx.available().map_or(true, |n| n >= missing.clamp(1, rx.capacity() / ENOUGH)) || rx.is_turning();
        if has(rx) || channel.news.load(Relaxed) {
            return Some(());
        }
        if look.sure {
            rx.arm(place);
            if has(rx) {
                return Some(());
            }
        } else if !channel.is_kernel_due(look.now, KERNEL_LOOK) {
            return None;
        }
    } else if rx.follow().is_err() || rx.is_in_ring() || rx.has_early() {
        return Some(());
    } else {
        rx.arm(place);
        if rx.is_turning() && rx.follow().is_ok_and(|limit| limit.is_none()) {
            return Some(());
        }
        rx.drop_copies(fd);
    }
    leave::look_at_kernel(socket, fd, libc::POLLIN | libc::POLLRDHUP).then_some(())
}

/// Is there room for a good part of `left` bytes, or another tier? A sure look arms the want of inbox `place`.
pub fn has_space(socket: &Socket, fd: RawFd, number: u32, left: usize, look: Look, place: usize) -> Option<()> {
    if !is_on(socket, number) {
        return Some(());
    }
    let Some(channel) = channel(number) else { return Some(()) };
    let guard = channel.tx();
    let Some(tx) = guard.as_ref() else { return Some(()) };
    if !tx.is_in_ring() {
        // The call itself gives the kernel first what was taken back from the ring.
        return (kernel::ready(fd, libc::POLLOUT) != 0).then_some(());
    }
    let enough = left.clamp(1, tx.capacity() / WRITABLE);
    let has = || !tx.is_heard() || tx.space().map_or(true, |space| space >= enough);
    if has() {
        return Some(());
    }
    if look.sure {
        tx.arm(place);
        return has().then_some(());
    }
    None
}

/// What a caller of [`events`] wants to be told later.
#[derive(Clone, Copy)]
pub struct Arm {
    /// In this inbox.
    pub place: usize,
    /// Also of bytes that come on top of those at hand (EPOLLET).
    pub edge: bool,
    /// Of room, too.
    pub space: bool,
}

/// What a socket is ready for, as poll(2) bits; for writing, only if it was asked for. What it is not ready for is told later, with `arm`.
pub fn events(socket: &Ref<Socket>, number: u32, for_writing: bool, arm: Option<Arm>) -> c_int {
    let Some(channel) = channel(number) else { return 0 };
    let fd = socket.fd.load(Relaxed);
    match incoming(socket, channel, fd, number, arm) {
        Some(Ok((events, kernel))) => {
            let out = if for_writing { outgoing(socket, channel, number, kernel, arm) } else { 0 };
            let kernel = kernel & c_int::from(libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP | libc::POLLPRI);
            events | kernel | out
        }
        Some(Err(Corrupt)) => {
            leave::condemn_soon(number);
            0
        }
        None => 0,
    }
}

/// The readable part, and what the kernel says if it was asked.
fn incoming(
    socket: &Ref<Socket>,
    channel: &Channel,
    fd: RawFd,
    number: u32,
    arm: Option<Arm>,
) -> Option<Result<(c_int, c_int), Corrupt>> {
    let low = socket.recv_low.load(Relaxed).max(1) as usize;
    let mut guard = channel.rx();
    let rx = guard.as_mut().filter(|_| is_on(socket, number))?;
    let mut look = |armed: bool| -> Result<(c_int, c_int), Corrupt> {
        rx.follow()?;
        let mut events = 0;
        if rx.is_in_ring() && rx.available()? >= low || rx.has_early() || low > 1 && is_divided(rx, fd) {
            events |= IN;
        }
        let ask = !rx.is_in_ring() || rx.is_turning() || channel.news.load(Acquire);
        let kernel = if ask { kernel_events(rx, fd) } else { 0 };
        if !rx.is_in_ring() || rx.available()? == 0 {
            events |= kernel & IN;
        }
        if ask && rx.is_in_ring() && kernel & !OUT == 0 {
            channel.news.store(channel.peer_gone.load(Acquire), Release);
        }
        if let Some(arm) = arm.filter(|arm| !armed && (events & IN == 0 || arm.edge)) {
            rx.arm(arm.place);
        }
        Ok((events, kernel))
    };
    let first = look(false);
    match (first, arm) {
        (Ok((events, _)), Some(_)) if events & IN == 0 => Some(look(true)),
        (first, _) => Some(first),
    }
}

/// Do bytes wait at a turn, where neither the ring nor the kernel sees all of them? Neither would say when they reach SO_RCVLOWAT together, so
/// less than that has to do.
fn is_divided(rx: &Rx, fd: RawFd) -> bool {
    rx.is_turning() && rx.queued(kernel::queued(fd) as c_int) > 0
}

/// What the kernel has to say. Copies of what the ring has given are nothing to read.
fn kernel_events(rx: &mut Rx, fd: RawFd) -> c_int {
    if rx.is_in_ring() || rx.drop_copies(fd) {
        return c_int::from(kernel::ready(fd, ALL));
    }
    // As they come they are told of, and looked at again.
    c_int::from(kernel::ready(fd, ALL)) & !IN
}

const ALL: i16 = libc::POLLIN | libc::POLLRDNORM | libc::POLLOUT | libc::POLLWRNORM | libc::POLLRDHUP | libc::POLLPRI;

fn outgoing(socket: &Ref<Socket>, channel: &Channel, number: u32, kernel: c_int, arm: Option<Arm>) -> c_int {
    let mut guard = channel.tx();
    let Some(tx) = guard.as_mut().filter(|_| is_on(socket, number)) else { return 0 };
    let fd = socket.fd.load(Relaxed);
    if !tx.is_in_ring() {
        if !tx.flush(fd).unwrap_or(true) {
            shm::meet::await_room(number, fd);
            return 0;
        }
        let asked = if kernel != 0 { kernel } else { c_int::from(kernel::ready(fd, ALL)) };
        if asked & OUT == 0 && arm.is_some_and(|arm| arm.space) {
            shm::meet::await_room(number, fd);
        }
        return asked & OUT;
    }
    let writable = || !tx.is_heard() || tx.space().map_or(true, |space| space >= tx.capacity() / WRITABLE);
    if writable() {
        return OUT;
    }
    if let Some(arm) = arm.filter(|arm| arm.space) {
        tx.arm(arm.place);
        if writable() {
            return OUT;
        }
    }
    0
}

/// A full socket's want of room for an edge-triggered member.
pub fn arm_space(socket: &Ref<Socket>, number: u32) {
    let place = socket.sets.lock().first().map(|(set, _)| set.shm_place());
    let (Some(place), Some(channel)) = (place, channel(number)) else { return };
    if channel.tx().as_ref().is_some_and(|tx| !tx.is_in_ring()) {
        shm::meet::await_room(number, socket.fd.load(Relaxed));
        return;
    }
    let came = channel.tx().as_ref().filter(|tx| tx.is_in_ring()).is_some_and(|tx| {
        tx.arm(place);
        tx.space().map_or(true, |space| space >= tx.capacity() / WRITABLE)
    });
    if came {
        shm::places::tell(number);
    }
}
