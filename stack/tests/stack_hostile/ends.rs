//! What the program and the peer of one connection know.

use underpass_stack::tcp::Flags;
use underpass_stack::tcp::image::{Image, flag};

use super::forge::Forged;
use super::setup::Setup;
use super::stream::{Assembly, bytes, is_at_most};

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Stack {
        slot: u32,
        generation: u32,
    },
    /// With the kernel, which says nothing.
    Kernel,
}

/// Both ends of a connection.
#[derive(Clone, Debug)]
pub struct Ends {
    pub number: usize,
    pub setup: Setup,
    pub home: Home,
    /// The queue by which its frames arrive.
    pub queue: usize,
    /// The connection when it was last looked at, or as the kernel has it.
    pub seen: Image,
    /// Sizes of the rings then.
    pub rings: (u32, u32),
    /// Events so far.
    pub events: u8,
    pub orphan: bool,
    /// What the program will write and read next.
    pub written: u32,
    pub read: u32,
    pub closed: bool,
    /// What the peer sends next, if all that it has staged arrives; and the timestamp that it puts there.
    pub next: u32,
    pub clock: u32,
    /// It may have said that its stream ends somewhere, behind a gap even.
    pub has_closed: bool,
    /// Our newest timestamp.
    pub echo: u32,
    /// What the peer has of the program's stream, and the highest that it has seen.
    pub got: Assembly,
    /// Segments that it has not acknowledged.
    pub owed: usize,
}

impl Ends {
    pub fn new(number: usize, setup: Setup) -> Self {
        let image = setup.image();
        let [own, peer] = setup.isn;
        Self {
            number,
            setup,
            home: Home::Kernel,
            queue: 0,
            seen: image,
            rings: (0, 0),
            events: 0,
            orphan: false,
            written: own,
            read: peer,
            closed: false,
            next: peer,
            clock: 1,
            has_closed: false,
            echo: 0,
            got: Assembly::from(own),
            owed: 0,
        }
    }

    /// The next connection of the same addresses, which what was forged for this one may still reach.
    pub fn next_life(&self) -> Self {
        Self { has_closed: self.has_closed, queue: self.queue, ..Self::new(self.number, self.setup) }
    }

    /// Which stream is the program's, which the peer's.
    pub fn own(&self) -> usize {
        2 * self.number
    }

    pub fn peers(&self) -> usize {
        2 * self.number + 1
    }

    pub fn slot(&self) -> Option<u32> {
        match self.home {
            Home::Stack { slot, .. } => Some(slot),
            Home::Kernel => None,
        }
    }

    /// One past the window that was promised to the peer.
    pub fn edge(&self) -> u32 {
        self.seen.rcv_wup.wrapping_add(self.seen.rcv_wnd)
    }

    /// The peer begins a flight where the connection stands.
    pub fn synchronise(&mut self) {
        self.next = self.seen.rcv_nxt;
        self.clock = self.clock.max(self.seen.ts_recent.wrapping_add(1));
        if is_at_most(self.clock, self.seen.ts_recent) {
            self.clock = self.seen.ts_recent.wrapping_add(1);
        }
        self.got.skip_to(self.seen.snd_una);
    }

    /// What an honest peer says next, with up to `len` bytes as far as the window goes.
    pub fn honest(&self, len: usize) -> Forged {
        let room = self.edge().wrapping_sub(self.next);
        let room = if room > 1 << 30 || self.seen.flags & flag::FIN_RECEIVED != 0 { 0 } else { room as usize };
        Forged {
            seq: self.next,
            ack: self.got.next,
            flags: Flags::ACK.0,
            window: 0xffff,
            timestamps: (self.seen.flags & flag::TIMESTAMPS != 0).then_some((self.clock, self.echo)),
            payload: bytes(self.peers(), self.next, len.min(room)),
            ..Forged::default()
        }
    }

    /// Bytes of data in a full segment of the peer.
    pub fn full(&self) -> usize {
        let ip = if self.setup.flow.is_v6() { 40 } else { 20 };
        let options = if self.seen.flags & flag::TIMESTAMPS != 0 { 12 } else { 0 };
        self.setup.mtu as usize - ip - 20 - options
    }
}
