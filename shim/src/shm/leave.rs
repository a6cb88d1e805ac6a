//! Off the lane: because we want to, because the other side wants to, or because it is gone.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use parking_lot::Mutex;
use underpass_stack::lane::Reason;
use underpass_stack::lane::shm::Corrupt;
use underpass_stack::lane::shm::full_fence;
use underpass_stack::lane::shm::layout::flag;
use underpass_stack::tcp::Instant;

use super::channel::{Channel, channel};
use super::rx::Home;
use super::{meet, places};
use crate::errno::Errno;
use crate::fd::Ref;
use crate::socket::{Lane, Socket};
use crate::{carry, helper, holders, log, policy, sys, tier};

/// Time that the other side may take to give the ring's bytes back, ns.
pub(super) const PATIENCE: u64 = 1_000_000_000;
/// Time that a closing socket waits for copies of bytes which it has read, ns.
const COPIES_PATIENCE: u64 = 10_000_000;
/// Longest pause between looks whether it has, ns.
const LOOK: i64 = 50_000;

/// Does what the other side asks for: turns to the ring once it looks there, takes back what it does not read any more, ends what it
/// has ended.
pub fn serve(number: u32) {
    let Some((channel, whose)) = channel(number).and_then(|channel| Some((channel, channel.end()?))) else { return };
    if hand_over(channel, &whose.socket) {
        finish(number);
    }
}

/// The outgoing direction's part of it, which a caller who holds the socket's change lock may do, too. True: the other side reads the
/// ring no more.
pub fn hand_over(channel: &Channel, socket: &Socket) -> bool {
    let number = channel.number();
    let told = {
        let mut tx = channel.tx();
        // A socket that has not come over yet sends through the kernel without asking here.
        let Some(tx) = tx.as_mut().filter(|_| socket.lane() == Some(Lane::Shm(number))) else { return false };
        let fd = socket.fd.load(Relaxed);
        if tx.is_heard() && tx.is_flushed() && !channel.peer_gone.load(Acquire) {
            let _ = tx.way(fd);
            return false;
        }
        let was_in_ring = tx.is_in_ring();
        tx.recall().map(|()| {
            if !tx.flush(fd).unwrap_or(true) {
                meet::await_room(number, fd);
            }
            was_in_ring.then(|| tx.tell()).flatten()
        })
    };
    match told {
        Ok(place) => channel.notify(place),
        Err(Corrupt) => condemn_soon(number),
    }
    told.is_ok()
}

/// The process at the other end of a channel is gone.
pub fn peer_gone(number: u32) {
    let Some(channel) = channel(number) else { return };
    channel.peer_gone.store(true, Release);
    channel.news.store(true, Release);
    if let Some(tx) = channel.tx().as_mut() {
        tx.pin();
    }
    serve(number);
    places::tell(number);
}

/// Nothing is left for the channel to do.
fn is_over(channel: &Channel, fd: RawFd) -> bool {
    let gone = channel.peer_gone.load(Acquire);
    let rx_over = {
        let mut rx = channel.rx();
        let Some(rx) = rx.as_mut() else { return false };
        let dry = |rx: &super::Rx| gone && rx.available().is_ok_and(|n| n == 0);
        (gone || rx.is_ended())
            && rx.follow().is_ok_and(|limit| limit.is_none())
            && (!rx.is_in_ring() || dry(rx))
            && !rx.has_early()
            && rx.drop_copies(fd)
    };
    rx_over && channel.tx().as_ref().is_some_and(|tx| !tx.is_in_ring() && tx.is_flushed())
}

/// Ends a channel that has nothing left to do: the kernel goes on alone.
pub fn finish(number: u32) {
    let Some(channel) = channel(number) else { return };
    let Some(whose) = channel.end() else { return };
    let socket = &whose.socket;
    if !is_over(channel, socket.fd.load(Relaxed)) {
        return;
    }
    if let Some(_change) = socket.change.try_lock() {
        let gone = channel.peer_gone.load(Acquire);
        let reason = if gone { Reason::PeerGone } else { Reason::PeerLeft };
        let _ = tier::part(socket, number, reason, || {
            end(channel);
            Ok(())
        });
    }
}

/// A socket goes back to the kernel altogether; the caller holds its change lock, and no call on it can run meanwhile. An error
/// means that it stays.
pub fn give_back(socket: &Ref<Socket>, number: u32) -> Result<(), Reason> {
    let Some(channel) = channel(number) else { return Ok(()) };
    let fd = socket.fd.load(Relaxed);
    if let Some(tx) = channel.tx().as_mut() {
        tx.pin();
    }
    let deadline = sys::now().after(PATIENCE);
    let unread = channel.rx().as_ref().is_some_and(|rx| rx.available().is_ok_and(|n| n > 0));
    let recalled = recall(channel, fd, deadline);
    recalled?;
    if unread {
        await_arrival(fd, deadline);
    }
    // What is in our ring stays there for the reader (and is in the kernel, too), what follows goes through the kernel.
    let told = channel.tx().as_mut().and_then(|tx| tx.leave(fd));
    channel.notify(told);
    flush(channel, fd, deadline.0)?;
    end(channel);
    Ok(())
}

/// Has the sender take back what we have not read.
fn recall(channel: &Channel, fd: RawFd, deadline: Instant) -> Result<(), Reason> {
    if !channel.peer_gone.load(Acquire)
        && let Some(rx) = channel.rx().as_mut()
    {
        rx.recall();
    }
    channel.notify_general();
    loop {
        // In this order: what a dead process had to say has been said.
        let gone = channel.peer_gone.load(Acquire);
        let home = channel.rx().as_mut().map_or(Ok(Home::There), |rx| rx.go_home(fd, gone));
        match home {
            Ok(Home::There) => return Ok(()),
            Ok(Home::Never) => return Err(Reason::PeerLeft),
            Ok(Home::NotYet) if sys::now() >= deadline => return Err(Reason::PeerSilent),
            Ok(Home::NotYet) => {}
            Err(Corrupt) => {
                let _ = sys::disconnect(fd);
                return Ok(());
            }
        }
        // The other side may be doing the same; and it may be ours too, and we the helper.
        if let Some(tx) = channel.tx().as_mut().filter(|tx| !tx.is_heard()) {
            let _ = tx.recall();
            let _ = tx.flush(fd);
        }
        places::collect(places::GENERAL);
        pause();
    }
}

fn pause() {
    let _ = sys::ppoll(&mut [], Some(libc::timespec { tv_sec: 0, tv_nsec: LOOK }), None);
}

/// The sender is about to put into the kernel what it has taken back: a call that does not wait is to find it there.
fn await_arrival(fd: RawFd, deadline: Instant) {
    let mut bytes = [libc::pollfd { fd, events: libc::POLLIN | libc::POLLRDHUP, revents: 0 }];
    let left = deadline.nanos_since(sys::now()) as i64;
    let _ = sys::ppoll(
        &mut bytes,
        Some(libc::timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 }),
        None,
    );
}

/// Gives the kernel what was taken back from the ring.
pub(super) fn flush(channel: &Channel, fd: RawFd, deadline: u64) -> Result<(), Reason> {
    loop {
        let done = channel.tx().as_mut().is_none_or(|tx| tx.flush(fd).unwrap_or(true));
        if done {
            return Ok(());
        }
        if sys::now().0 >= deadline {
            return Err(Reason::PeerSilent);
        }
        let mut room = [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }];
        let _ = sys::ppoll(&mut room, Some(libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 }), None);
    }
}

/// The last of this side: the other one is told, the memory goes.
fn end(channel: &Channel) {
    end_saying(channel, flag::ENDED);
}

fn end_saying(channel: &Channel, flags: u64) {
    let told = channel.rx().as_ref().map(|rx| rx.set_flags(flags));
    if told.is_some() {
        let place = channel.tx().as_ref().and_then(|tx| tx.tell());
        channel.notify(place);
        channel.notify_general();
    }
    channel.close();
}

/// A channel whose socket never came to the lane.
pub fn abandon(number: u32) {
    if let Some(channel) = channel(number) {
        end(channel);
    }
}

/// The socket's last descriptor is being closed; the caller holds its change lock. Bytes that we have written stay for the peer. If
/// bytes for us are unread, the kernel is to say so to the peer as it always does, with a reset (RFC 2525, 2.17).
pub fn close(socket: &Ref<Socket>, number: u32) {
    let Some(channel) = channel(number) else { return };
    let fd = socket.fd.load(Relaxed);
    if holders::is_shared(socket) {
        // What is unread belongs to the other holder.
        if let Err(reason) = give_back(socket, number) {
            log::error(format_args!("fd {fd}: closed, shared with a process that may miss bytes: {}", reason.text()));
            end(channel);
        }
        return;
    }
    let unread = channel.rx().as_mut().is_some_and(|rx| {
        let _ = rx.follow();
        rx.has_early() || rx.is_in_ring() && rx.available().is_ok_and(|n| n > 0)
    });
    let told = channel.tx().as_mut().and_then(|tx| tx.leave(fd));
    channel.notify(told);
    let flags = if unread { flag::ENDED | flag::DISCARDED } else { flag::ENDED };
    if !unread {
        await_copies(channel, fd, flags);
    }
    // What cannot be delivered any more is not to look as if it had been: the connection then ends with a reset.
    let lost = flush(channel, fd, sys::now().0 + PATIENCE).is_err();
    if unread || lost {
        let _ = sys::set_linger(fd, true, 0);
    }
    end_saying(channel, flags);
}

/// Copies of bytes that were read from the ring would look unread to the kernel. Those that the other side sends at this moment are waited
/// for; once it has seen that we end, it sends none.
fn await_copies(channel: &Channel, fd: RawFd, flags: u64) {
    let expects = || channel.rx().as_mut().is_some_and(|rx| rx.expects_copies(fd));
    if let Some(rx) = channel.rx().as_ref() {
        rx.set_flags(flags);
    }
    full_fence();
    if !expects() {
        return;
    }
    let deadline = sys::now().after(COPIES_PATIENCE);
    while expects() && sys::now() < deadline && !channel.peer_gone.load(Acquire) {
        pause();
    }
}

/// Bytes go through the kernel from now on, so that a call of the kernel's own can follow them. An error: the kernel has no room
/// until `deadline`.
pub fn send_through_kernel(socket: &Ref<Socket>, number: u32, deadline: u64) -> Result<(), Errno> {
    let Some(channel) = channel(number) else { return Ok(()) };
    let fd = socket.fd.load(Relaxed);
    let mut is_new = false;
    let told = channel.tx().as_mut().and_then(|tx| {
        is_new = tx.pin();
        tx.leave(fd)
    });
    channel.notify(told);
    if is_new {
        // The kernel's room is what counts from now on.
        tier::renew_entries(socket);
    }
    flush(channel, fd, deadline).map_err(|_| Errno(libc::EAGAIN))
}

/// The same in front of a call that sends, and waits for room as long as the kernel's own would.
pub fn before_kernel_sends(socket: &Ref<Socket>, number: u32) -> Result<(), Errno> {
    let deadline = match socket.send_timeout.load(Relaxed) {
        _ if socket.nonblocking.load(Relaxed) => 0,
        0 => u64::MAX,
        timeout => sys::now().0.saturating_add(timeout),
    };
    send_through_kernel(socket, number, deadline)
}

/// The same in front of shutdown(2), which never waits: only for what was taken back from the ring, and not for ever.
pub fn before_shutdown(socket: &Ref<Socket>, number: u32) -> Result<(), Errno> {
    send_through_kernel(socket, number, sys::now().0 + PATIENCE)
}

/// The other side has stored what cannot be. The connection ends; whatever runs on it finds out.
pub fn condemn(number: u32) {
    if let Some(whose) = channel(number).and_then(Channel::end)
        && !condemn_this(&whose.socket, number)
    {
        condemn_soon(number);
    }
}

/// False: somebody else changes the socket's tier now.
fn condemn_this(socket: &Ref<Socket>, number: u32) -> bool {
    let Some(channel) = channel(number) else { return true };
    let fd = socket.fd.load(Relaxed);
    let Some(_change) = socket.change.try_lock() else { return socket.lane() != Some(Lane::Shm(number)) };
    let parted = tier::part(socket, number, Reason::Corrupt, || {
        let _ = sys::disconnect(fd);
        end(channel);
        Ok(())
    });
    if parted.is_ok() {
        log::error(format_args!("fd {fd}: connection ended: {}", Reason::Corrupt.text()));
    }
    policy::refused(socket, Reason::Corrupt);
    true
}

/// Sockets whose channels are to be condemned.
static CONDEMNED: Mutex<Vec<(u32, Ref<Socket>)>> = parking_lot::const_mutex(Vec::new());

/// The same for a caller who holds other locks: the helper does it.
pub fn condemn_soon(number: u32) {
    let Some(whose) = channel(number).and_then(Channel::end) else { return };
    let mut waiting = CONDEMNED.lock();
    if !waiting.iter().any(|(other, _)| *other == number) {
        waiting.push((number, whose.socket));
        drop(waiting);
        helper::wake();
    }
}

/// The helper's part of it. False: some have to wait for a tier change.
pub fn condemn_waiting() -> bool {
    let mut waiting = std::mem::take(&mut *CONDEMNED.lock());
    waiting.retain(|(number, socket)| !condemn_this(socket, *number));
    let is_done = waiting.is_empty();
    CONDEMNED.lock().extend(waiting);
    is_done
}

/// After fork(2), in the child.
pub fn renew() {
    crate::fork::renew(&CONDEMNED);
    std::mem::forget(std::mem::take(&mut *CONDEMNED.lock()));
}

/// Has a lane's socket something to say in the kernel? Then the next look finds out what.
pub fn note_kernel_news(socket: &Socket) {
    if let Some(Lane::Shm(number)) = socket.lane()
        && let Some(channel) = channel(number)
    {
        channel.news.store(true, Release);
    }
}

/// Does the channel's kernel socket have something to say now?
pub fn look_at_kernel(socket: &Socket, fd: RawFd, events: i16) -> bool {
    let found = carry::kernel::ready(fd, events) != 0;
    if found {
        note_kernel_news(socket);
    }
    found
}
