//! Onto the `shm` lane, once the channel is there, and off it. The kernel socket stays as it is: only where our bytes go changes.

use std::sync::atomic::Ordering::*;

use underpass_stack::lane::Reason;
use underpass_stack::stats::Counter;

use super::promote::{forbids, keep_awake, let_sleep};
use super::{Change, close_gates, follow};
use crate::fd::{Record, Ref};
use crate::shm::{channel, leave, places};
use crate::socket::{Lane, Socket, Where};
use crate::{engine, holders, log, policy, signals};

/// Moves a socket to its channel. `None`: somebody is inside a real call on it, so not now.
pub fn join(socket: &Ref<Socket>, number: u32) -> Option<Result<(), Reason>> {
    let joined = signals::held_back(|| try_join(socket, number));
    if joined == Some(Ok(())) {
        // What the other side may have said in the meantime; and it may turn to its ring.
        leave::serve(number);
        places::tell(number);
        if let Some(channel) = channel(number) {
            channel.notify_general();
        }
    }
    joined
}

fn try_join(socket: &Ref<Socket>, number: u32) -> Option<Result<(), Reason>> {
    let _change = socket.change.try_lock()?;
    if socket.lane() == Some(Lane::Shm(number)) {
        return Some(Ok(()));
    }
    if Record::fds(&**socket).load(Acquire) == 0 || socket.lane().is_some() {
        return Some(Err(Reason::NotConnected));
    }
    if holders::is_shared(socket) {
        return Some(Err(Reason::Shared));
    }
    if socket.sets.lock().iter().any(|(set, fd)| forbids(set, *fd)) {
        return Some(Err(Reason::CallNotCarried));
    }
    if socket.closing.load(Acquire) || !socket.leave_kernel() {
        return None;
    }
    if holders::is_shared(socket) {
        socket.settle(Where::Kernel);
        return Some(Err(Reason::Shared));
    }
    if !keep_awake(socket) {
        socket.settle(Where::Kernel);
        return None;
    }
    // Nobody is to be told by the kernel while its entries change: a one-shot member would be armed anew behind an event.
    let begun = close_gates(socket, || begin(socket, number));
    if !begun {
        let_sleep(socket);
        return Some(Err(Reason::Urgent));
    }
    let fd = socket.fd.load(Relaxed);
    engine::count(Counter::ShmPromotions, 1);
    engine::show(fd, socket);
    log::info(format_args!("fd {fd}: joined its peer"));
    Some(Ok(()))
}

/// From now on the channel is looked at. False: it cannot be.
fn begin(socket: &Ref<Socket>, number: u32) -> bool {
    let fd = socket.fd.load(Relaxed);
    let mut change = Change { socket, end: Where::Kernel };
    let begun = channel(number).is_some_and(|channel| channel.rx().as_mut().is_some_and(|rx| rx.begin(fd)));
    if begun {
        change.end = Where::Lane(Lane::Shm(number));
        socket.moves[0].fetch_add(1, Relaxed);
        policy::promoted(socket);
        drop(change);
        follow(socket, true);
    }
    begun
}

/// Moves a socket off its channel, by `give_back`; the caller holds its change lock.
pub fn part(
    socket: &Ref<Socket>,
    number: u32,
    reason: Reason,
    give_back: impl FnOnce() -> Result<(), Reason>,
) -> Result<(), Reason> {
    // Whoever looks at its sets meanwhile waits: it is ready neither there nor here.
    let parted = close_gates(socket, || change_back(socket, Lane::Shm(number), reason, give_back));
    if parted.is_err() {
        // It stays: what the other side has asked for meanwhile is done now.
        if let Some(channel) = channel(number) {
            leave::hand_over(channel, socket);
        }
        places::tell(number);
    }
    parted
}

fn change_back(
    socket: &Ref<Socket>,
    lane: Lane,
    reason: Reason,
    give_back: impl FnOnce() -> Result<(), Reason>,
) -> Result<(), Reason> {
    if !socket.leave_lane(lane) {
        return Ok(());
    }
    let fd = socket.fd.load(Relaxed);
    let mut change = Change { socket, end: Where::Lane(lane) };
    give_back()?;
    change.end = Where::Kernel;
    holders::given_back(socket);
    socket.moves[1].fetch_add(1, Relaxed);
    policy::demoted(socket, reason);
    drop(change);
    follow(socket, false);
    engine::count(Counter::ShmDemotions, 1);
    engine::show(fd, socket);
    log::info(format_args!("fd {fd}: parted: {}", reason.text()));
    Ok(())
}
