//! fork(2): the parent keeps its lanes; the child's copies live in another process's stack, and it says so at the first touch.
//!
//! The handlers run for every fork that goes through libc (pthread_atfork(3)). One of the files with `unsafe`: in the child, locks
//! that other threads may have held are made new.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use parking_lot::lock_api::{RawMutex as _, RawRwLock as _};
use parking_lot::{Mutex, RawMutex, RawRwLock, RwLock};
use underpass_stack::lane::Reason;

use crate::fd::{self, Entry};
use crate::guard::Guard;
use crate::shm::Locality;
use crate::socket::{Foreign, Lane, Socket, Where};
use crate::{
    doorbell, engine, epoll_set, helper, holders, init, log, options, session, shm, signals, socket, sys, tier, wait,
};

/// Registers the handlers.
pub fn register() {
    // SAFETY: the three functions stay where they are for the life of the process.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

/// Before: the child becomes a holder of every socket; nobody is inside the stack while memory is copied.
extern "C" fn prepare() {
    if options::is_off() {
        return;
    }
    let _guard = Guard::enter();
    let _ = std::panic::catch_unwind(holders::add_holders);
    let _ = std::panic::catch_unwind(tier::silence::lend_nobody);
    // Held over the fork, released in `parent`; made new in `child`.
    std::mem::forget(session::hold());
    // In the order in which the helper takes them.
    std::mem::forget(shm::meet::hold());
    std::mem::forget(engine::lock());
    std::mem::forget(socket::pool_lock());
    std::mem::forget(epoll_set::pool_lock());
}

/// After, in the parent.
extern "C" fn parent() {
    if options::is_off() {
        return;
    }
    let _guard = Guard::enter();
    // SAFETY: `prepare`, on this thread, has taken these and forgotten the guards.
    unsafe {
        epoll_set::pool().force_unlock();
        socket::pool().force_unlock();
        engine::mutex().force_unlock();
        shm::meet::release();
        session::mutex().force_unlock();
    }
}

/// After, in the child: one thread, no session, no helper, no stack.
extern "C" fn child() {
    if options::is_off() {
        return;
    }
    let _guard = Guard::enter();
    renew(epoll_set::pool());
    renew(socket::pool());
    renew(engine::mutex());
    renew(session::mutex());
    signals::renew();
    init::note_pid();
    let mut foreign: Vec<&'static Socket> = Vec::new();
    fd::for_each(|_, entry| match entry {
        Entry::Socket(socket) => foreign.push(socket.record()),
        Entry::Epoll(set) => {
            renew(&set.members);
            renew_gate(&set.gate);
            set.waiters.renew();
        }
        _ => {}
    });
    foreign.into_iter().for_each(make_foreign);
    doorbell::forget_mine();
    wait::forget_all();
    helper::forget();
    tier::silence::leave_to_parent();
    shm::inherited::remember_parent(shm::places::forget());
    shm::meet::leave_to_parent();
    shm::leave::renew();
    shm::leave_all_to_parent();
    shm::forget_trunks();
    session::leave_to_parent();
    engine::leave_to_parent();
    close_own(log::renew());
}

fn make_foreign(socket: &'static Socket) {
    renew(&socket.change);
    renew(&socket.sets);
    renew(&socket.restore);
    socket.waiters.renew();
    socket.seeking.store(false, Relaxed);
    let foreign = match socket.place() {
        Where::Kernel => {
            socket.settle(Where::Kernel);
            return;
        }
        Where::Lane(Lane::Xdp(_)) => Foreign::Xdp,
        Where::Lane(Lane::Shm(_)) => Foreign::Shm,
        // In the middle of a change: only one lane comes into question for it.
        Where::Changing if Locality::from_raw(socket.locality.load(Relaxed)) == Locality::Local => Foreign::Shm,
        Where::Changing => Foreign::Xdp,
    };
    socket.settle(Where::Kernel);
    socket.foreign.store(foreign as u8, Relaxed);
    socket.reason.store(Reason::Inherited as u16, Relaxed);
    for (set, fd) in socket.sets.lock().iter() {
        let mut members = set.members.lock();
        if let Some(member) = members.get_mut(*fd) {
            member.laned = false;
        }
        set.recount(&members);
    }
}

/// The library's own descriptors are the parent's: the child must not keep its queues or its session alive. `log` it shares.
fn close_own(log: Option<RawFd>) {
    let mut own = Vec::new();
    fd::for_each(|fd, entry| {
        if matches!(entry, Entry::Own) && Some(fd) != log && !shm::inherited::is_parents_bell(fd) {
            own.push(fd);
        }
    });
    for fd in own {
        fd::clear(fd);
        sys::close(fd);
    }
}

/// An unlocked lock of many readers, whoever had it locked.
pub fn renew_rw<T>(lock: &RwLock<T>) {
    // SAFETY: as in `renew`.
    unsafe { std::ptr::from_ref(lock.raw()).cast_mut().write(RawRwLock::INIT) };
}

/// An unlocked gate, whoever had it locked.
fn renew_gate(gate: &RwLock<()>) {
    renew_rw(gate);
}

/// An unlocked mutex, whoever had it locked.
pub fn renew<T>(mutex: &Mutex<T>) {
    // SAFETY: the child of a fork has one thread, so nobody else looks at the raw lock while it is overwritten; an unlocked raw
    // mutex is a valid state, and no thread of this process is parked on it.
    unsafe { std::ptr::from_ref(mutex.raw()).cast_mut().write(RawMutex::INIT) };
}
