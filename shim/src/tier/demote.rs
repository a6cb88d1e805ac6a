//! Off the lane, back into the kernel.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use underpass_stack::control::{Demote, Demoted};
use underpass_stack::lane::Reason;
use underpass_stack::stack::Leftover;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::Silence;

use super::inject::{collect_stragglers, inject};
use super::join::part;
use super::{Change, close_gates, follow, silence};
use crate::fd::Ref;
use crate::shm::leave;
use crate::socket::{Lane, Socket, Where};
use crate::tcp_info::Earlier;
use crate::{engine, log, policy, session, sys, tcp_info};

/// Gives a socket back to the kernel. An error means that it stays on the lane, and works there.
pub fn demote(socket: &Ref<Socket>, reason: Reason) -> Result<(), Reason> {
    // The socket's own lock first, then its sets' gates, as in a promotion.
    let _change = socket.change.lock();
    if let Some(Lane::Shm(channel)) = socket.lane() {
        return part(socket, channel, reason, || leave::give_back(socket, channel));
    }
    if close_gates(socket, || give_back(socket, reason))? {
        // With the lock held: what arrives late must be injected before another promotion redirects the flow again.
        collect_stragglers();
    }
    Ok(())
}

/// Returns whether there was something to give back.
fn give_back(socket: &Ref<Socket>, reason: Reason) -> Result<bool, Reason> {
    let Some(slot) = socket.slot() else { return Ok(false) };
    let Some(Stopped { generation, counted, silence }) = freeze(socket, slot) else { return Ok(false) };
    let fd = socket.fd.load(Relaxed);
    let mut change = Change { socket, end: Where::Lane(Lane::Xdp(slot)) };
    let asked = session::ensure().and_then(|()| session::ask(&Demote { slot, generation }, &[])?.expect::<Demoted>());
    if let Err(refused) = asked {
        engine::count(Counter::DemotionsFailed, 1);
        // The kernel's after all: ended, because it could not be restored, or restored by a daemon that then died.
        let is_kernels = refused == Reason::Lost || (refused == Reason::DaemonGone && !sys::in_repair(fd));
        if !is_kernels {
            if let Some(mut engine) = engine::get() {
                engine.stack.thaw(slot, sys::now());
                engine.flush(sys::now());
            }
            return Err(refused);
        }
        log::error(format_args!("fd {fd}: {}", refused.text()));
        end_if_incomplete(fd, slot, refused);
    }
    let leftovers = release(slot);
    // The daemon has connected the kernel's socket anew.
    if let Some(mut counted) = counted {
        counted.without_acked(asked.map_or(0, |demoted| demoted.acked_again));
        *socket.earlier.lock() = counted;
    }
    change.end = Where::Kernel;
    socket.moves[1].fetch_add(1, Relaxed);
    policy::demoted(socket, reason);
    if let Some(silence) = silence.filter(|_| reason == Reason::Timeouts) {
        silence::begin(socket, fd, silence);
    }
    drop(change);
    follow(socket, false);
    inject(leftovers);
    engine::show(fd, socket);
    log::info(format_args!("fd {fd}: demoted: {}", reason.text()));
    Ok(true)
}

/// A daemon that died with a restored socket may not have put the unsent bytes into it: an end that the program notices is better
/// than a stream with a hole.
fn end_if_incomplete(fd: RawFd, slot: u32, refused: Reason) {
    let has_unsent = |engine: &engine::Engine| engine.stack.record(slot).is_some_and(|record| record.tcb.unsent() > 0);
    if refused == Reason::DaemonGone && engine::get().is_some_and(|engine| has_unsent(&engine)) {
        let _ = sys::disconnect(fd);
        log::error(format_args!("fd {fd}: connection lost: the daemon died while it was given back"));
    }
}

/// A connection that goes on no more on the lane.
struct Stopped {
    /// Its record's generation.
    generation: u32,
    /// What it has counted.
    counted: Option<Earlier>,
    /// Of its peer.
    silence: Option<Silence>,
}

/// Stops the connection.
fn freeze(socket: &Socket, slot: u32) -> Option<Stopped> {
    let silent = tcp_info::of_socket(socket);
    let mut engine = engine::get()?;
    engine.pass(sys::now());
    if !socket.leave_lane(Lane::Xdp(slot)) {
        return None;
    }
    let connection = engine.stack.connection(slot);
    let silence = connection.as_ref().and_then(|connection| connection.tcb.silence(sys::now()));
    let counted = connection.zip(silent).map(|(mut connection, silent)| {
        let unread = connection.tcb.readable();
        Earlier::of(tcp_info::of_lane(silent, &mut connection, sys::now()), unread)
    });
    match engine.stack.freeze(slot) {
        Some(record) => Some(Stopped { generation: record.generation, counted, silence }),
        None => {
            // No such connection any more: nothing to give back.
            socket.settle(Where::Kernel);
            None
        }
    }
}

fn release(slot: u32) -> Vec<Leftover> {
    let Some(mut engine) = engine::get() else { return Vec::new() };
    engine.pass(sys::now());
    engine.stack.release(slot);
    engine.set_owner(slot, None);
    engine.stack.take_leftovers()
}
