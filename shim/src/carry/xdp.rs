//! The `xdp` lane: the process's own stack, under its lock.

use libc::c_int;
use underpass_stack::lane::Reason;
use underpass_stack::tcp::{State, Tcb};

use super::{Ask, Step};
use crate::buffers::{Gather, Scatter};
use crate::engine::Engine;
use crate::errno::Errno;
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::wait::Look;
use crate::{engine, sys, tier};

/// Has the peer's FIN come, so that reads end after the bytes at hand?
pub fn peer_closed(tcb: &Tcb) -> bool {
    !matches!(tcb.state(), State::Established | State::FinWait1 | State::FinWait2)
}

/// Has the program closed its sending side?
pub fn write_closed(tcb: &Tcb) -> bool {
    !matches!(tcb.state(), State::Established | State::CloseWait)
}

/// Receives.
pub fn receive(socket: &Ref<Socket>, slot: u32, into: &mut Scatter<'_, '_>, ask: Ask) -> Step {
    let Ask { flags, want, waits } = ask;
    let Some(mut engine) = engine::get() else { return Step::Moved };
    if socket.slot() != Some(slot) {
        return Step::Moved;
    }
    if engine.stack.connection(slot).map_or(0, |c| c.tcb.readable()) < want {
        engine.pass(sys::now());
    }
    let Some(connection) = engine.stack.connection(slot) else { return Step::Moved };
    if connection.tcb.is_reset() {
        drop(engine);
        return to_kernel(socket);
    }
    let (readable, ended) = (connection.tcb.readable(), peer_closed(connection.tcb));
    if readable == 0 {
        return if ended { Step::Over } else { Step::Blocked };
    }
    if into.len == 0 {
        return Step::Over;
    }
    if flags & libc::MSG_PEEK != 0 {
        if waits && readable < want && !ended {
            return Step::Blocked;
        }
        if into.has_no_places() {
            into.done = readable.min(into.len);
        } else {
            peek(&mut engine, slot, into);
        }
        return Step::Over;
    }
    if flags & libc::MSG_TRUNC != 0 {
        let left = into.left();
        into.done += engine.stack.discard(slot, left).unwrap_or(0);
    } else {
        take(&mut engine, slot, into);
    }
    engine.flush_if_needed();
    if into.done >= want || ended { Step::Over } else { Step::Blocked }
}

/// The peer has reset the connection: the kernel says so in its own way.
fn to_kernel(socket: &Ref<Socket>) -> Step {
    match tier::demote(socket, Reason::PeerReset) {
        Ok(()) => Step::Moved,
        Err(_) => Step::Failed(Errno(libc::ECONNRESET)),
    }
}

fn take(engine: &mut Engine, slot: u32, into: &mut Scatter<'_, '_>) {
    while let Some(room) = into.next() {
        let n = engine.stack.recv(slot, room, None).unwrap_or(0);
        if n == 0 {
            break;
        }
        into.advance(n);
    }
}

fn peek(engine: &mut Engine, slot: u32, into: &mut Scatter<'_, '_>) {
    let mut offset = 0;
    while let Some(room) = into.next() {
        let n = engine.stack.recv(slot, room, Some(offset)).unwrap_or(0);
        if n == 0 {
            break;
        }
        offset += n;
        into.advance(n);
    }
}

/// Sends.
pub fn send(socket: &Ref<Socket>, slot: u32, from: &mut Gather<'_>, flags: c_int) -> Step {
    let Some(mut engine) = engine::get() else { return Step::Moved };
    if socket.slot() != Some(slot) {
        return Step::Moved;
    }
    let now = sys::now();
    let Some(connection) = engine.stack.connection(slot) else { return Step::Moved };
    if connection.tcb.is_reset() {
        drop(engine);
        return to_kernel(socket);
    }
    if write_closed(connection.tcb) {
        return Step::Failed(Errno(libc::EPIPE));
    }
    let mut full = false;
    while let Some((bytes, more)) = from.next() {
        let n = engine.stack.send(slot, now, bytes, more || flags & libc::MSG_MORE != 0).unwrap_or(0);
        from.done += n;
        if n < bytes.len() {
            full = true;
            break;
        }
    }
    engine.flush(now);
    if full { Step::Blocked } else { Step::Over }
}

/// A look at what a waiting call waits for.
fn look_at<T>(socket: &Socket, slot: u32, look: Look, at: impl FnOnce(&mut Engine) -> Option<T>) -> Option<Option<T>> {
    if engine::has_work() {
        engine::settle();
    }
    if socket.lane() != Some(Lane::Xdp(slot)) {
        return None;
    }
    let Some(mut engine) = (if look.sure { engine::get() } else { engine::try_get() }) else { return Some(None) };
    engine.pass(look.now);
    Some(at(&mut engine))
}

/// Are `missing` bytes, the end of the stream, an error or another tier there?
pub fn has_bytes(socket: &Socket, slot: u32, missing: usize, look: Look) -> Option<()> {
    let found = look_at(socket, slot, look, |engine| {
        let connection = engine.stack.connection(slot)?;
        // More than is offered to the peer never lies in the ring at once.
        let missing = missing.min(connection.recv_limit() / 4);
        let tcb = connection.tcb;
        (tcb.is_reset() || tcb.readable() >= missing.max(1) || peer_closed(tcb)).then_some(())
    });
    found.unwrap_or(Some(()))
}

/// Is there room for a good part of the `left` bytes, or another tier?
pub fn has_space(socket: &Socket, slot: u32, left: usize, look: Look) -> Option<()> {
    let found = look_at(socket, slot, look, |engine| {
        let connection = engine.stack.connection(slot)?;
        // With TCP_NOTSENT_LOWAT less is taken at once.
        let enough = left.min(connection.send_limit() / 3).min(connection.most_at_once()).max(1);
        let has_room = connection.wants_more() && connection.send_space() >= enough;
        (has_room || write_closed(connection.tcb)).then_some(())
    });
    found.unwrap_or(Some(()))
}

/// What a socket is ready for, as poll(2) bits.
pub fn events(engine: &mut Engine, socket: &Socket, slot: u32) -> c_int {
    let low = socket.recv_low.load(std::sync::atomic::Ordering::Relaxed) as usize;
    let Some(connection) = engine.stack.connection(slot) else { return 0 };
    if connection.tcb.is_reset() {
        // About to go back to the kernel, which reports it.
        return 0;
    }
    let (peer_closed, write_closed) = (peer_closed(connection.tcb), write_closed(connection.tcb));
    let mut events = 0;
    if connection.tcb.readable() >= low || peer_closed {
        events |= c_int::from(libc::POLLIN | libc::POLLRDNORM);
    }
    if peer_closed {
        events |= c_int::from(libc::POLLRDHUP);
    }
    let enough = (connection.send_limit() / 3).min(connection.most_at_once());
    if write_closed || (connection.wants_more() && connection.send_space() >= enough) {
        events |= c_int::from(libc::POLLOUT | libc::POLLWRNORM);
    }
    if peer_closed && write_closed {
        events |= c_int::from(libc::POLLHUP);
    }
    events
}
