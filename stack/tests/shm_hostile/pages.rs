//! A channel and an inbox of each side in one memfd, with pages around them that nobody may touch.

use underpass_stack::lane::shm::Word;
use underpass_stack::lane::shm::layout::{
    INBOX_WORDS, LINE_WORDS, MIN_RING, channel_len, copies_at, line_at, ring_at, wants_at,
};
use underpass_stack::mem::shared::SharedBytes;
use underpass_stack::mem::{Bytes, Shared};

pub const RING: usize = MIN_RING;
/// We are this side of the channel, the peer is the other.
pub const OURS: usize = 0;
pub const THEIRS: usize = 1;

const PAGE: usize = 4096;
pub const CHANNEL_AT: usize = PAGE;
pub const CHANNEL_LEN: usize = channel_len(RING);
pub const INBOXES_AT: usize = CHANNEL_AT + CHANNEL_LEN + PAGE;
pub const INBOXES_LEN: usize = 2 * PAGE;
pub const LEN: usize = INBOXES_AT + INBOXES_LEN + PAGE;
const GUARDS: [usize; 3] = [0, CHANNEL_AT + CHANNEL_LEN, INBOXES_AT + INBOXES_LEN];
const CANARY: [u8; PAGE] = [0xa5; PAGE];

/// One mapping of them.
pub struct Pages(pub Shared);

impl Pages {
    /// Our mapping and the peer's.
    pub fn create() -> (Self, Self) {
        let (ours, fd) = Shared::create(c"hostile-test", LEN).expect("a memfd");
        for at in GUARDS {
            ours.bytes(at, PAGE).write(0, &CANARY);
        }
        (Self(ours), Self(Shared::open(fd, LEN).expect("the same memfd")))
    }

    pub fn check_guards(&self) {
        for at in GUARDS {
            let mut bytes = [0; PAGE];
            self.0.bytes(at, PAGE).read(0, &mut bytes);
            assert!(bytes == CANARY, "the pages around are as they were");
        }
    }

    pub fn copy(&self, out: &mut [u8]) {
        self.0.bytes(0, LEN).read(0, out);
    }

    pub fn line(&self, side: usize) -> &[Word] {
        self.0.words(CHANNEL_AT + line_at(side, RING), LINE_WORDS)
    }

    pub fn copies(&self, side: usize) -> &[Word] {
        self.0.words(CHANNEL_AT + copies_at(side, RING), LINE_WORDS)
    }

    pub fn wants(&self, side: usize) -> &[Word] {
        self.0.words(CHANNEL_AT + wants_at(side, RING), LINE_WORDS)
    }

    pub fn ring(&self, side: usize) -> SharedBytes<'_> {
        self.0.bytes(ring_start(side), RING)
    }

    pub fn inbox(&self, side: usize) -> &[Word] {
        self.0.words(inbox_start(side), INBOX_WORDS)
    }
}

pub fn ring_start(side: usize) -> usize {
    CHANNEL_AT + ring_at(side, RING)
}

pub fn inbox_start(side: usize) -> usize {
    INBOXES_AT + side * PAGE
}
