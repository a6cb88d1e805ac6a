//! ioctl(2) on TCP sockets (tcp(7), socket(7)): how much is queued, and whatever else only the kernel knows.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, c_ulong};
use underpass_stack::lane::Reason;

use super::{Act, conn, needs_kernel, socket_of};
use crate::engine::Engine;
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::{carry, engine, sys};

const SIOCINQ: c_ulong = libc::FIONREAD;
const SIOCOUTQ: c_ulong = libc::TIOCOUTQ;
const SIOCOUTQNSD: c_ulong = 0x894b;
const SIOCATMARK: c_ulong = 0x8905;

/// The call. `store` and `load` go to the place that the program has named.
pub fn ioctl(
    fd: RawFd,
    request: c_ulong,
    is_null: bool,
    store: &mut dyn FnMut(c_int),
    load: &mut dyn FnMut() -> c_int,
) -> Act<c_int> {
    let Some(socket) = socket_of(fd) else { return Act::Real };
    match request {
        libc::FIONBIO if !is_null => {
            socket.nonblocking.store(load() != 0, Relaxed);
            Act::Real
        }
        libc::FIOASYNC => {
            conn::pin(fd, Reason::SocketOption);
            Act::Real
        }
        SIOCINQ | SIOCOUTQ | SIOCOUTQNSD if !is_null => queue_length(&socket, request, store),
        libc::FIOCLEX | libc::FIONCLEX => Act::Real,
        // Where the urgent mark is, the kernel knows: its byte comes through the kernel.
        SIOCATMARK if matches!(socket.lane(), Some(Lane::Shm(_))) => at_mark(&socket, store),
        _ => needs_kernel(&socket, Reason::CallNotCarried),
    }
}

fn at_mark(socket: &Ref<Socket>, store: &mut dyn FnMut(c_int)) -> Act<c_int> {
    match socket.lane() {
        // Bytes in the ring come before any mark.
        Some(Lane::Shm(channel)) if carry::shm::reads_from_ring(channel) => {
            store(0);
            Act::Done(Ok(0))
        }
        _ => Act::Real,
    }
}

fn queue_length(socket: &Ref<Socket>, request: c_ulong, store: &mut dyn FnMut(c_int)) -> Act<c_int> {
    if let Some(Lane::Shm(channel)) = socket.lane()
        && let Some(length) = carry::shm::queued(socket, channel, request == SIOCINQ)
    {
        store(length.min(c_int::MAX as usize) as c_int);
        return Act::Done(Ok(0));
    }
    let Some(slot) = socket.slot() else { return needs_kernel(socket, Reason::CallNotCarried) };
    let Some(mut engine) = engine::get() else { return Act::Real };
    engine.pass(sys::now());
    let Some(length) = length_of(&mut engine, socket, slot, request) else {
        drop(engine);
        return needs_kernel(socket, Reason::CallNotCarried);
    };
    store(length as c_int);
    Act::Done(Ok(0))
}

fn length_of(engine: &mut Engine, socket: &Socket, slot: u32, request: c_ulong) -> Option<usize> {
    if socket.slot() != Some(slot) {
        return None;
    }
    let tcb = engine.stack.connection(slot)?.tcb;
    Some(match request {
        SIOCINQ => tcb.readable(),
        SIOCOUTQ => tcb.unacked() + tcb.unsent(),
        _ => tcb.unsent(),
    })
}
