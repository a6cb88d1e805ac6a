//! The fd table: what each descriptor of the program is to us. One load tells a plain descriptor from ours.
//!
//! Entries point to records of type-stable pools (never freed, used again), so that a thread which still looks at an entry while
//! another closes the descriptor reads a valid record and finds out. One of the files with `unsafe`.

use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::*};

use crate::epoll_set::EpollSet;
use crate::socket::Socket;

const CHUNK: usize = 4096;
const CHUNKS: usize = 256;

const UNKNOWN: usize = 0;
const PLAIN: usize = 1;
/// Low bit pattern of an epoll set's entry.
const EPOLL: usize = 2;
/// Low bit pattern of one of our own descriptors.
const OWN: usize = 3;
const TAG: usize = 3;

type Chunk = [AtomicUsize; CHUNK];

/// The descriptors of nearly every program, without a look into the table of chunks.
static FIRST: Chunk = [const { AtomicUsize::new(UNKNOWN) }; CHUNK];

static TABLE: [AtomicPtr<Chunk>; CHUNKS] = {
    let mut table = [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS];
    table[0] = AtomicPtr::new((&raw const FIRST).cast_mut());
    table
};

/// What a descriptor is.
pub enum Entry {
    /// Not looked at yet.
    Unknown,
    /// Nothing of ours.
    Plain,
    /// The library's own descriptor, which the program must not close.
    Own,
    /// A TCP socket.
    Socket(Ref<Socket>),
    /// An epoll set.
    Epoll(Ref<EpollSet>),
}

/// What several descriptors (dup) and calls in progress share.
pub trait Record: Sync + 'static {
    /// References held: table entries and calls in progress.
    fn refs(&self) -> &AtomicU32;
    /// Table entries that name the record.
    fn fds(&self) -> &AtomicU32;
    /// The last reference is gone: make it ready for the next use.
    fn recycle(&'static self);
    /// Low bits of an entry that points to such a record.
    const TAG: usize;
}

/// A counted reference to a record.
pub struct Ref<T: Record>(&'static T);

impl<T: Record> Ref<T> {
    /// Takes over a reference that is already counted.
    pub fn adopt(record: &'static T) -> Self {
        Self(record)
    }

    /// Counts one more, unless the record is already on its way back to the pool.
    fn try_new(record: &'static T) -> Option<Self> {
        let count = record.refs();
        count.fetch_update(AcqRel, Acquire, |n| (n > 0).then_some(n + 1)).ok().map(|_| Self(record))
    }

    /// Are both the same record?
    pub fn is(&self, other: &T) -> bool {
        std::ptr::eq(self.0, other)
    }

    /// The record itself, which is never freed.
    pub fn record(&self) -> &'static T {
        self.0
    }
}

impl<T: Record> Clone for Ref<T> {
    fn clone(&self) -> Self {
        self.0.refs().fetch_add(1, AcqRel);
        Self(self.0)
    }
}

impl<T: Record> Drop for Ref<T> {
    fn drop(&mut self) {
        if self.0.refs().fetch_sub(1, AcqRel) == 1 {
            self.0.recycle();
        }
    }
}

impl<T: Record> Deref for Ref<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0
    }
}

#[inline(always)]
fn cell(fd: RawFd) -> Option<&'static AtomicUsize> {
    // A negative number becomes one beyond the table.
    let fd = fd as u32 as usize;
    if let Some(cell) = FIRST.get(fd) {
        return Some(cell);
    }
    let chunk = TABLE.get(fd / CHUNK)?.load(Acquire);
    // SAFETY: a chunk is never freed once it is in the table.
    let chunk = unsafe { chunk.as_ref() }?;
    Some(&chunk[fd % CHUNK])
}

fn cell_or_make(fd: RawFd) -> Option<&'static AtomicUsize> {
    if let Some(cell) = cell(fd) {
        return Some(cell);
    }
    let place = TABLE.get(usize::try_from(fd).ok()? / CHUNK)?;
    let fresh: Box<Chunk> = Box::new([const { AtomicUsize::new(UNKNOWN) }; CHUNK]);
    let fresh = Box::into_raw(fresh);
    if place.compare_exchange(std::ptr::null_mut(), fresh, AcqRel, Acquire).is_err() {
        // SAFETY: `fresh` came from a Box a line ago and nobody else has seen it.
        drop(unsafe { Box::from_raw(fresh) });
    }
    cell(fd)
}

/// Is the descriptor known to be nothing of ours? The one load of the fast path.
#[inline]
pub fn is_plain(fd: RawFd) -> bool {
    cell(fd).is_some_and(|cell| cell.load(Relaxed) == PLAIN)
}

/// What the table said of a descriptor a moment ago.
#[derive(Clone, Copy)]
pub struct Glimpse {
    cell: &'static AtomicUsize,
    raw: usize,
}

impl Glimpse {
    /// Does it still say so?
    #[inline(always)]
    pub fn holds(self) -> bool {
        self.cell.load(Acquire) == self.raw
    }

    /// Forgets the descriptor, if it still says so: the caller has the entry's reference and count from now on.
    pub fn take(self) -> bool {
        self.cell.compare_exchange(self.raw, UNKNOWN, AcqRel, Relaxed).is_ok()
    }
}

/// What [`glance`] found.
#[derive(Clone, Copy)]
pub enum Glance {
    /// Nothing of ours.
    Plain,
    /// The record of a TCP socket, as [`glimpse`] gives it.
    Socket(&'static Socket, Glimpse),
    /// It takes [`lookup`].
    Other,
}

/// What the descriptor seems to be, without a reference.
#[inline(always)]
pub fn glance(fd: RawFd) -> Glance {
    let Some(cell) = cell(fd) else { return Glance::Other };
    let raw = cell.load(Acquire);
    if raw == PLAIN {
        Glance::Plain
    } else if raw != UNKNOWN && raw & TAG == Socket::TAG {
        // SAFETY: as in `reference`.
        Glance::Socket(unsafe { &*(raw as *const Socket) }, Glimpse { cell, raw })
    } else {
        Glance::Other
    }
}

/// The record of the TCP socket behind a descriptor, without a reference. It may become another socket's at any moment: what is then
/// done to it must do no harm there, and [`Glimpse::holds`] tells afterwards.
#[inline(always)]
pub fn glimpse(fd: RawFd) -> Option<(&'static Socket, Glimpse)> {
    match glance(fd) {
        Glance::Socket(socket, glimpse) => Some((socket, glimpse)),
        Glance::Plain | Glance::Other => None,
    }
}

/// What the descriptor is, holding a reference.
pub fn lookup(fd: RawFd) -> Entry {
    let Some(cell) = cell(fd) else { return Entry::Unknown };
    loop {
        let raw = cell.load(Acquire);
        match raw {
            UNKNOWN => return Entry::Unknown,
            PLAIN => return Entry::Plain,
            OWN => return Entry::Own,
            _ => {}
        }
        let found = if raw & TAG == EPOLL {
            reference::<EpollSet>(raw).map(Entry::Epoll)
        } else {
            reference::<Socket>(raw).map(Entry::Socket)
        };
        if let Some(entry) = found
            && cell.load(Acquire) == raw
        {
            return entry;
        }
    }
}

fn reference<T: Record>(raw: usize) -> Option<Ref<T>> {
    // SAFETY: entries with this tag are only ever made from `&'static T` of a pool that is never freed.
    Ref::try_new(unsafe { &*((raw & !TAG) as *const T) })
}

fn raw_of<T: Record>(record: &'static T) -> usize {
    std::ptr::from_ref(record) as usize | T::TAG
}

fn swap(fd: RawFd, raw: usize) {
    if let Some(cell) = cell_or_make(fd) {
        drop_entry(cell.swap(raw, AcqRel));
    }
}

/// Takes away the entry's count and reference.
fn drop_entry(raw: usize) {
    match raw {
        UNKNOWN | PLAIN | OWN => {}
        raw if raw & TAG == EPOLL => release::<EpollSet>(raw),
        raw => release::<Socket>(raw),
    }
}

fn release<T: Record>(raw: usize) {
    // SAFETY: as in `reference`; the entry held a reference, which passes to `held`.
    let held = Ref::<T>(unsafe { &*((raw & !TAG) as *const T) });
    held.fds().fetch_sub(1, AcqRel);
}

/// Enters a record for a descriptor; whatever stood there is released.
pub fn set<T: Record>(fd: RawFd, record: &Ref<T>) {
    record.fds().fetch_add(1, AcqRel);
    let held = record.clone();
    std::mem::forget(held);
    swap(fd, raw_of(record.record()));
}

/// Is there a place in the table for the descriptor, and nothing of ours in it?
#[inline(always)]
pub fn is_vacant(fd: RawFd) -> bool {
    cell(fd).is_some_and(|cell| matches!(cell.load(Relaxed), UNKNOWN | PLAIN))
}

/// As [`set`], with a record that nobody else has: its first reference becomes the entry's.
pub fn set_first<T: Record>(fd: RawFd, record: &'static T) {
    record.fds().store(1, Relaxed);
    record.refs().store(1, Relaxed);
    swap(fd, raw_of(record));
}

/// Marks a descriptor as nothing of ours.
pub fn set_plain(fd: RawFd) {
    swap(fd, PLAIN);
}

/// Marks a descriptor as the library's own.
pub fn set_own(fd: RawFd) {
    swap(fd, OWN);
}

/// A descriptor of the library's own, which the program must not close.
#[derive(Debug)]
pub struct Own(OwnedFd);

impl Own {
    /// Marks it as such.
    pub fn new(fd: OwnedFd) -> Self {
        set_own(fd.as_raw_fd());
        Self(fd)
    }
}

impl Deref for Own {
    type Target = OwnedFd;
    fn deref(&self) -> &OwnedFd {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        clear(self.0.as_raw_fd());
    }
}

/// Forgets a descriptor: the number may come back as anything.
pub fn clear(fd: RawFd) {
    if let Some(cell) = cell(fd) {
        drop_entry(cell.swap(UNKNOWN, AcqRel));
    }
}

/// Calls `f` with every descriptor that has an entry of ours (sockets, epoll sets, own descriptors).
pub fn for_each(mut f: impl FnMut(RawFd, Entry)) {
    for (n, chunk) in TABLE.iter().enumerate() {
        // SAFETY: as in `cell`.
        let Some(chunk) = (unsafe { chunk.load(Acquire).as_ref() }) else { continue };
        for (m, cell) in chunk.iter().enumerate() {
            if cell.load(Relaxed) > PLAIN {
                let fd = (n * CHUNK + m) as RawFd;
                f(fd, lookup(fd));
            }
        }
    }
}

/// Records of one kind that are used again and never freed.
pub struct Pool<T: 'static> {
    /// The one used last, without the lock: null or a record that nobody has.
    spare: AtomicPtr<T>,
    free: parking_lot::Mutex<Vec<&'static T>>,
}

impl<T: Record> Pool<T> {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { spare: AtomicPtr::new(std::ptr::null_mut()), free: parking_lot::const_mutex(Vec::new()) }
    }

    /// The record used last, if it is there; no lock is taken, nothing allocated.
    pub fn take_spare(&self) -> Option<&'static T> {
        if self.spare.load(Relaxed).is_null() {
            return None;
        }
        let record = self.spare.swap(std::ptr::null_mut(), Acquire);
        // SAFETY: only `&'static T` are ever put there, and whoever swaps one out is alone with it.
        unsafe { record.as_ref() }
    }

    /// Puts back a record whose references are all gone, without a lock. False: there is no room for it.
    pub fn put_spare(&self, record: &'static T) -> bool {
        let record = std::ptr::from_ref(record).cast_mut();
        self.spare.compare_exchange(std::ptr::null_mut(), record, Release, Relaxed).is_ok()
    }

    /// A record with one reference: a used one, or a new one.
    pub fn take(&self, make: impl FnOnce() -> T) -> Ref<T> {
        let used = self.take_spare().or_else(|| self.free.lock().pop());
        let record = used.unwrap_or_else(|| Box::leak(Box::new(make())));
        record.refs().store(1, Release);
        Ref::adopt(record)
    }

    /// Puts a record back whose references are all gone.
    pub fn put(&self, record: &'static T) {
        if !self.put_spare(record) {
            self.free.lock().push(record);
        }
    }

    /// The mutex, for the handlers of fork(2).
    pub fn mutex(&self) -> &parking_lot::Mutex<Vec<&'static T>> {
        &self.free
    }

    /// The lock, to be held across fork(2).
    pub fn raw_lock(&self) -> parking_lot::MutexGuard<'_, Vec<&'static T>> {
        self.free.lock()
    }
}

const _: () = assert!(align_of::<Socket>() >= 4 && align_of::<EpollSet>() >= 4);
