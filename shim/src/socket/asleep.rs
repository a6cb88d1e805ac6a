//! Threads that sleep in real calls on sockets: as long as they do, the socket stays in the kernel.

use std::sync::atomic::Ordering::*;

use super::{KERNEL, Socket, TIER};

/// Count of sleeping threads in a socket's word about them, more than a host has; the rest is its age.
pub(super) const ASLEEP: u64 = 0xff_ffff;

/// A thread sleeps in a real call. No destructor ends that: the call may be left by the forced unwinding of pthread_cancel(3), and then
/// the socket stays in the kernel for good.
#[derive(Clone, Copy)]
pub struct Asleep {
    socket: &'static Socket,
    age: u64,
}

impl Asleep {
    /// On this socket, unless it was closed meanwhile: then the record may be another's.
    pub fn socket(self) -> &'static Socket {
        self.socket
    }

    /// The call is over.
    #[inline(always)]
    pub fn wake(self) {
        // Unless the socket was closed meanwhile and its record is another's.
        let leave = |word: u64| (word & !ASLEEP == self.age && word & ASLEEP > 0).then(|| word - 1);
        let _ = self.socket.asleep.fetch_update(SeqCst, Acquire, leave);
    }
}

impl Socket {
    /// The calling thread is about to make a real call that may sleep: the socket stays in the kernel tier meanwhile. `None`: it is not
    /// there now.
    #[inline(always)]
    pub fn fall_asleep(&'static self) -> Option<Asleep> {
        let before = self.asleep.fetch_add(1, SeqCst);
        let asleep = Asleep { socket: self, age: before & !ASLEEP };
        if self.word.load(SeqCst) & TIER == KERNEL {
            return Some(asleep);
        }
        asleep.wake();
        None
    }
}

/// All the sockets on which one real call may sleep.
#[derive(Clone, Copy, Default)]
pub struct Sleepers {
    each: [Option<Asleep>; Self::MAX],
    count: usize,
}

impl Sleepers {
    /// More than a call with a few descriptors has.
    pub const MAX: usize = 4;

    /// One more. False: there are too many.
    pub fn add(&mut self, asleep: Asleep) -> bool {
        let Some(place) = self.each.get_mut(self.count) else {
            asleep.wake();
            return false;
        };
        *place = Some(asleep);
        self.count += 1;
        true
    }

    /// Those of both; who finds no place wakes at once.
    pub fn and(mut self, others: Self) -> Self {
        for one in others.each.into_iter().flatten() {
            self.add(one);
        }
        self
    }

    /// The call is over.
    pub fn wake(&self) {
        self.each.iter().flatten().for_each(|one| one.wake());
    }

    /// The record of the one socket on which the call might sleep. It may be another socket's by now.
    pub fn only(&self) -> Option<&'static Socket> {
        match self.each {
            [Some(one), None, ..] => Some(one.socket),
            _ => None,
        }
    }
}

impl From<Asleep> for Sleepers {
    fn from(asleep: Asleep) -> Self {
        let mut sleepers = Self::default();
        sleepers.add(asleep);
        sleepers
    }
}
