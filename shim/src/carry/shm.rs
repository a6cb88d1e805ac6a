//! The `shm` lane: bytes in a channel's rings, or in the kernel where a direction has not turned to its ring.

mod ready;

use std::io::IoSliceMut;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::c_int;
use underpass_stack::lane::shm::Corrupt;

pub use self::ready::{Arm, arm_space, events, has_bytes, has_space};
use super::{Ask, Step, kernel};
use crate::buffers::{Gather, Scatter};
use crate::fd::Ref;
use crate::shm::{Channel, Rx, channel, history, leave};
use crate::socket::{Lane, Socket};
use crate::{shm, sys};

/// Bytes that a waiting call hopes for at most before it looks, as a part of the ring.
const ENOUGH: usize = 4;
/// Turns that one call follows at most: the sender must not keep it for ever.
const ROUNDS: usize = 64;

/// Is the channel still the socket's?
#[inline]
fn is_on(socket: &Socket, number: u32) -> bool {
    socket.lane() == Some(Lane::Shm(number))
}

/// What came of something that the other side may have spoilt.
fn or_condemn(number: u32, step: Result<Step, Corrupt>) -> Step {
    step.unwrap_or_else(|Corrupt| {
        leave::condemn(number);
        Step::Moved
    })
}

/// Receives.
pub fn receive(socket: &Ref<Socket>, fd: RawFd, number: u32, into: &mut Scatter<'_, '_>, ask: Ask) -> Step {
    let Some(channel) = channel(number) else { return Step::Moved };
    let mut told = None;
    let step = {
        let mut guard = channel.rx();
        let Some(rx) = guard.as_mut().filter(|_| is_on(socket, number)) else { return Step::Moved };
        match receive_from(channel, rx, fd, into, ask, &mut told) {
            Ok(Step::Blocked) if has_enough(into, ask.want) => Ok(Step::Over),
            step => step,
        }
    };
    channel.notify(told);
    if matches!(step, Ok(Step::Blocked)) && channel.peer_gone.load(Relaxed) {
        leave::finish(number);
    }
    or_condemn(number, step)
}

fn receive_from(
    channel: &Channel,
    rx: &mut Rx,
    fd: RawFd,
    into: &mut Scatter<'_, '_>,
    ask: Ask,
    told: &mut Option<usize>,
) -> Result<Step, Corrupt> {
    let Ask { flags, want, waits } = ask;
    for _ in 0..ROUNDS {
        let limit = rx.follow()?;
        if has_enough(into, want) && !lies_at_hand(rx, fd)? {
            return Ok(Step::Over);
        }
        if !rx.is_in_ring() {
            if let Some(step) = receive_from_kernel(rx, fd, into, ask, limit)? {
                return Ok(step);
            }
            continue;
        }
        let mut available = rx.available()?;
        if available == 0 && waits && rx.comes_soon() {
            available = rx.available()?;
        }
        if available == 0 {
            if let Some(step) = kernel_instead(channel, rx, fd, into, ask)? {
                return Ok(step);
            }
            continue;
        }
        if into.len == 0 {
            return Ok(Step::Over);
        }
        let turning = rx.is_turning();
        if flags & libc::MSG_PEEK != 0 {
            let is_last = turning || channel.peer_gone.load(Acquire);
            if waits && available < want.min(rx.capacity() / ENOUGH) && !is_last {
                return Ok(Step::Blocked);
            }
            return Ok(show(rx, fd, into, ask, (available, 0)));
        }
        let place = rx.take(into, available, flags & libc::MSG_TRUNC != 0);
        *told = told.or(place);
        if rx.is_turning() && rx.follow()?.is_none() && !rx.is_in_ring() {
            // The program may not come back for the end.
            rx.drop_copies(fd);
        }
        if into.done >= want && (!turning || into.left() == 0) {
            return Ok(Step::Over);
        }
        if into.left() == 0 || (!turning && rx.available()? == 0 && !channel.news.load(Relaxed)) {
            return Ok(Step::Blocked);
        }
    }
    Ok(Step::Blocked)
}

/// Shows the `available` bytes of the ring, and what lies beyond the sender's turn to the kernel; `before` of the kernel's bytes have been
/// shown.
fn show(rx: &Rx, fd: RawFd, into: &mut Scatter<'_, '_>, ask: Ask, (available, before): (usize, usize)) -> Step {
    if into.has_no_places() {
        into.done += available.min(into.left());
    } else {
        rx.copy(into, available);
    }
    if into.left() > 0 {
        rx.show_beyond(fd, into, before);
    }
    shown(fd, into, ask)
}

/// A call has been shown all that is there. One that waits for more is not over, if more may come.
fn shown(fd: RawFd, into: &Scatter<'_, '_>, ask: Ask) -> Step {
    let waits = ask.waits && !has_enough(into, ask.want) && !history::is_ended(fd);
    if waits { Step::Blocked } else { Step::Over }
}

/// Has the call what it asked for? What lies at hand beyond a turn is given to it all the same, for the program knows of no turns (FIONREAD).
fn has_enough(into: &Scatter<'_, '_>, want: usize) -> bool {
    into.done >= want.max(1)
}

/// Does something lie where the next bytes are to be read from? The kernel is asked for nothing but bytes: an error is for the next call.
fn lies_at_hand(rx: &Rx, fd: RawFd) -> Result<bool, Corrupt> {
    if rx.is_in_ring() {
        return Ok(rx.available()? > 0);
    }
    Ok(!sys::is_at_mark(fd) && (rx.has_early() || sys::queue_length(fd, libc::FIONREAD).is_some_and(|n| n > 0)))
}

/// The sender's bytes come through the kernel, `limit` of them before it turns to the ring. `None`: the sender has turned meanwhile.
fn receive_from_kernel(
    rx: &mut Rx,
    fd: RawFd,
    into: &mut Scatter<'_, '_>,
    ask: Ask,
    limit: Option<u64>,
) -> Result<Option<Step>, Corrupt> {
    let Ask { flags, want, .. } = ask;
    if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_PEEK == 0 {
        return discard_from_kernel(rx, fd, into, ask, limit);
    }
    if !rx.drop_copies(fd) {
        return Ok(Some(Step::Blocked));
    }
    rx.take_early(into, flags);
    if has_enough(into, want) && (into.left() == 0 || !lies_at_hand(rx, fd)?) {
        return Ok(Some(Step::Over));
    }
    let before = into.done;
    let step = kernel::receive_up_to(fd, into, flags & !libc::MSG_TRUNC, want, limit.unwrap_or(u64::MAX));
    let received = into.done - before;
    let peeked = flags & libc::MSG_PEEK != 0;
    // The sender may have been in the ring while the kernel answered.
    rx.put_in_order(into, received, peeked)?;
    let ended = matches!(step, Step::Over) && received == 0 && into.len > 0;
    if ended && limit.is_some() {
        // What was announced does not come any more.
        return Ok(Some(step));
    }
    if peeked {
        let kept = into.done - before;
        if kept > 0 && limit == Some(kept as u64) && !rx.has_early() {
            // As far as the turn all was shown: what follows lies in the ring, and then perhaps in the kernel.
            return Ok(Some(show(rx, fd, into, ask, (rx.available()?, kept))));
        }
        let is_over = kept > 0 && matches!(step, Step::Over);
        return Ok(Some(if is_over { shown(fd, into, ask) } else { step }));
    }
    if rx.is_turning() && !matches!(step, Step::Failed(_)) && into.left() > 0 {
        // The bytes before the turn have been read, or the stream's end is not the end: the ring comes first.
        let left = rx.follow()?;
        return Ok(if left.is_none() || received > 0 || ended { None } else { Some(Step::Blocked) });
    }
    Ok(Some(step))
}

/// The same for MSG_TRUNC: the bytes are thrown away, but not those that came before their turn.
fn discard_from_kernel(
    rx: &mut Rx,
    fd: RawFd,
    into: &mut Scatter<'_, '_>,
    ask: Ask,
    limit: Option<u64>,
) -> Result<Option<Step>, Corrupt> {
    let mut scratch = [0; 4096];
    let room = into.left().min(scratch.len());
    let mut bufs = [IoSliceMut::new(&mut scratch[..room])];
    let mut thrown = Scatter::new(&mut bufs);
    let flags = ask.flags & !libc::MSG_TRUNC;
    let step = receive_from_kernel(rx, fd, &mut thrown, Ask { flags, want: 1, waits: false }, limit)?;
    into.done += thrown.done;
    match step {
        Some(Step::Over) if thrown.done > 0 && into.left() > 0 => Ok(None),
        step => Ok(step),
    }
}

/// The ring is empty: perhaps the kernel has something to say, an end or an error. `None`: the ring has to be looked at again.
fn kernel_instead(
    channel: &Channel,
    rx: &mut Rx,
    fd: RawFd,
    into: &mut Scatter<'_, '_>,
    ask: Ask,
) -> Result<Option<Step>, Corrupt> {
    let Ask { flags, want, waits } = ask;
    // One who waits looks at the kernel while waiting.
    if !rx.is_turning() && !channel.news.load(Acquire) && into.len > 0 && (waits || !rx.is_due()) {
        return Ok(Some(Step::Blocked));
    }
    channel.news.store(channel.peer_gone.load(Acquire), Release);
    let ready = kernel::ready(fd, libc::POLLIN | libc::POLLRDHUP);
    // What was put into the ring before the kernel said so comes first.
    if rx.available()? > 0 || rx.is_turning() && rx.follow()?.is_none() && !rx.is_in_ring() {
        return Ok(None);
    }
    if ready == 0 && into.len > 0 {
        return Ok(Some(Step::Blocked));
    }
    if ready & (libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP) != 0 {
        channel.news.store(true, Release);
    }
    let before = into.done;
    let step = kernel::receive_up_to(fd, into, flags & !libc::MSG_TRUNC, want, u64::MAX);
    if flags & libc::MSG_PEEK == 0 {
        rx.count(into.done - before);
    }
    Ok(Some(step))
}

/// Sends.
pub fn send(socket: &Ref<Socket>, fd: RawFd, number: u32, from: &mut Gather<'_>, flags: c_int) -> Step {
    let Some(channel) = channel(number) else { return Step::Moved };
    let (step, told) = {
        let mut guard = channel.tx();
        let Some(tx) = guard.as_mut().filter(|_| is_on(socket, number)) else { return Step::Moved };
        send_into(tx, fd, from, flags)
    };
    channel.notify(told);
    or_condemn(number, step)
}

fn send_into(
    tx: &mut shm::Tx,
    fd: RawFd,
    from: &mut Gather<'_>,
    flags: c_int,
) -> (Result<Step, Corrupt>, Option<usize>) {
    match tx.way(fd) {
        Ok(shm::Way::Ring) if from.len > 0 => {}
        Ok(shm::Way::Ring | shm::Way::Kernel) => return (Ok(kernel::send_now(fd, from, flags)), None),
        Ok(shm::Way::Blocked) => return (Ok(Step::Blocked), None),
        Err(Corrupt) => return (Err(Corrupt), None),
    }
    let mut full = false;
    let mut before = false;
    while let Some((bytes, _)) = from.next() {
        match tx.push(bytes) {
            Ok(n) => {
                from.done += n;
                before |= n > 0;
                if n < bytes.len() {
                    full = true;
                    break;
                }
            }
            Err(Corrupt) => return (Err(Corrupt), None),
        }
    }
    let told = if before { tx.publish() } else { None };
    (Ok(if full { Step::Blocked } else { Step::Over }), told)
}

/// Bytes that wait: to be read (SIOCINQ), or to be taken by the peer (SIOCOUTQ).
pub fn queued(socket: &Ref<Socket>, number: u32, incoming: bool) -> Option<usize> {
    let channel = channel(number)?;
    let fd = socket.fd.load(Relaxed);
    let kernel = |request| sys::queue_length(fd, request).map_or(0, |n| n as c_int);
    if incoming {
        let mut guard = channel.rx();
        let rx = guard.as_mut().filter(|_| is_on(socket, number))?;
        let _ = rx.follow();
        Some(rx.queued(kernel(libc::FIONREAD)))
    } else {
        let guard = channel.tx();
        let tx = guard.as_ref().filter(|_| is_on(socket, number))?;
        Some(tx.queued(kernel(libc::TIOCOUTQ)))
    }
}

/// Bytes that have gone through the rings: read, written, taken by the peer.
pub fn carried(number: u32) -> Option<[u64; 3]> {
    let channel = channel(number)?;
    let read = channel.rx().as_ref()?.bytes();
    let tx = channel.tx();
    let tx = tx.as_ref()?;
    let unread = (tx.capacity() - tx.space().unwrap_or(tx.capacity())) as u64;
    Some([read, tx.bytes(), tx.bytes() - unread.min(tx.bytes())])
}

/// Do bytes that are sent now go to the ring?
pub fn sends_to_ring(number: u32) -> bool {
    channel(number).is_some_and(|channel| channel.tx().as_ref().is_some_and(|tx| tx.is_in_ring()))
}

/// Do bytes that are received now come from the ring?
pub fn reads_from_ring(number: u32) -> bool {
    channel(number).is_some_and(|channel| channel.rx().as_ref().is_some_and(|rx| rx.is_in_ring()))
}

/// Have bytes that are sent gone to the kernel for good?
pub fn is_pinned(number: u32) -> bool {
    channel(number).is_some_and(|channel| channel.tx().as_ref().is_some_and(|tx| tx.is_pinned()))
}
