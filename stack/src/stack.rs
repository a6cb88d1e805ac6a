//! One process's stack: its connections, its AF_XDP queues, and the pass that joins them. The only file that knows all rooms.
//!
//! Whoever holds the stack (the shim keeps it behind one lock) calls; nothing here calls back. What the caller has to act on
//! (a socket became readable, a connection must go back to the kernel) is left in [`Stack::take_events`]; frames that belong
//! to the kernel in [`Stack::take_leftovers`].

mod batch;
mod census;
mod demux;
mod frozen;
mod grow;
mod kick;
mod pass;
mod paths;
mod port;
mod receive;
mod slots;
mod stall;
mod train;
mod transfer;
mod transmit;
mod wheel;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

use zerocopy::FromZeros;

pub use self::census::Keeper;
pub use self::port::{Port, PortConfig};
pub use self::slots::ImportRequest;

use self::demux::Demux;
use self::wheel::Wheel;

use crate::arena::{
    self, ARENA_LEN, ArenaHeader, ConnRecord, MAX_PORTS, MEMFD_NAME, Phase, RINGS_AT, RingRef, Rings, STATS_AT,
    SocketEntry,
};
use crate::control::FrameRef;
use crate::mem::buddy::Buddy;
use crate::mem::{Owned, Region};
use crate::stats::{self, Stats};
use crate::tcp::recovery::Pool;
use crate::tcp::{Connection, Instant, Recovery};

/// What happened to a connection; bits of [`Event::bits`].
pub mod event {
    /// Bytes, or the end of the stream, can be read.
    pub const READABLE: u8 = 1;
    /// Send space came free.
    pub const WRITABLE: u8 = 1 << 1;
    /// The peer closed its sending side.
    pub const PEER_FIN: u8 = 1 << 2;
    /// The peer reset the connection: give it to the kernel, which reports it.
    pub const RESET: u8 = 1 << 3;
    /// Too many timeouts: give it to the kernel, which goes on trying.
    pub const TIMED_OUT: u8 = 1 << 4;
    /// Urgent data: give it to the kernel, which expresses it.
    pub const URGENT: u8 = 1 << 5;
    /// Both directions are closed and acknowledged.
    pub const CLOSED: u8 = 1 << 6;
    /// The events after which a connection must be demoted.
    pub const DEMOTE: u8 = RESET | TIMED_OUT | URGENT;

    /// Bytes can be read, send space came free, or neither.
    #[inline]
    pub(super) fn data(readable: bool, writable: bool) -> u8 {
        (u8::from(readable) * READABLE) | (u8::from(writable) * WRITABLE)
    }
}

/// Something that the stack's holder has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The connection.
    pub slot: u32,
    /// Bits of [`event`].
    pub bits: u8,
}

/// A frame that XDP handed us and that the kernel should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Attachment on which it came.
    pub port: u32,
    /// Which of those that have had this number.
    pub attachment: u64,
    /// Queue of the attachment.
    pub queue: u32,
    /// Its place in the UMEM.
    pub frame: FrameRef,
}

/// What the owner keeps about a slot outside the arena.
#[derive(Debug, Default)]
struct SlotState {
    /// Where the rings are. The record says so too, for readers; this cannot be scribbled over.
    rings: Rings,
    /// The deadline that stands in the wheel; never: none.
    scheduled: Instant,
    /// Queue on which the peer's frames arrive; ours leave on the same.
    queue: u16,
    /// In `Stack::touched`.
    touched: bool,
    /// Events not yet taken.
    pending: u8,
    /// Nobody holds a socket for it any more: freed when the peer has everything.
    orphan: bool,
    /// IPv4 identification of the next packet.
    ip_id: u16,
    /// What was sent and not acknowledged.
    recovery: Recovery,
}

/// The arena, as its owner has it.
type Arena = Owned<ARENA_LEN>;

/// A process's stack.
pub struct Stack {
    arena: Arena,
    rings: Buddy,
    /// Boxed: a pass takes a port out and puts it back.
    ports: Vec<Option<Box<Port>>>,
    /// Attachments so far.
    attachments: u64,
    /// One past the highest attachment in use.
    port_limit: usize,
    demux: Demux,
    slots: Vec<SlotState>,
    /// Frames that arrived for frozen connections, by slot.
    held: HashMap<u32, Vec<Leftover>>,
    /// What lies beside the records of frozen connections, by slot.
    beside: HashMap<u32, RingRef>,
    free: VecDeque<u32>,
    wheel: Wheel,
    touched: Vec<u32>,
    with_events: Vec<u32>,
    /// Memory of connections that have nothing in flight, for those that will.
    records: Pool,
    leftovers: Vec<Leftover>,
    /// Frames of unknown flows that came during a promotion.
    early: Vec<Leftover>,
    path_mtus: paths::PathMtus,
    /// Promotions under way.
    reserved: usize,
    /// The latest time that anybody brought along.
    latest: Instant,
    /// Where frames lie in TX rings.
    unkicked: kick::Unkicked,
    kinds: transmit::Kinds,
    live: usize,
}

impl Stack {
    /// A stack over a new arena. `name` shows in `underpass ps`; `started` is CLOCK_REALTIME in seconds; `renumber` may move the
    /// arena's descriptor out of the program's way.
    pub fn new(name: &str, pid: u32, started: u64, renumber: impl FnOnce(OwnedFd) -> OwnedFd) -> io::Result<Self> {
        let arena = Arena::new(new_arena(name, pid, started)?.renumber(renumber)).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            arena,
            rings: Buddy::default(),
            ports: (0..MAX_PORTS).map(|_| None).collect(),
            attachments: 0,
            port_limit: 0,
            demux: Demux::new(),
            slots: Vec::new(),
            held: HashMap::new(),
            beside: HashMap::new(),
            free: VecDeque::new(),
            wheel: Wheel::new(),
            touched: Vec::new(),
            with_events: Vec::new(),
            records: Pool::default(),
            leftovers: Vec::new(),
            early: Vec::new(),
            path_mtus: paths::PathMtus::default(),
            reserved: 0,
            latest: Instant::NEVER,
            unkicked: kick::Unkicked::Nowhere,
            kinds: Default::default(),
            live: 0,
        })
    }

    /// The arena, to be handed to the daemon.
    pub fn arena(&self) -> &Region {
        &self.arena
    }

    /// The arena's header, for what the board shows of the process.
    pub fn header_mut(&mut self) -> Option<&mut ArenaHeader> {
        self.arena.get_mut(0)
    }

    /// What the board shows of a descriptor; `None` for descriptors beyond the board.
    pub fn board_mut(&mut self, fd: i32) -> Option<&mut SocketEntry> {
        let offset = arena::board_offset(fd)?;
        let limit = fd as u32 + 1;
        let header = self.header_mut()?;
        header.fd_limit = header.fd_limit.max(limit);
        self.arena.get_mut(offset)
    }

    /// The counters.
    #[inline]
    pub fn stats(&self) -> Stats<'_> {
        stats_of(&self.arena)
    }

    /// Connections in the engine.
    pub fn live(&self) -> usize {
        self.live
    }

    /// A connection's record, whatever its phase.
    pub fn record(&self, slot: u32) -> Option<&ConnRecord> {
        self.arena.get(arena::conn_offset(slot)?)
    }

    fn record_mut(&mut self, slot: u32) -> Option<&mut ConnRecord> {
        self.arena.get_mut(arena::conn_offset(slot)?)
    }

    /// The connection in a slot, if its phase is [`Phase::Live`].
    pub fn connection(&mut self, slot: u32) -> Option<Connection<'_>> {
        let state = self.slots.get_mut(slot as usize)?;
        let (record, rcv, snd) = conn_parts(&mut self.arena, slot, state)?;
        let recovery = &mut state.recovery;
        (Phase::from_raw(record.phase) == Phase::Live).then_some(Connection {
            tcb: &mut record.tcb,
            snd,
            rcv,
            recovery,
        })
    }

    /// The events since the last call, one per connection.
    pub fn take_events(&mut self, into: &mut Vec<Event>) {
        for &slot in &self.with_events {
            if let Some(state) = self.slots.get_mut(slot as usize) {
                into.push(Event { slot, bits: std::mem::take(&mut state.pending) });
            }
        }
        self.with_events.clear();
    }

    /// Are there events to take?
    pub fn has_events(&self) -> bool {
        !self.with_events.is_empty()
    }

    /// Has a connection something to say that was not sent yet?
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The frames that the kernel should have. Give each back with [`Stack::recycle`] when it has been injected.
    pub fn take_leftovers(&mut self) -> Vec<Leftover> {
        std::mem::take(&mut self.leftovers)
    }

    /// Are there leftovers to inject?
    pub fn has_leftovers(&self) -> bool {
        !self.leftovers.is_empty()
    }

    /// The time to go by. A thread may have read the clock, then waited for another that sent with a later time: a timestamp
    /// that went back would be dropped by the peer (RFC 7323, section 5.3).
    fn not_back(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn raise(&mut self, slot: u32, bits: u8) {
        if let Some(state) = self.slots.get_mut(slot as usize) {
            state.raise(&mut self.with_events, slot, bits);
        }
    }
}

impl SlotState {
    /// Notes events for [`Stack::take_events`].
    #[inline(always)]
    fn raise(&mut self, with_events: &mut Vec<u32>, slot: u32, bits: u8) {
        if self.pending == 0 && bits != 0 {
            with_events.push(slot);
        }
        self.pending |= bits;
    }
}

/// A connection's record and its rings (receive, send).
#[inline(always)]
fn conn_parts<'a>(
    arena: &'a mut Arena,
    slot: u32,
    state: &SlotState,
) -> Option<(&'a mut ConnRecord, &'a mut [u8], &'a mut [u8])> {
    arena.record_and::<ConnRecord, RINGS_AT>(arena::conn_offset(slot)?, &state.rings)
}

/// The counters that lie in an arena.
#[inline(always)]
fn stats_of(arena: &Arena) -> Stats<'_> {
    Stats(arena.counters::<STATS_AT, { stats::WORDS }>())
}

fn new_arena(name: &str, pid: u32, started: u64) -> io::Result<Region> {
    let mut arena = Region::create(MEMFD_NAME, ARENA_LEN)?;
    let short = || io::Error::from_raw_os_error(libc::ENOMEM);
    let header: &mut ArenaHeader = arena.get_mut(0).ok_or_else(short)?;
    *header = ArenaHeader::new_zeroed();
    header.version = arena::VERSION;
    header.len = ARENA_LEN as u64;
    header.pid = pid;
    header.started = started;
    let len = name.len().min(header.name.len() - 1);
    header.name[..len].copy_from_slice(&name.as_bytes()[..len]);
    // Written last: a reader that sees the magic number sees a whole header.
    header.magic = arena::MAGIC;
    arena.seal()?;
    Ok(arena)
}
