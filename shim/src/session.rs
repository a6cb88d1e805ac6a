//! The conversation with the daemon: one question, one answer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::*};

use parking_lot::{Mutex, MutexGuard};
use underpass_stack::control::{self, Hello, MAX_MESSAGE, Message, Refused, Welcome};
use underpass_stack::lane::Reason;

use crate::errno::Errno;
use crate::{engine, fd, launch, log, options, sys};

/// Seconds after which a daemon that does not answer counts as gone.
const PATIENCE: i64 = 5;
/// Nanoseconds between looks at the lanes while the daemon is at work.
const ATTEND: i64 = 500_000;
/// Nanoseconds between attempts to reach a daemon.
const RETRY: u64 = 1_000_000_000;

/// The two sockets to the daemon.
pub struct Session {
    control: OwnedFd,
    events: OwnedFd,
}

static SESSION: Mutex<Option<Session>> = parking_lot::const_mutex(None);
static OPEN: AtomicBool = AtomicBool::new(false);
static WANTED: AtomicBool = AtomicBool::new(false);
/// The events socket, for the helper's sleep; -1 while there is none.
static EVENTS: AtomicI32 = AtomicI32::new(-1);
/// No attempt to connect before this time.
static NEXT_TRY: AtomicU64 = AtomicU64::new(0);

/// A datagram and the descriptors beside it.
pub struct Answer {
    bytes: Vec<u8>,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
}

impl Answer {
    /// The answer as an `M`; a refusal as its reason; anything else as a protocol error.
    pub fn expect<M: Message>(&self) -> Result<M, Reason> {
        if let Ok(refused) = control::decode::<Refused>(&self.bytes) {
            return Err(Reason::from_raw(refused.reason));
        }
        control::decode(&self.bytes).map_err(|error| {
            log::error(format_args!("the daemon's answer: {error}"));
            Reason::ProtocolError
        })
    }

    /// Is it a message of this kind?
    pub fn is<M: Message>(&self) -> bool {
        control::kind_of(&self.bytes) == Ok(M::KIND)
    }
}

/// Is a session open?
pub fn is_open() -> bool {
    OPEN.load(Relaxed)
}

/// Has there ever been a session, so that another one is worth looking for unasked?
pub fn is_wanted() -> bool {
    WANTED.load(Relaxed)
}

/// The events socket, or -1.
pub fn events_fd() -> RawFd {
    EVENTS.load(Relaxed)
}

/// Opens a session if there is none. Once lanes run, only the helper opens the next one ([`reopen`]): the new daemon
/// has to adopt them first.
pub fn ensure() -> Result<(), Reason> {
    if is_open() {
        return Ok(());
    }
    if engine::live() > 0 {
        return Err(Reason::DaemonGone);
    }
    reopen()
}

/// Opens a session if there is none and it is time to try.
pub fn reopen() -> Result<(), Reason> {
    if is_open() {
        return Ok(());
    }
    let now = sys::now().0;
    if now < NEXT_TRY.load(Relaxed) {
        return Err(Reason::NoDaemon);
    }
    let opened = open();
    if opened.is_err() {
        NEXT_TRY.store(sys::now().after(RETRY).0, Relaxed);
    }
    opened
}

fn open() -> Result<(), Reason> {
    let path = &options::get().socket;
    let control = match sys::connect_seqpacket(path) {
        Err(Errno(libc::ENOENT | libc::ECONNREFUSED)) if launch::is_possible() => {
            launch::start_daemon().map_err(|_| Reason::NoDaemon)?;
            sys::connect_seqpacket(path)
        }
        other => other,
    };
    let control = control.map_err(|error| match error {
        Errno(libc::EACCES | libc::EPERM) => Reason::AccessDenied,
        _ => Reason::NoDaemon,
    })?;
    sys::set_timeouts(control.as_fd(), PATIENCE).map_err(|_| Reason::Failed)?;
    let hello = Hello { pid: sys::getpid(), pad: 0, name: padded(&options::stack_name()) };
    let answer = {
        let engine = engine::ensure().map_err(|_| Reason::Failed)?;
        let arena = engine.stack.arena().fd().ok_or(Reason::Failed)?.as_raw_fd();
        drop(engine);
        exchange(control.as_fd(), &hello.encode(), &[arena])
    };
    let mut answer = answer.map_err(|_| Reason::NoDaemon)?;
    answer.expect::<Welcome>()?;
    let events = sys::out_of_the_way(answer.fds.pop().ok_or(Reason::ProtocolError)?);
    for own in [&control, &events] {
        fd::set_own(own.as_raw_fd());
    }
    EVENTS.store(events.as_raw_fd(), Relaxed);
    *SESSION.lock() = Some(Session { control, events });
    OPEN.store(true, Release);
    WANTED.store(true, Release);
    show_session(1);
    log::info(format_args!("session with the daemon on {}", path.display()));
    Ok(())
}

fn show_session(open: u32) {
    if let Some(mut engine) = engine::get()
        && let Some(header) = engine.stack.header_mut()
    {
        header.session = open;
    }
}

fn padded(name: &str) -> [u8; 32] {
    let mut out = [0; 32];
    let len = name.len().min(31);
    out[..len].copy_from_slice(&name.as_bytes()[..len]);
    out
}

fn exchange(socket: BorrowedFd<'_>, message: &[u8], fds: &[RawFd]) -> Result<Answer, Errno> {
    sys::send_with_fds(socket, message, fds)?;
    attend_lanes(socket);
    loop {
        let mut bytes = vec![0; MAX_MESSAGE];
        match sys::recv_with_fds(socket, &mut bytes, 0) {
            Ok((0, _)) => return Err(Errno(libc::ECONNRESET)),
            Ok((len, fds)) => {
                bytes.truncate(len);
                return Ok(Answer { bytes, fds });
            }
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Until the daemon's answer is there, packets are looked after: the daemon may take milliseconds, in which a peer at full speed
/// fills an RX ring.
fn attend_lanes(socket: BorrowedFd<'_>) {
    let tick = libc::timespec { tv_sec: 0, tv_nsec: ATTEND };
    for _ in 0..PATIENCE * 1_000_000_000 / ATTEND {
        // A stack that somebody is at work in has lanes.
        if engine::try_get().is_some_and(|engine| engine.xsk_fds().is_empty()) {
            return;
        }
        let mut fds = [libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        match sys::ppoll(&mut fds, Some(tick), None) {
            Ok(0) | Err(Errno(libc::EINTR)) => {}
            _ => return,
        }
        if let Some(mut engine) = engine::try_get() {
            engine.pass(sys::now());
        }
    }
}

/// Asks the daemon and waits for its answer. A daemon that does not answer ends the session.
pub fn ask<M: Message>(message: &M, fds: &[RawFd]) -> Result<Answer, Reason> {
    let mut asking = Asking { guard: SESSION.lock() };
    let Some(session) = asking.guard.as_ref() else { return Err(Reason::DaemonGone) };
    exchange(session.control.as_fd(), &message.encode(), fds).map_err(|Errno(errno)| {
        log::warn(format_args!("the daemon does not answer (errno {errno})"));
        end(&mut asking.guard);
        Reason::DaemonGone
    })
}

/// A question under way. A panic in the middle would leave its answer to the next question: better no session.
struct Asking {
    guard: MutexGuard<'static, Option<Session>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end(&mut self.guard);
        }
    }
}

fn end(guard: &mut MutexGuard<'_, Option<Session>>) {
    EVENTS.store(-1, Relaxed);
    OPEN.store(false, Release);
    if let Some(session) = guard.take() {
        for own in [session.control, session.events] {
            fd::clear(own.as_raw_fd());
        }
    }
    // At once: its successor may be there already.
    NEXT_TRY.store(0, Relaxed);
}

/// What the daemon says unasked.
pub enum Heard {
    /// A message.
    Message(Answer),
    /// Nothing now.
    Nothing,
    /// The daemon is gone; the session has been closed.
    Gone,
}

/// Looks whether the daemon has said something.
pub fn hear() -> Heard {
    let mut guard = SESSION.lock();
    let Some(session) = guard.as_ref() else { return Heard::Nothing };
    let mut bytes = vec![0; MAX_MESSAGE];
    match sys::recv_with_fds(session.events.as_fd(), &mut bytes, libc::MSG_DONTWAIT) {
        Ok((0, _)) => {}
        Ok((len, fds)) => {
            bytes.truncate(len);
            return Heard::Message(Answer { bytes, fds });
        }
        Err(Errno(libc::EAGAIN | libc::EINTR)) => return Heard::Nothing,
        Err(_) => {}
    }
    end(&mut guard);
    drop(guard);
    show_session(0);
    log::warn(format_args!("the daemon is gone; running lanes go on"));
    Heard::Gone
}

/// After fork(2), in the child: the parent's session is not ours.
pub fn leave_to_parent() {
    WANTED.store(false, Release);
    let mut guard = SESSION.lock();
    EVENTS.store(-1, Relaxed);
    OPEN.store(false, Release);
    if let Some(session) = guard.take() {
        for own in [session.control, session.events] {
            fd::clear(own.as_raw_fd());
        }
    }
}

/// The session's lock, to be held across fork(2).
pub fn hold() -> impl Sized {
    SESSION.lock()
}

/// The session's mutex, for the handlers of fork(2).
pub fn mutex() -> &'static Mutex<Option<Session>> {
    &SESSION
}
