//! What this process shares with one other that has connections to it: inboxes, bells, and a socket that hangs up when either dies.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use underpass_stack::lane::shm::layout::{CHANNELS, INBOX_WORDS, MARK_WORDS, PLACES, inbox_at, marks_at};
use underpass_stack::lane::shm::{Word, notice};
use underpass_stack::mem::Shared;
use underpass_stack::stats::Counter;

use super::bells::Bells;
use crate::fd::Own;
use crate::{carry, engine, sys};

/// Trunks of one process at most, whatever the descriptors.
const MAX_TRUNKS: usize = 1024;
/// Part of the descriptors that a process may have which its trunks may use.
const SHARE: u64 = 4;

static TRUNKS: RwLock<Vec<Arc<Trunk>>> = RwLock::new(Vec::new());

/// What is shared with one other process.
pub struct Trunk {
    /// A random number that only the two know.
    pub id: [u64; 2],
    /// The process at the other end, as it calls itself.
    pub process: [u64; 2],
    shared: Shared,
    side: usize,
    /// The other's bells, one for each of its inboxes.
    bells: Vec<Own>,
    /// Those of ours that it may ring.
    _ours: Bells,
    socket: Own,
    alive: AtomicBool,
    table: Mutex<Table>,
}

/// Which of our channels has which number.
#[derive(Default)]
struct Table {
    channels: Vec<Option<u32>>,
    /// Where the search for a free number goes on.
    next: usize,
}

/// The trunks there are.
pub fn trunks() -> RwLockReadGuard<'static, Vec<Arc<Trunk>>> {
    TRUNKS.read()
}

/// How often [`TRUNKS`] has changed.
static CHANGES: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The trunks as this thread last saw them, after so many changes: looking at them often must not cost a lock.
    static SEEN: RefCell<(u64, Vec<Arc<Trunk>>)> = const { RefCell::new((0, Vec::new())) };
}

/// The trunks there are, for one who looks often.
#[inline]
pub fn with_trunks<R>(look: impl FnOnce(&[Arc<Trunk>]) -> R) -> R {
    let mut look = Some(look);
    let seen = SEEN.try_with(|cell| {
        let mut seen = cell.borrow_mut();
        let changes = CHANGES.load(Acquire);
        if seen.0 != changes {
            *seen = (changes, TRUNKS.read().clone());
        }
        look.take().map(|look| look(&seen.1))
    });
    match (seen, look) {
        (Ok(Some(result)), _) => result,
        // The thread is about to end.
        (_, Some(look)) => look(&TRUNKS.read()),
        (_, None) => unreachable!("a look that was taken has a result"),
    }
}

/// After fork(2), in the child: they are the parent's, and their pages are not here.
pub fn forget_trunks() {
    crate::fork::renew_rw(&TRUNKS);
    std::mem::take(&mut *TRUNKS.write()).into_iter().for_each(std::mem::forget);
    SEEN.with(|cell| std::mem::take(&mut cell.borrow_mut().1).into_iter().for_each(std::mem::forget));
    CHANGES.fetch_add(1, AcqRel);
}

impl Trunk {
    /// A trunk with the process at the other end of `socket`. `None`: there are too many.
    pub fn open(
        id: [u64; 2],
        process: [u64; 2],
        shared: Shared,
        side: usize,
        bells: Vec<Own>,
        ours: Bells,
        socket: Own,
    ) -> Option<Arc<Self>> {
        let mut trunks = TRUNKS.write();
        // The other's bells, ours that only it rings (of another user), and the socket.
        let each = 2 * PLACES as u64 + 1;
        if trunks.len() as u64 >= (sys::descriptor_limit() / SHARE / each).min(MAX_TRUNKS as u64) {
            return None;
        }
        let (alive, table) = (AtomicBool::new(true), Mutex::default());
        let trunk = Arc::new(Self { id, process, shared, side, bells, _ours: ours, socket, alive, table });
        trunks.push(trunk.clone());
        CHANGES.fetch_add(1, AcqRel);
        Some(trunk)
    }

    /// The socket whose hang-up says that the other process is gone.
    pub fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Is the other process there?
    pub fn is_alive(&self) -> bool {
        self.alive.load(Acquire)
    }

    /// The other process is gone. Returns our channels to it.
    pub fn hang_up(&self) -> Vec<u32> {
        self.alive.store(false, Release);
        TRUNKS.write().retain(|trunk| !std::ptr::eq(&**trunk, self));
        CHANGES.fetch_add(1, AcqRel);
        self.table.lock().channels.iter().flatten().copied().collect()
    }

    fn marks(&self, side: usize) -> &[Word] {
        self.shared.words(marks_at(side), MARK_WORDS)
    }

    /// Our inbox of this place.
    #[inline]
    pub fn inbox(&self, place: usize) -> &[Word] {
        self.shared.words(inbox_at(self.side, place), INBOX_WORDS)
    }

    /// A number for a channel that we offer: side 0 gives even numbers, side 1 odd ones. It is taken until [`Trunk::leave`].
    pub fn number(&self) -> Option<usize> {
        let mut table = self.table.lock();
        let Table { channels, next } = &mut *table;
        for _ in 0..CHANNELS / 2 {
            let number = *next * 2 + self.side;
            *next = (*next + 1) % (CHANNELS / 2);
            // Both sides have marked an end, or nobody has ever used it.
            let used = self.mark_of(self.side, number);
            if channels.get(number).copied().flatten().is_none() && used == self.mark_of(1 - self.side, number) {
                if used {
                    [0, 1].into_iter().for_each(|side| self.set_mark(side, number, false));
                }
                return Some(number);
            }
        }
        None
    }

    fn mark_of(&self, side: usize, number: usize) -> bool {
        self.marks(side)[number / 64].load(Acquire) >> (number % 64) & 1 == 1
    }

    fn set_mark(&self, side: usize, number: usize, on: bool) {
        let word = &self.marks(side)[number / 64];
        if on {
            word.fetch_or(1 << (number % 64), AcqRel)
        } else {
            word.fetch_and(!(1 << (number % 64)), AcqRel)
        };
    }

    /// Is this a number that the other side may give?
    pub fn accepts(&self, number: usize) -> bool {
        let theirs = number < CHANNELS && number % 2 != self.side;
        theirs && self.table.lock().channels.get(number).copied().flatten().is_none()
    }

    /// Our channel `channel` has this number from now on.
    pub fn enter(&self, number: usize, channel: u32) {
        let mut table = self.table.lock();
        if table.channels.len() <= number {
            table.channels.resize(number + 1, None);
        }
        table.channels[number] = Some(channel);
    }

    /// This side is done with a channel.
    pub fn leave(&self, number: usize) {
        if let Some(entry) = self.table.lock().channels.get_mut(number) {
            *entry = None;
        }
        self.set_mark(self.side, number, true);
    }

    /// Puts a notice into the other's inbox, and rings if somebody sleeps over it.
    #[inline]
    pub fn post(&self, place: usize, number: usize) {
        let inbox = self.shared.words(inbox_at(1 - self.side, place.min(PLACES - 1)), INBOX_WORDS);
        if notice::post(inbox, number)
            && let Some(bell) = self.bells.get(place).or_else(|| self.bells.first())
            // A full one has been rung, and would make us wait.
            && carry::kernel::ready(bell.as_raw_fd(), libc::POLLOUT) != 0
        {
            sys::ring(bell.as_raw_fd());
            engine::count(Counter::Doorbells, 1);
        }
    }

    /// Takes the notices of an inbox: the numbers of our channels.
    pub fn collect(&self, place: usize, mut found: impl FnMut(u32)) {
        let inbox = self.inbox(place);
        if notice::is_empty(inbox) {
            return;
        }
        let table = self.table.lock();
        notice::take(inbox, |number| {
            if let Some(channel) = table.channels.get(number).copied().flatten() {
                found(channel);
            }
        });
    }
}
