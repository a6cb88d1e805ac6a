//! A TCP socket of the program: one record per open file, shared by its duplicates.

mod asleep;
mod life;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::*};

use parking_lot::Mutex;
use underpass_stack::lane::Reason;

use self::asleep::ASLEEP;
pub use self::asleep::{Asleep, Sleepers};
use crate::doorbell::Waiters;
use crate::epoll_set::EpollSet;
use crate::errno::{Errno, Result};
use crate::fd::{Own, Pool, Record, Ref};
use crate::shm::Locality;
use crate::sys;
use crate::tcp_info::Earlier;

/// Where the socket's calls go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// To the kernel.
    Kernel,
    /// To a lane.
    Lane(Lane),
    /// A tier change is going on: wait for it.
    Changing,
}

/// A lane, and the connection's place on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// This slot of the stack.
    Xdp(u32),
    /// This channel.
    Shm(u32),
}

impl Lane {
    fn word(self) -> u64 {
        match self {
            Self::Xdp(slot) => XDP | u64::from(slot) << 32,
            Self::Shm(channel) => SHM | u64::from(channel) << 32,
        }
    }
}

const KERNEL: u64 = 0;
const XDP: u64 = 1;
const CHANGING: u64 = 2;
const SHM: u64 = 3;
const TIER: u64 = 0xff;
/// One more call inside the kernel.
const INSIDE_ONE: u64 = 1 << 8;
const INSIDE: u64 = 0x00ff_ff00;

/// One open TCP socket. What short connections need comes first, in one cache line.
#[repr(C, align(64))]
pub struct Socket {
    refs: AtomicU32,
    fds: AtomicU32,
    /// Tier, calls inside the kernel, slot: see [`Where`].
    word: AtomicU64,
    /// Threads that sleep in real calls on it, and how often the record was used anew: see [`Asleep`].
    asleep: AtomicU64,
    /// Receives and sends that speak for promotion.
    pub score: AtomicU32,
    /// The first descriptor.
    pub fd: AtomicI32,
    /// Its place in the page of holders, plus one; 0 while no other process has it.
    pub holder: AtomicU32,
    /// SO_RCVLOWAT.
    pub recv_low: AtomicU32,
    /// Why it is where it is.
    pub reason: AtomicU16,
    /// Inherited from a process that carries it on a lane of its own: none, or a [`Foreign`].
    pub foreign: AtomicU8,
    /// Where the other end is: a [`Locality`].
    pub locality: AtomicU8,
    /// The helper looks for the process at the other end.
    pub seeking: AtomicBool,
    /// Its last descriptor is being closed: it changes its tier no more.
    pub closing: AtomicBool,
    /// Its peer fell silent on the lane and was not heard of since: see [`crate::tier::silence`].
    pub silent: AtomicBool,
    /// It is on the board.
    pub shown: AtomicBool,
    /// It is or was in an epoll set.
    pub watched: AtomicBool,
    /// O_NONBLOCK.
    pub nonblocking: AtomicBool,
    /// IPV6_V6ONLY was off before the first promotion. The kernel switches it on when it binds an address anew.
    pub dual: AtomicBool,
    /// Held by whoever changes the tier.
    pub change: Mutex<()>,
    /// Bulk calls on the lane, less small ones.
    pub bulk: AtomicU32,
    /// How often promotion was refused in a row.
    pub refusals: AtomicU32,
    /// SO_RCVTIMEO in nanoseconds, 0 for none.
    pub recv_timeout: AtomicU64,
    /// SO_SNDTIMEO in nanoseconds, 0 for none.
    pub send_timeout: AtomicU64,
    /// Inode; 0 until it is asked for.
    inode: AtomicU64,
    /// No promotion before this time (CLOCK_MONOTONIC, ns); `u64::MAX` for never.
    pub retry_at: AtomicU64,
    /// The channel that waits for the socket to come over, plus one; 0 for none.
    pub arrived: AtomicU32,
    /// Does the kernel tell more of it than bytes? See [`crate::call::told`].
    pub told: AtomicU8,
    /// Times promoted and demoted.
    pub moves: [AtomicU32; 2],
    /// Attachment while promoted.
    pub port: AtomicU32,
    /// Those who sleep until something happens on this socket.
    pub waiters: Waiters,
    /// The epoll sets that watch it, with the descriptor it was entered under.
    pub sets: Mutex<Vec<(Ref<EpollSet>, RawFd)>>,
    /// SO_REUSEADDR, SO_KEEPALIVE, SO_BUF_LOCK of the program, while promoted.
    pub restore: Mutex<underpass_stack::control::Restore>,
    /// What TCP_INFO had counted at the last demotion.
    pub earlier: Mutex<Earlier>,
}

static POOL: Pool<Socket> = Pool::new();

impl Record for Socket {
    const TAG: usize = 0;
    fn refs(&self) -> &AtomicU32 {
        &self.refs
    }
    fn fds(&self) -> &AtomicU32 {
        &self.fds
    }
    fn recycle(&'static self) {
        self.sets.lock().clear();
        POOL.put(self);
    }
}

/// Whose lane an inherited socket is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Foreign {
    /// Another process's stack; the daemon knows which.
    Xdp = 1,
    /// Our parent's channel.
    Shm = 2,
}

/// How calls on a socket block.
#[derive(Clone, Copy, Debug)]
pub struct Blocking {
    nonblocking: bool,
    recv_timeout: u64,
    send_timeout: u64,
    recv_low: u32,
}

impl Blocking {
    /// As socket(2) makes it.
    pub fn fresh(nonblocking: bool) -> Self {
        Self { nonblocking, recv_timeout: 0, send_timeout: 0, recv_low: 1 }
    }

    /// As accept4(2) makes it: all but O_NONBLOCK comes from the listening socket.
    pub fn accepted(listener: &Socket, nonblocking: bool) -> Self {
        Self {
            nonblocking,
            recv_timeout: listener.recv_timeout.load(Relaxed),
            send_timeout: listener.send_timeout.load(Relaxed),
            recv_low: listener.recv_low.load(Relaxed),
        }
    }

    /// As the kernel has it.
    pub fn of(fd: RawFd) -> Self {
        let flags = sys::status_flags(fd).unwrap_or(0);
        let low = sys::sockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT).unwrap_or(1);
        Self {
            nonblocking: flags & libc::O_NONBLOCK != 0,
            recv_timeout: sys::socket_timeout(fd, libc::SO_RCVTIMEO),
            send_timeout: sys::socket_timeout(fd, libc::SO_SNDTIMEO),
            recv_low: low.max(1) as u32,
        }
    }
}

/// While one lives, the tier does not change: the thread is inside a real call on the socket.
pub struct Inside<'a>(&'a Socket);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(INSIDE_ONE, AcqRel);
    }
}

impl Socket {
    fn blank() -> Self {
        Self {
            refs: AtomicU32::new(0),
            fds: AtomicU32::new(0),
            word: AtomicU64::new(KERNEL),
            change: parking_lot::const_mutex(()),
            waiters: Waiters::new(),
            sets: parking_lot::const_mutex(Vec::new()),
            nonblocking: AtomicBool::new(false),
            recv_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            recv_low: AtomicU32::new(1),
            inode: AtomicU64::new(0),
            shown: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            fd: AtomicI32::new(-1),
            reason: AtomicU16::new(Reason::NotConnected as u16),
            score: AtomicU32::new(0),
            bulk: AtomicU32::new(0),
            retry_at: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
            foreign: AtomicU8::new(0),
            locality: AtomicU8::new(Locality::Unknown as u8),
            seeking: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            arrived: AtomicU32::new(0),
            told: AtomicU8::new(0),
            asleep: AtomicU64::new(0),
            holder: AtomicU32::new(0),
            moves: [const { AtomicU32::new(0) }; 2],
            restore: parking_lot::const_mutex(underpass_stack::control::Restore {
                reuse_addr: 0,
                keepalive: 0,
                buf_lock: 0,
                pad: 0,
            }),
            earlier: parking_lot::const_mutex(Earlier::NONE),
            dual: AtomicBool::new(false),
            port: AtomicU32::new(0),
        }
    }

    /// The inode of the socket, of which `fd` is a descriptor.
    pub fn inode(&self, fd: RawFd) -> u64 {
        let known = self.inode.load(Relaxed);
        if known != 0 {
            return known;
        }
        let found = sys::file_id(fd).map_or(0, |(_, inode)| inode);
        self.inode.store(found, Relaxed);
        found
    }

    /// A duplicate of its descriptor. The program may close its own at any moment, and the number be another's then.
    pub fn duplicate(&self) -> Result<Own> {
        let number = self.fd.load(Relaxed);
        let inode = self.inode(number);
        let mine = Own::new(sys::duplicate(number)?);
        let is_same = sys::file_id(mine.as_raw_fd()).is_ok_and(|(_, found)| found == inode);
        if is_same && self.is_open() { Ok(mine) } else { Err(Errno(libc::EBADF)) }
    }

    /// Has the program a descriptor of it that it is not closing?
    pub fn is_open(&self) -> bool {
        Record::fds(self).load(Acquire) != 0 && !self.closing.load(Acquire)
    }

    /// Takes note of how calls block.
    pub fn set_blocking(&self, blocking: Blocking) {
        self.nonblocking.store(blocking.nonblocking, Relaxed);
        self.recv_timeout.store(blocking.recv_timeout, Relaxed);
        self.send_timeout.store(blocking.send_timeout, Relaxed);
        self.recv_low.store(blocking.recv_low, Relaxed);
    }

    /// Where its calls go now.
    #[inline]
    pub fn place(&self) -> Where {
        decode(self.word.load(Acquire))
    }

    /// The lane it is on.
    #[inline]
    pub fn lane(&self) -> Option<Lane> {
        match self.place() {
            Where::Lane(lane) => Some(lane),
            _ => None,
        }
    }

    /// The slot, if it is on the xdp lane.
    #[inline]
    pub fn slot(&self) -> Option<u32> {
        match self.place() {
            Where::Lane(Lane::Xdp(slot)) => Some(slot),
            _ => None,
        }
    }

    /// Keeps the socket in the kernel tier for one real call. `None`: it is not there now.
    pub fn enter_kernel(&self) -> Option<Inside<'_>> {
        let enter = |word: u64| (word & TIER == KERNEL && word & INSIDE != INSIDE).then(|| word + INSIDE_ONE);
        self.word.fetch_update(AcqRel, Acquire, enter).ok().map(|_| Inside(self))
    }

    /// Starts a change out of the kernel tier, if nobody is inside a real call.
    pub fn leave_kernel(&self) -> bool {
        if self.word.compare_exchange(KERNEL, CHANGING, SeqCst, Acquire).is_err() {
            return false;
        }
        let alone = self.asleep.load(SeqCst) & ASLEEP == 0;
        if !alone {
            self.settle(Where::Kernel);
        }
        alone
    }

    /// Starts a change out of the lane.
    pub fn leave_lane(&self, lane: Lane) -> bool {
        self.word.compare_exchange(lane.word(), CHANGING, AcqRel, Acquire).is_ok()
    }

    /// Ends a tier change.
    pub fn settle(&self, place: Where) {
        let word = match place {
            Where::Lane(lane) => lane.word(),
            Where::Kernel | Where::Changing => KERNEL,
        };
        self.word.store(word, Release);
        self.waiters.ring();
    }

    /// Waits while another thread changes the tier.
    pub fn await_change(&self) {
        drop(self.change.lock());
        if self.place() == Where::Changing {
            std::thread::yield_now();
        }
    }

    /// Why it is where it is.
    pub fn reason(&self) -> Reason {
        Reason::from_raw(self.reason.load(Relaxed))
    }
}

fn decode(word: u64) -> Where {
    match word & TIER {
        XDP => Where::Lane(Lane::Xdp((word >> 32) as u32)),
        SHM => Where::Lane(Lane::Shm((word >> 32) as u32)),
        CHANGING => Where::Changing,
        _ => Where::Kernel,
    }
}

/// What kind of thing an unknown descriptor is.
pub enum Kind {
    /// A TCP socket; its inode.
    Tcp(u64),
    /// Anything else.
    Other,
}

/// Looks an unknown descriptor up. An error means that it is not open.
pub fn classify(fd: RawFd) -> Result<Kind> {
    let (kind, inode) = sys::file_id(fd)?;
    if kind != libc::S_IFSOCK {
        return Ok(Kind::Other);
    }
    let proto = sys::sockopt(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)?;
    let domain = sys::sockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    let is_tcp = proto == libc::IPPROTO_TCP && (domain == libc::AF_INET || domain == libc::AF_INET6);
    Ok(if is_tcp { Kind::Tcp(inode) } else { Kind::Other })
}

/// The pool's lock, to be held across fork(2).
pub fn pool_lock() -> parking_lot::MutexGuard<'static, Vec<&'static Socket>> {
    POOL.raw_lock()
}

/// The pool's mutex, for the handlers of fork(2).
pub fn pool() -> &'static Mutex<Vec<&'static Socket>> {
    POOL.mutex()
}
