//! Where things lie in the shared pages.
//!
//! ```text
//! channel:  wants of side 0 | copies of side 0 | line of side 0 | ring 0→1 | … | wants of side 1 | copies of side 1 | line of side 1 | ring 1→0
//! trunk:    marks of side 0 | marks of side 1 | inboxes of side 0 | inboxes of side 1
//! ```
//!
//! Each side stores to its own line only, so that a message and its answer cost one cache line each way. The start of a ring, where small
//! messages lie, is the other half of a pair of cache lines, which processors like to fetch together; and all that an idle
//! connection has touched is one page a side.

/// Raised whenever this layout or a message of the meeting changes.
pub const VERSION: u32 = 2;
/// Name of a channel's memfd.
pub const CHANNEL_NAME: &std::ffi::CStr = c"underpass-channel";
/// Name of a trunk's memfd.
pub const TRUNK_NAME: &std::ffi::CStr = c"underpass-trunk";

/// Words of a cache line.
pub const LINE_WORDS: usize = 8;
/// A cache line, bytes.
const LINE: usize = 64;
/// Two, which are fetched together.
const PAIR: usize = 128;
const PAGE: usize = 4096;

/// Places in a side's line, in words.
pub mod line {
    /// Bytes that the side has put into its ring, ever.
    pub const TAIL: usize = 0;
    /// The byte of the stream that lies at the beginning of its ring.
    pub const BASE: usize = 1;
    /// Bytes that the side has taken from the other's ring, ever.
    pub const HEAD: usize = 2;
    /// How often the side has changed where its bytes go; odd: they go to its ring.
    pub const TURN: usize = 3;
    /// The last change to the ring came after so many bytes in the kernel.
    pub const ENTER_AT: usize = 4;
    /// The last change to the kernel came after so many bytes in the ring.
    pub const LEAVE_AT: usize = 5;
    /// Changes of the other side that this side has followed.
    pub const SEEN: usize = 6;
    /// Bits of [`super::flag`].
    pub const FLAGS: usize = 7;
}

/// Bits of a side's flags.
pub mod flag {
    /// The side looks at the other's ring: the other may turn to it.
    pub const READY: u64 = 1;
    /// The side reads no more from the ring: the other is to take back what lies there and send it through the kernel. For good,
    /// since what was taken back stays between `HEAD` and `TAIL`. A sender that has left before it saw this does not take back:
    /// then the side still reads up to its `LEAVE_AT`, or the copies ([`super::copies`]).
    pub const RECALL: u64 = 2;
    /// The side is done with the channel.
    pub const ENDED: u64 = 4;
    /// The side has closed its socket over unread bytes, which are of no use to anybody: the kernel's reset follows.
    pub const DISCARDED: u64 = 8;
}

/// Places in a side's wants, in words: 0, or one more than the inbox that a notice is to go to.
pub mod want {
    /// Told when bytes come.
    pub const DATA: usize = 0;
    /// Told when room is made.
    pub const SPACE: usize = 1;
}

/// Places in a side's line of copies ([`super::copies`]), in words.
pub mod copies {
    /// Bytes before `LEAVE_AT` that come through the kernel, too, before all others.
    pub const COUNT: usize = 0;
    /// Has the kernel taken them? 0: it is not known yet.
    pub const STATE: usize = 1;
    /// A state: all that were announced.
    pub const WHOLE: u64 = 1;
    /// A state: only some, or none.
    pub const SHORT: u64 = 2;
}

/// Offset of a side's wants in a channel.
pub const fn wants_at(side: usize, capacity: usize) -> usize {
    side * (PAGE + capacity)
}

/// Offset of a side's line of copies in a channel.
pub const fn copies_at(side: usize, capacity: usize) -> usize {
    wants_at(side, capacity) + LINE
}

/// Offset of a side's line in a channel.
pub const fn line_at(side: usize, capacity: usize) -> usize {
    wants_at(side, capacity) + PAIR
}

/// Offset of a side's ring in a channel.
pub const fn ring_at(side: usize, capacity: usize) -> usize {
    line_at(side, capacity) + LINE
}

/// Bytes of a channel.
pub const fn channel_len(capacity: usize) -> usize {
    2 * (PAGE + capacity)
}

/// Smallest ring, bytes.
pub const MIN_RING: usize = 4 << 10;
/// Largest ring, bytes.
pub const MAX_RING: usize = 8 << 20;

/// Is this a ring's size?
pub fn is_ring_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && (MIN_RING..=MAX_RING).contains(&bytes)
}

/// Inboxes of a side of a trunk.
pub const PLACES: usize = 8;
/// Channels of a trunk.
pub const CHANNELS: usize = 16 << 10;

/// Words of the marks of a side: a bit for every channel that the side is done with.
pub const MARK_WORDS: usize = CHANNELS / 64;

/// Offset of a side's marks in a trunk.
pub const fn marks_at(side: usize) -> usize {
    side * MARK_WORDS * 8
}

/// Words of an inbox: a line with the sleeper's word, a line of summary, the bits.
pub const INBOX_WORDS: usize = 2 * PAIR / 8 + CHANNELS / 64;

/// Offset of a side's inbox in a trunk.
pub const fn inbox_at(side: usize, place: usize) -> usize {
    PAGE + (side * PLACES + place) * PAGE
}

/// Bytes of a trunk.
pub const TRUNK_LEN: usize = PAGE + 2 * PLACES * PAGE;

const _: () = assert!(2 * MARK_WORDS * 8 <= PAGE && INBOX_WORDS * 8 <= PAGE && PAIR + LINE <= PAGE);
