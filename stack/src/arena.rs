//! The layout of the arena: one memfd per process that holds every promoted connection and what the `underpass` command shows.
//!
//! ```text
//! ArenaHeader | counters | socket board (by fd) | connection records | ring space (sparse, buddy blocks)
//! ```
//!
//! The owning process is the only writer. The daemon and the commands map it read-only and treat every number as a
//! claim. A record becomes valid by its `phase`, written last.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ip::flow::FlowKey;
use crate::ip::path::Path;
use crate::lane::shm::layout::is_ring_size;
use crate::mem::Apart;
use crate::tcp::ahead::MAX_PIECES;
use crate::tcp::tcb::Tcb;

/// First word of an arena: "UPAR".
pub const MAGIC: u32 = u32::from_be_bytes(*b"UPAR");
/// Layout version.
pub const VERSION: u32 = 11;
/// Name of the memfd; `/proc/PID/fd/N` shows `/memfd:underpass-arena (deleted)`.
pub const MEMFD_NAME: &std::ffi::CStr = c"underpass-arena";
/// Interface attachments of one stack at most.
pub const MAX_PORTS: usize = 16;
/// Descriptors that the board can show.
pub const MAX_FDS: usize = 131_072;
/// Connections of one stack at most.
pub const MAX_CONNS: usize = 131_072;
/// Bytes of a pair of sequence numbers.
const PAIR: usize = 8;
/// Smallest ring, bytes.
pub const MIN_RING: u32 = 64 << 10;
/// Largest ring, bytes.
pub const MAX_RING: u32 = 64 << 20;
/// Ring space, bytes (address space, not memory: pages come when touched). The more of it is taken, the smaller the rings that are
/// handed out (see [`crate::mem::buddy::Buddy::advise`]), so that [`MAX_CONNS`] connections find room.
pub const RING_SPACE: usize = 32 << 30;

/// Offset of the counters.
pub const STATS_AT: usize = 4096;
/// Offset of the socket board.
pub const BOARD_AT: usize = STATS_AT + 4096;
/// Offset of the first connection record.
pub const CONNS_AT: usize = BOARD_AT + MAX_FDS * size_of::<SocketEntry>();
/// Distance between connection records: whole cache lines.
pub const CONN_STRIDE: usize = size_of::<ConnRecord>().next_multiple_of(64);
/// Offset of the ring space, on a page of its own.
pub const RINGS_AT: usize = (CONNS_AT + MAX_CONNS * CONN_STRIDE).next_multiple_of(MAX_RING as usize);
/// Bytes of the whole arena.
pub const ARENA_LEN: usize = RINGS_AT + RING_SPACE;

const _: () = assert!(size_of::<ArenaHeader>() <= 4096);

/// Offset of a connection's record, if there is such a slot.
pub fn conn_offset(slot: u32) -> Option<usize> {
    ((slot as usize) < MAX_CONNS).then(|| CONNS_AT + slot as usize * CONN_STRIDE)
}

/// Offset of a descriptor's board entry, if the board reaches that far.
pub fn board_offset(fd: i32) -> Option<usize> {
    let fd = usize::try_from(fd).ok()?;
    (fd < MAX_FDS).then(|| BOARD_AT + fd * size_of::<SocketEntry>())
}

/// First record of the arena.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ArenaHeader {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u32,
    /// [`ARENA_LEN`].
    pub len: u64,
    /// The owner's pid in its own pid namespace.
    pub pid: u32,
    /// One past the highest fd ever entered in the board.
    pub fd_limit: u32,
    /// One past the highest connection slot ever used.
    pub conn_limit: u32,
    /// Attachments in use.
    pub ports: u32,
    /// CLOCK_REALTIME seconds when the arena was made.
    pub started: u64,
    /// The stack's name, NUL-padded (`UNDERPASS_NAME`).
    pub name: [u8; 32],
    /// 1: a session with the daemon is open.
    pub session: u32,
    /// Why new promotions are refused altogether (a [`crate::lane::Reason`]), or 0.
    pub refusing: u32,
    /// Attachment descriptions, the first `ports` are in use.
    pub port: [PortEntry; MAX_PORTS],
}

/// One attachment, for people.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PortEntry {
    /// Interface index.
    pub ifindex: u32,
    /// AF_XDP sockets.
    pub queues: u32,
    /// 1: native XDP.
    pub native: u32,
    /// 1: zero-copy.
    pub zero_copy: u32,
    /// Interface name, NUL-padded.
    pub name: [u8; 16],
}

/// What the board says of one descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SocketEntry {
    /// 0: nothing known, 1: a TCP socket.
    pub kind: u8,
    /// A [`crate::lane::Tier`].
    pub tier: u8,
    /// A [`crate::lane::Reason`].
    pub reason: u16,
    /// Connection slot on the xdp lane; on the shm lane a [`ChannelNote`]; else `u32::MAX`.
    pub slot: u32,
    /// Inode of the socket (`/proc/PID/fd`, `/proc/net/tcp`).
    pub inode: u64,
    /// Times promoted.
    pub promoted: u32,
    /// Times demoted.
    pub demoted: u32,
    /// On the shm lane, where the channel lies in the owner's memory.
    pub channel_at: u64,
}

/// What has to be known to read a channel of the shm lane from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNote {
    /// The owner's side, 0 or 1.
    pub side: usize,
    /// Bytes of each ring.
    pub capacity: usize,
}

impl ChannelNote {
    /// As a board entry keeps it.
    pub fn to_raw(self) -> u32 {
        (self.side as u32) << 8 | self.capacity.trailing_zeros()
    }

    /// From a board entry, if it is a possible one.
    pub fn from_raw(raw: u32) -> Option<Self> {
        let capacity = 1usize.checked_shl(raw & 0xff).filter(|&bytes| is_ring_size(bytes))?;
        (raw >> 8 <= 1).then_some(Self { side: (raw >> 8) as usize, capacity })
    }
}

/// Where a connection record stands. Stored as `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Not in use.
    Free = 0,
    /// Asked for promotion; not yet imported: the kernel socket still holds everything.
    Reserved = 1,
    /// The engine runs it.
    Live = 2,
    /// Stopped for demotion; the record does not change any more.
    Frozen = 3,
}

impl Phase {
    /// Decodes a record's word; anything unknown counts as `Free`.
    pub fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Reserved,
            2 => Self::Live,
            3 => Self::Frozen,
            _ => Self::Free,
        }
    }
}

/// Place and size of a ring in the ring space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct RingRef {
    /// Offset in the arena, in units of [`MIN_RING`].
    pub block: u32,
    /// Bytes, a power of two.
    pub len: u32,
}

impl RingRef {
    /// The ring at an offset of the arena, which is a multiple of [`MIN_RING`].
    pub fn at(offset: usize, len: usize) -> Self {
        Self { block: (offset / MIN_RING as usize) as u32, len: len as u32 }
    }

    /// Offset in the arena.
    pub fn offset(&self) -> usize {
        self.block as usize * MIN_RING as usize
    }

    /// As a range of the arena, if the claim is a possible one.
    pub fn range(&self) -> Option<(usize, usize)> {
        let offset = self.offset();
        let sized = self.len.is_power_of_two() && (MIN_RING..=MAX_RING).contains(&self.len);
        let inside = offset >= RINGS_AT && offset.checked_add(self.len as usize)? <= ARENA_LEN;
        (sized && inside).then_some((offset, self.len as usize))
    }
}

/// The receive and the send ring of a connection, as its owner keeps them.
pub type Rings = Apart<RINGS_AT, ARENA_LEN>;

/// What lies beside a frozen connection's record, in the ring space: pairs of sequence numbers. First those pieces of out-of-order data
/// that the record has no room for ([`crate::tcp::Recovery::beyond`]), then what of our own data the peer has acknowledged
/// selectively ([`crate::tcp::Recovery::sacked`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PiecesRef {
    /// Offset in the arena, in units of [`MIN_RING`].
    pub block: u32,
    /// How many pieces of out-of-order data.
    pub count: u16,
    /// How many of what the peer has.
    pub sacked: u16,
}

impl PiecesRef {
    /// The out-of-order data's as a range of the arena, if the claim is a possible one.
    pub fn range(&self) -> Option<(usize, usize)> {
        self.part(0, self.count)
    }

    /// The same of what the peer has.
    pub fn sacked_range(&self) -> Option<(usize, usize)> {
        self.part(self.count, self.sacked)
    }

    fn part(&self, from: u16, count: u16) -> Option<(usize, usize)> {
        let possible = from.max(count) as usize <= MAX_PIECES;
        let offset = self.block as usize * MIN_RING as usize + from as usize * PAIR;
        let len = count as usize * PAIR;
        let inside = offset >= RINGS_AT && offset.checked_add(len)? <= ARENA_LEN;
        (possible && inside).then_some((offset, len))
    }
}

/// One promoted connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ConnRecord {
    /// A [`Phase`].
    pub phase: u32,
    /// Raised whenever the slot is used anew.
    pub generation: u32,
    /// The connection's addresses.
    pub flow: FlowKey,
    /// Attachment that its frames arrive on.
    pub port: u32,
    /// The program's fd (the first, if duplicated), for people.
    pub fd: i32,
    /// Inode of the socket.
    pub inode: u64,
    /// How packets reach the peer.
    pub path: Path,
    /// Bytes to be read by the program, and room for out-of-order data.
    pub rcv_ring: RingRef,
    /// Bytes not yet acknowledged by the peer.
    pub snd_ring: RingRef,
    /// What goes along with a frozen connection beside the record.
    pub beyond: PiecesRef,
    /// The engine's state.
    pub tcb: Tcb,
    /// Bytes that the program took on the lane since the promotion; for people.
    pub bytes_in: u64,
    /// Bytes that the program gave on the lane since the promotion; for people.
    pub bytes_out: u64,
}

impl ConnRecord {
    /// Does the engine run the connection ([`Phase::Live`])?
    #[inline]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live as u32
    }
}
