//! Out of the kernel, onto the lane.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::Ordering::*;

use underpass_stack::arena::MAX_RING;
use underpass_stack::config::Config;
use underpass_stack::control::{Demote, Demoted, NeedPort, Promote, Promoted};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;
use underpass_stack::stack::ImportRequest;
use underpass_stack::tcp::scoreboard::Piece;
use underpass_stack::tcp::{Instant, Scoreboard};
use zerocopy::FromBytes;

use super::attach::attach;
use super::congestion::{Control, pacing_limit_of};
use super::inject::collect_stragglers;
use super::{Change, close_gates, follow};
use crate::epoll_set::EpollSet;
use crate::fd::Ref;
use crate::socket::{Lane, Socket, Where};
use crate::{engine, helper, holders, log, options, policy, session, signals, sys};

/// Bits of SO_BUF_LOCK (linux/socket.h): the program chose the size.
const SNDBUF_LOCK: u32 = 1;
const RCVBUF_LOCK: u32 = 2;
/// Less is never kept for either direction, bytes.
const CHOSEN_MIN: u32 = 4096;

/// Moves a socket to the lane, unless something speaks against it; that becomes its reason. Signals wait meanwhile.
pub fn promote(socket: &Ref<Socket>, fd: RawFd) {
    signals::held_back(|| promote_undisturbed(socket, fd));
}

fn promote_undisturbed(socket: &Ref<Socket>, fd: RawFd) {
    let Some(_change) = socket.change.try_lock() else { return };
    if !socket.leave_kernel() {
        return;
    }
    let change = Change { socket, end: Where::Kernel };
    match close_gates(socket, || enter_lane(socket, fd, change)) {
        Ok(()) => {
            engine::show(fd, socket);
            helper::start();
            log::info(format_args!("fd {fd}: promoted"));
        }
        Err(reason) => {
            // The flow may have been redirected for a moment.
            collect_stragglers();
            engine::show(fd, socket);
            log::info(format_args!("fd {fd}: not promoted: {}", reason.text()));
        }
    }
}

/// The change, during which no thread looks at the socket's epoll sets in the kernel.
fn enter_lane(socket: &Ref<Socket>, fd: RawFd, mut change: Change<'_>) -> Result<(), Reason> {
    match carry_over(socket, fd) {
        Ok(slot) => {
            change.end = Where::Lane(Lane::Xdp(slot));
            socket.moves[0].fetch_add(1, Relaxed);
            policy::promoted(socket);
            drop(change);
            follow(socket, true);
            Ok(())
        }
        Err(reason) => {
            policy::refused(socket, reason);
            let_sleep(socket);
            Err(reason)
        }
    }
}

fn carry_over(socket: &Ref<Socket>, fd: RawFd) -> Result<u32, Reason> {
    session::ensure()?;
    let control = Control::of(fd).ok_or(Reason::SocketOption)?;
    if holders::is_shared(socket) {
        return Err(Reason::Shared);
    }
    if socket.sets.lock().iter().any(|(set, fd)| forbids(set, *fd)) {
        return Err(Reason::CallNotCarried);
    }
    if !keep_awake(socket) {
        return Err(Reason::Unsettled);
    }
    if sys::sockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) == Ok(0) {
        socket.dual.store(true, Relaxed);
    }
    let (slot, generation) = engine::get().and_then(|mut e| e.stack.reserve()).ok_or(Reason::StackFull)?;
    let _reserved = Reserved { slot };
    ask_and_import(socket, fd, slot, generation, control)?;
    Ok(slot)
}

/// A reserved slot, given back if nothing was imported into it.
struct Reserved {
    slot: u32,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(mut engine) = engine::get() {
            engine.stack.unreserve(self.slot, sys::now());
            engine.tell();
        }
    }
}

/// Does an epoll set hold a socket in the kernel? One inside another set does, and exclusive wake-ups, which cannot be silenced.
pub(super) fn forbids(set: &EpollSet, fd: RawFd) -> bool {
    let exclusive = || set.members.lock().get_mut(fd).is_some_and(|m| m.events & libc::EPOLLEXCLUSIVE as u32 != 0);
    set.nested.load(Relaxed) || exclusive()
}

/// Keeps threads from falling asleep on the socket's epoll sets inside the kernel, where no doorbell reaches them, until
/// [`super::follow`] or [`let_sleep`]. False: one sleeps there already; it will not do so again.
pub(super) fn keep_awake(socket: &Socket) -> bool {
    let sets = socket.sets.lock();
    // Who is about to sleep says so first and then looks at this count.
    for (set, _) in sets.iter() {
        set.lanes.fetch_add(1, SeqCst);
    }
    let mut awake = true;
    for (set, _) in sets.iter().filter(|(set, _)| set.asleep.load(SeqCst) > 0) {
        set.contested.store(true, SeqCst);
        awake = false;
    }
    drop(sets);
    if !awake {
        let_sleep(socket);
    }
    awake
}

/// The socket stays where it was: its epoll sets are counted as they are.
pub(super) fn let_sleep(socket: &Socket) {
    for (set, _) in socket.sets.lock().iter() {
        let members = set.members.lock();
        set.recount(&members);
    }
}

fn ask_and_import(socket: &Ref<Socket>, fd: RawFd, slot: u32, generation: u32, control: Control) -> Result<(), Reason> {
    let mut asked = sys::now();
    let mut answer = ask_to_promote(fd, slot, generation)?;
    if answer.is::<NeedPort>() {
        attach(&answer.expect::<NeedPort>()?, fd)?;
        asked = sys::now();
        answer = ask_to_promote(fd, slot, generation)?;
    }
    let promoted = answer.expect::<Promoted>()?;
    let imported = import(socket, fd, slot, control, &promoted, answer.fds, asked);
    if imported.is_err() {
        // The daemon still has the image: it gives the socket back as it was.
        session::ask(&Demote { slot, generation }, &[])?.expect::<Demoted>()?;
    }
    imported
}

fn ask_to_promote(fd: RawFd, slot: u32, generation: u32) -> Result<session::Answer, Reason> {
    let answer = session::ask(&Promote { slot, generation }, &[fd]);
    if answer.is_err() && sys::in_repair(fd) {
        // The daemon died in the middle. What it had read out of the socket is gone with it: an end that the program notices is
        // better than a stream with a hole.
        let _ = sys::disconnect(fd);
        log::error(format_args!("fd {fd}: connection lost: the daemon died while it was promoted"));
        return Err(Reason::Lost);
    }
    answer
}

fn import(
    socket: &Ref<Socket>,
    fd: RawFd,
    slot: u32,
    control: Control,
    promoted: &Promoted,
    mut fds: Vec<OwnedFd>,
    asked: Instant,
) -> Result<(), Reason> {
    let (recv_len, send_len) = (promoted.recv_len as usize, promoted.send_len as usize);
    let queues = match fds.pop() {
        Some(memfd) => Some(Region::open_reader(memfd).map_err(|_| Reason::Failed)?),
        None if recv_len + send_len == 0 => None,
        None => return Err(Reason::ProtocolError),
    };
    let bytes = |at, len| match &queues {
        Some(region) => region.bytes(at, len).ok_or(Reason::ProtocolError),
        None => Ok(&[][..]),
    };
    let pieces = pieces(bytes(recv_len + send_len, promoted.pieces as usize * size_of::<Piece>())?);
    *socket.restore.lock() = promoted.restore;
    socket.port.store(promoted.port, Relaxed);
    let (rings, largest) = buffers(options::get(), promoted);
    let now = sys::now();
    // The kernel's socket may still have sent an acknowledgement, after which the peer would take older timestamps for old segments'.
    let image = promoted.image.after(now.nanos_since(asked));
    let request = ImportRequest {
        image: &image,
        recv: bytes(0, recv_len)?,
        send: bytes(recv_len, send_len)?,
        scoreboard: Scoreboard { phase: promoted.phase, recover: promoted.recover, pieces: &pieces },
        port: promoted.port,
        path: promoted.path,
        fd,
        inode: socket.inode(fd),
        rings,
        largest,
        congestion: control.algorithm,
        learnt: control.learnt,
        pacing_limit: pacing_limit_of(fd),
    };
    let mut engine = engine::get().ok_or(Reason::Failed)?;
    if let Err(reason) = engine.stack.import(slot, &request, now) {
        log::warn(format_args!("fd {fd}: the stack does not take {image:?}"));
        return Err(reason);
    }
    // The kernel's socket keeps the value all the time.
    let lowat = sys::sockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT).unwrap_or(0);
    engine.stack.with_connection(slot, now, |connection| connection.set_notsent_lowat(lowat as u32));
    engine.set_owner(slot, Some(socket.clone()));
    engine.pass(now);
    Ok(())
}

/// They lie behind bytes of any number.
fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let whole = bytes.chunks_exact(size_of::<Piece>());
    whole.filter_map(|bytes| Piece::read_from_bytes(bytes).ok()).collect()
}

/// Receive and send buffer, and what they may grow to. Where the program has chosen a size itself, that is kept, as in the kernel,
/// which counts twice of what it was asked for.
fn buffers(options: &Config, promoted: &Promoted) -> ((u32, u32), (u32, u32)) {
    let one = |lock: u32, chosen: u32, initial: u32, largest: u32| match promoted.restore.buf_lock & lock {
        0 => (initial, largest),
        _ => (buffer_of(chosen), 0),
    };
    let rcv = one(RCVBUF_LOCK, promoted.image.rcvbuf, options.rcvbuf, options.rcvbuf_max);
    let snd = one(SNDBUF_LOCK, promoted.image.sndbuf, options.sndbuf, options.sndbuf_max);
    ((rcv.0, snd.0), (rcv.1, snd.1))
}

/// The buffer that SO_RCVBUF or SO_SNDBUF, as the kernel tells them, stand for, bytes.
pub fn buffer_of(doubled: u32) -> u32 {
    (doubled / 2).clamp(CHOSEN_MIN, MAX_RING)
}
