//! The channels of this process: a table of records that are never freed, only used again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, OnceLock};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use underpass_stack::arena::ChannelNote;
use underpass_stack::mem::Shared;
use underpass_stack::tcp::Instant;

use super::rx::Rx;
use super::trunk::Trunk;
use super::tx::Tx;
use super::view::View;
use crate::fd::Ref;
use crate::socket::Socket;

const CHUNK: usize = 256;
const CHUNKS: usize = 256;

static TABLE: [OnceLock<Box<[Channel]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static FREE: Mutex<Vec<u32>> = parking_lot::const_mutex(Vec::new());
/// One past the highest number ever used.
static LIMIT: AtomicU32 = AtomicU32::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

/// Channels in use.
pub fn live() -> u64 {
    LIVE.load(Relaxed)
}

/// One connection on the lane.
pub struct Channel {
    number: u32,
    rx: Mutex<Option<Rx>>,
    tx: Mutex<Option<Tx>>,
    end: Mutex<Option<End>>,
    /// The kernel socket has something to say beside the ring: an end, an error.
    pub news: AtomicBool,
    /// When the kernel was last looked at (CLOCK_MONOTONIC, ns).
    looked: AtomicU64,
    /// The process at the other end is gone: nobody writes to the ring any more.
    pub peer_gone: AtomicBool,
}

/// Whose channel it is, and with whom.
#[derive(Clone)]
pub struct End {
    /// The socket.
    pub socket: Ref<Socket>,
    /// What we share with the other process.
    pub trunk: Arc<Trunk>,
    /// The channel's number in the trunk.
    pub place: usize,
}

/// The channel of this number.
#[inline]
pub fn channel(number: u32) -> Option<&'static Channel> {
    TABLE.get(number as usize / CHUNK)?.get()?.get(number as usize % CHUNK)
}

/// The numbers that channels have had.
pub fn numbers() -> impl Iterator<Item = u32> {
    0..LIMIT.load(Acquire)
}

/// Every channel in use.
pub fn channels() -> Vec<&'static Channel> {
    numbers().filter_map(channel).filter(|channel| channel.end.lock().is_some()).collect()
}

impl Channel {
    fn blank(number: u32) -> Self {
        Self {
            number,
            rx: parking_lot::const_mutex(None),
            tx: parking_lot::const_mutex(None),
            end: parking_lot::const_mutex(None),
            news: AtomicBool::new(false),
            looked: AtomicU64::new(0),
            peer_gone: AtomicBool::new(false),
        }
    }

    /// A channel of this process. The memory comes back if there are too many.
    pub fn open(shared: Shared, side: usize, capacity: usize, end: End) -> Result<&'static Self, Shared> {
        let Some(channel) = free_number().and_then(channel) else { return Err(shared) };
        let number = channel.number;
        let view = Arc::new(View::new(shared, side, capacity));
        channel.news.store(true, Relaxed);
        channel.peer_gone.store(!end.trunk.is_alive(), Relaxed);
        *channel.rx.lock() = Some(Rx::new(view.clone()));
        *channel.tx.lock() = Some(Tx::new(view));
        end.trunk.enter(end.place, number);
        *channel.end.lock() = Some(end);
        LIVE.fetch_add(1, Relaxed);
        Ok(channel)
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The incoming direction; the caller finds out whether the channel is still the socket's.
    #[inline]
    pub fn rx(&self) -> MutexGuard<'_, Option<Rx>> {
        self.rx.lock()
    }

    /// The same, unless somebody else is at it.
    #[inline]
    pub fn try_rx(&self) -> Option<MutexGuard<'_, Option<Rx>>> {
        self.rx.try_lock()
    }

    /// The outgoing direction.
    #[inline]
    pub fn tx(&self) -> MutexGuard<'_, Option<Tx>> {
        self.tx.lock()
    }

    /// The same, unless somebody else is at it.
    pub fn try_tx(&self) -> Option<MutexGuard<'_, Option<Tx>>> {
        self.tx.try_lock()
    }

    /// Is it `every` ns ago that the kernel was looked at? The caller does so now.
    pub fn is_kernel_due(&self, now: Instant, every: u64) -> bool {
        let due = now.nanos_since(Instant(self.looked.load(Relaxed))) >= every;
        if due {
            self.looked.store(now.0, Relaxed);
        }
        due
    }

    /// What the board says of it: how it is laid out, and where.
    pub fn note(&self) -> (u32, u64) {
        let rx = self.rx.lock();
        rx.as_ref().map_or((u32::MAX, 0), |rx| {
            let (side, capacity) = (rx.view().side(), rx.view().capacity());
            (ChannelNote { side, capacity }.to_raw(), rx.view().address())
        })
    }

    /// Whose it is.
    pub fn end(&self) -> Option<End> {
        self.end.lock().clone()
    }

    /// The same, without a reference of one's own, unless somebody else is at it.
    pub fn try_end(&self) -> Option<MappedMutexGuard<'_, End>> {
        MutexGuard::try_map(self.end.try_lock()?, Option::as_mut).ok()
    }

    /// Does something with whose it is, without a reference of one's own.
    #[inline]
    pub fn with_end(&self, look: impl FnOnce(&End)) {
        if let Some(end) = &*self.end.lock() {
            look(end);
        }
    }

    /// Tells the other process, in its inbox `place`.
    pub fn notify(&self, place: Option<usize>) {
        let Some(place) = place else { return };
        if let Some(end) = &*self.end.lock() {
            end.trunk.post(place, end.place);
        }
    }

    /// The other process's general inbox, whatever it wants.
    pub fn notify_general(&self) {
        self.notify(Some(super::places::GENERAL));
    }

    /// Ends this side: the memory goes, the number is free.
    pub fn close(&self) {
        let Some(end) = self.end.lock().take() else { return };
        *self.rx.lock() = None;
        *self.tx.lock() = None;
        end.trunk.leave(end.place);
        LIVE.fetch_sub(1, Relaxed);
        FREE.lock().push(self.number);
    }

    /// After fork(2), in the child: it is the parent's. Its pages are not here.
    pub fn leave_to_parent(&self) {
        for lock in [&self.rx as &dyn Renew, &self.tx, &self.end] {
            lock.renew_and_forget();
        }
    }
}

trait Renew {
    fn renew_and_forget(&self);
}

impl<T> Renew for Mutex<Option<T>> {
    fn renew_and_forget(&self) {
        crate::fork::renew(self);
        std::mem::forget(self.lock().take());
    }
}

fn free_number() -> Option<u32> {
    if let Some(number) = FREE.lock().pop() {
        return Some(number);
    }
    let number = LIMIT.fetch_update(AcqRel, Acquire, |n| (n < (CHUNK * CHUNKS) as u32).then_some(n + 1)).ok()?;
    let chunk = number as usize / CHUNK;
    TABLE[chunk].get_or_init(|| ((chunk * CHUNK) as u32..((chunk + 1) * CHUNK) as u32).map(Channel::blank).collect());
    Some(number)
}

/// After fork(2), in the child: none of the channels is ours.
pub fn leave_all_to_parent() {
    crate::fork::renew(&FREE);
    let limit = LIMIT.load(Relaxed);
    (0..limit).filter_map(channel).for_each(Channel::leave_to_parent);
    *FREE.lock() = (0..limit).collect();
    LIVE.store(0, Relaxed);
}
