//! poll(2) and select(2) over lanes and kernel descriptors at once.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::*;

use libc::{c_int, nfds_t, pollfd, sigset_t};
use underpass_stack::tcp::Instant;

use super::{Act, socket_of};
use crate::carry::shm::Arm;
use crate::carry::{self, xdp};
use crate::doorbell::Waiters;
use crate::epoll_set::EpollSet;
use crate::errno::Errno;
use crate::fd::{self, Entry, Ref};
use crate::policy::{self, Seen};
use crate::signals::Watch;
use crate::socket::{Lane, Sleepers, Socket, Where};
use crate::wait::{self, Ended, Look, Sleep};
use crate::{engine, shm, sys};

/// Kernel descriptors are looked at while lanes are busy no less often than this, ns.
const KERNEL_LOOK: u64 = 32_000;

/// One descriptor of a poll set.
enum Watched {
    /// A TCP socket, in whatever tier it is at the moment.
    Socket(Ref<Socket>),
    /// An epoll set, which may have lanes inside.
    Set(Ref<EpollSet>),
    /// The kernel's.
    Plain,
}

/// A poll in progress.
pub struct Poll<'a> {
    fds: &'a mut [pollfd],
    watched: Vec<Watched>,
    kernel: Vec<pollfd>,
    looked: Instant,
}

impl<'a> Poll<'a> {
    /// `None`: no TCP socket among them that could be on a lane; the real call does it.
    pub fn new(fds: &'a mut [pollfd]) -> Option<Self> {
        if !crate::options::promotes() && carry::live() == 0 {
            return None;
        }
        let watched: Vec<Watched> = fds.iter().map(|p| watched(p.fd)).collect();
        if watched.iter().all(|w| matches!(w, Watched::Plain)) {
            return None;
        }
        Some(Self { fds, watched, kernel: Vec::new(), looked: Instant::NEVER })
    }

    /// poll(2) until `deadline`, with `mask` meanwhile.
    pub fn run(mut self, deadline: Option<Instant>, mask: Option<&sigset_t>) -> Act<c_int> {
        let watch = Watch::new(false);
        for (p, w) in self.fds.iter().zip(&self.watched) {
            if let Watched::Socket(socket) = w {
                policy::observe(socket, p.fd, Seen::Call);
            }
        }
        let places: Vec<Ref<Socket>> = self.sockets().cloned().collect();
        let sets: Vec<Ref<EpollSet>> = self.sets().cloned().collect();
        let waiters: Vec<&Waiters> = places.iter().map(|s| &s.waiters).chain(sets.iter().map(|s| &s.waiters)).collect();
        loop {
            self.split();
            let kernel = self.kernel.clone();
            let lanes = self.has_lanes();
            // The thread's own place, and those of sets.
            let bells = || {
                let sets = sets.iter().filter(|set| set.has_shm_place()).map(|set| set.shm_place());
                let mine = places.iter().any(|s| matches!(s.lane(), Some(Lane::Shm(_)))).then(shm::places::mine);
                mine.into_iter().chain(sets).collect()
            };
            let sleep = Sleep { places: &waiters, kernel: &kernel, deadline, mask, lanes, bells: &bells, watch };
            let found = wait::until(&sleep, |look| match self.look(look) {
                // A socket has changed its tier: the kernel is asked for something else.
                None if look.sure && self.is_other(&kernel) => Some(None),
                found => found.map(Some),
            });
            match found {
                Ok(None) => {}
                Ok(Some(n)) => return Act::Done(Ok(n)),
                Err(Ended::Timeout) => return Act::Done(Ok(self.clear())),
                Err(Ended::Cancel) => return Act::Again,
                Err(Ended::Signal) => return Act::Done(Err(Errno(libc::EINTR))),
            }
        }
    }

    /// Is the kernel's view another by now?
    fn is_other(&self, kernel: &[pollfd]) -> bool {
        let watched = |p: &pollfd| (p.fd, p.events);
        !self.kernel.iter().map(watched).eq(kernel.iter().map(watched))
    }

    /// Can none of the sockets leave the kernel for the time being? Then the real call may sleep on them.
    fn put_off(&self) -> Option<Sleepers> {
        let mut sleepers = Sleepers::default();
        for (w, p) in self.watched.iter().zip(self.fds.iter()) {
            let entered = match w {
                Watched::Plain => true,
                Watched::Set(_) => false,
                Watched::Socket(socket) => {
                    policy::observe(socket, p.fd, Seen::Call);
                    policy::is_put_off(socket) && socket.record().fall_asleep().is_some_and(|one| sleepers.add(one))
                }
            };
            if !entered {
                sleepers.wake();
                return None;
            }
        }
        Some(sleepers)
    }

    fn sockets(&self) -> impl Iterator<Item = &Ref<Socket>> {
        self.watched.iter().filter_map(|w| if let Watched::Socket(s) = w { Some(s) } else { None })
    }

    fn sets(&self) -> impl Iterator<Item = &Ref<EpollSet>> {
        self.watched.iter().filter_map(|w| if let Watched::Set(s) = w { Some(s) } else { None })
    }

    fn has_lanes(&self) -> bool {
        self.sockets().any(|s| s.lane().is_some()) || self.sets().any(|s| s.lanes.load(Relaxed) > 0)
    }

    /// The kernel's view. Descriptors of the xdp lane are left out (poll ignores negative numbers); of the shm lane's, the kernel tells
    /// all but whether a ring has room.
    fn split(&mut self) {
        self.kernel.clear();
        for (p, w) in self.fds.iter().zip(&self.watched) {
            let (fd, events) = match w {
                Watched::Socket(socket) => match socket.place() {
                    Where::Kernel => (p.fd, p.events),
                    Where::Lane(Lane::Shm(channel)) if carry::shm::sends_to_ring(channel) => {
                        (p.fd, p.events & !(libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND))
                    }
                    Where::Lane(Lane::Shm(_)) => (p.fd, p.events),
                    Where::Lane(Lane::Xdp(_)) | Where::Changing => (-1, p.events),
                },
                _ => (p.fd, p.events),
            };
            self.kernel.push(pollfd { fd, events, revents: 0 });
        }
    }

    fn look(&mut self, look: Look) -> Option<c_int> {
        if engine::has_work() {
            engine::settle();
        }
        if look.sure {
            // While a socket changes its tier it is ready on neither side.
            self.sockets().filter(|s| s.place() == Where::Changing).for_each(|s| s.await_change());
        }
        let all = look.sure || look.now.nanos_since(self.looked) >= KERNEL_LOOK;
        let mut ready = self.look_lanes(look, all);
        if all {
            self.looked = look.now;
            ready += self.look_kernel();
        }
        (ready > 0).then_some(ready)
    }

    fn look_lanes(&mut self, look: Look, waits: bool) -> c_int {
        self.fds.iter_mut().for_each(|p| p.revents = 0);
        if carry::live() == 0 {
            return 0;
        }
        let Some(mut lanes) = Lanes::look(look.now, waits) else { return 0 };
        let mut ready = 0;
        for (p, w) in self.fds.iter_mut().zip(&self.watched) {
            let events = match w {
                Watched::Socket(socket) => {
                    let space = p.events & (libc::POLLOUT | libc::POLLWRNORM) != 0;
                    let arm = || look.sure.then(|| Arm { place: shm::places::mine(), edge: false, space });
                    lanes.events(socket, space, arm)
                }
                Watched::Set(set) if set.lanes.load(Relaxed) > 0 => set_events(&mut lanes, set),
                _ => 0,
            };
            let always = libc::POLLERR | libc::POLLHUP;
            p.revents = events as i16 & (p.events | always);
            ready += c_int::from(p.revents != 0);
        }
        ready
    }

    fn look_kernel(&mut self) -> c_int {
        self.split();
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(sys::ppoll(&mut self.kernel, Some(none), None), Ok(n) if n > 0) {
            return 0;
        }
        let mut ready = 0;
        for ((p, k), w) in self.fds.iter_mut().zip(&self.kernel).zip(&self.watched) {
            let mut found = k.revents;
            if let Watched::Socket(socket) = w
                && found != 0
            {
                shm::leave::note_kernel_news(socket);
                found &= told_of_channel(socket);
            }
            if found != 0 {
                ready += c_int::from(p.revents == 0);
                p.revents |= found;
            }
        }
        ready
    }

    fn clear(&mut self) -> c_int {
        self.fds.iter_mut().for_each(|p| p.revents = 0);
        0
    }
}

/// Of what the kernel says about a socket, what is so: bytes in the kernel may be copies of what a ring has given.
fn told_of_channel(socket: &Ref<Socket>) -> i16 {
    const IN: i16 = libc::POLLIN | libc::POLLRDNORM;
    match socket.lane() {
        Some(Lane::Shm(channel)) => carry::shm::events(socket, channel, false, None) as i16 | !IN,
        _ => !0,
    }
}

fn watched(fd: RawFd) -> Watched {
    if fd < 0 || fd::is_plain(fd) {
        return Watched::Plain;
    }
    if let Entry::Epoll(set) = fd::lookup(fd) {
        return if set.sockets.load(Relaxed) > 0 { Watched::Set(set) } else { Watched::Plain };
    }
    match socket_of(fd) {
        Some(socket) if !super::is_settled(&socket) => Watched::Socket(socket),
        _ => Watched::Plain,
    }
}

fn set_events(lanes: &mut Lanes, set: &EpollSet) -> c_int {
    let mut mask =
        |socket: &Ref<Socket>, asked| lanes.events(socket, asks_to_write(asked), || Some(arm_for(set, asked))) as u32;
    if set.members.lock().any_ready(&mut mask) { c_int::from(libc::POLLIN | libc::POLLRDNORM) } else { 0 }
}

/// What an epoll set's member wants to be told that is not ready.
pub fn arm_for(set: &EpollSet, asked: u32) -> Arm {
    let edge = asked & libc::EPOLLET as u32 != 0;
    Arm { place: set.shm_place(), edge, space: asks_to_write(asked) }
}

/// Does an epoll set's member ask for EPOLLOUT?
pub fn asks_to_write(asked: u32) -> bool {
    asked & (libc::EPOLLOUT | libc::EPOLLWRNORM) as u32 != 0
}

/// The lanes while they are looked at: the stack, if connections are on it.
pub struct Lanes {
    engine: Option<parking_lot::MappedMutexGuard<'static, engine::Engine>>,
}

impl Lanes {
    /// After a pass over the stack. `None`: somebody else is at work in it, and is not waited for. Who looks at the kernel too has to
    /// wait, or what the kernel has would hide what the lanes have.
    pub fn look(now: Instant, waits: bool) -> Option<Self> {
        if engine::live() == 0 {
            return Some(Self { engine: None });
        }
        let mut engine = if waits { engine::get() } else { engine::try_get() }?;
        engine.pass(now);
        Some(Self { engine: Some(engine) })
    }

    /// What a socket on a lane is ready for, as poll(2) bits.
    pub fn events(&mut self, socket: &Ref<Socket>, for_writing: bool, arm: impl FnOnce() -> Option<Arm>) -> c_int {
        match socket.lane() {
            Some(Lane::Xdp(slot)) => self.engine.as_mut().map_or(0, |engine| xdp::events(engine, socket, slot)),
            Some(Lane::Shm(channel)) => carry::shm::events(socket, channel, for_writing, arm()),
            None => 0,
        }
    }
}

/// poll(2): the real call unless one of the descriptors may be on a lane.
pub fn poll(fds: Option<&mut [pollfd]>, deadline: Option<Instant>, mask: Option<&sigset_t>) -> Act<c_int> {
    match fds.and_then(Poll::new) {
        Some(poll) => match poll.put_off() {
            Some(sleepers) => Act::Sleep(sleepers, None),
            None => poll.run(deadline, mask),
        },
        None => Act::Real,
    }
}

/// A bound on the number of descriptors that poll(2) itself accepts here.
pub const MAX_FDS: nfds_t = 1 << 20;

/// select(2)'s three sets as a poll set.
pub struct Select {
    fds: Vec<pollfd>,
}

/// Bits that select(2) reports as readable, writable and exceptional (select(2), "Correspondence between select() and poll()
/// notifications").
const READ: i16 = libc::POLLRDNORM | libc::POLLRDBAND | libc::POLLIN | libc::POLLHUP | libc::POLLERR;
const WRITE: i16 = libc::POLLWRBAND | libc::POLLWRNORM | libc::POLLOUT | libc::POLLERR;
const EXCEPT: i16 = libc::POLLPRI;

impl Select {
    /// From what is set in the three sets below `count`.
    pub fn new(count: c_int, is_set: impl Fn(usize, RawFd) -> bool) -> Self {
        let asked = [libc::POLLIN | libc::POLLRDNORM, libc::POLLOUT | libc::POLLWRNORM, libc::POLLPRI];
        let fds = (0..count)
            .filter_map(|fd| {
                let events = (0..3).filter(|&n| is_set(n, fd)).fold(0, |all, n| all | asked[n]);
                (events != 0).then_some(pollfd { fd, events, revents: 0 })
            })
            .collect();
        Self { fds }
    }

    /// Polls. After [`Act::Done`] with a count, [`Select::results`] tells which.
    pub fn run(&mut self, deadline: Option<Instant>, mask: Option<&sigset_t>) -> Act<c_int> {
        let act = poll(Some(&mut self.fds), deadline, mask);
        match act {
            Act::Done(Ok(_)) if self.fds.iter().any(|p| p.revents & libc::POLLNVAL != 0) => {
                Act::Done(Err(Errno(libc::EBADF)))
            }
            Act::Done(Ok(_)) => Act::Done(Ok(self.results().count() as c_int)),
            other => other,
        }
    }

    /// Which set, which descriptor.
    pub fn results(&self) -> impl Iterator<Item = (usize, RawFd)> {
        let ready = |p: &pollfd, n: usize| {
            let (asked, bits) = [(libc::POLLIN, READ), (libc::POLLOUT, WRITE), (libc::POLLPRI, EXCEPT)][n];
            p.events & asked != 0 && p.revents & bits != 0
        };
        self.fds.iter().flat_map(move |p| (0..3).filter(move |&n| ready(p, n)).map(move |n| (n, p.fd)))
    }
}
