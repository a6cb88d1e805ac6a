//! The rings of an AF_XDP socket in ordinary memory, with a program at the end where the kernel would be: for tests and
//! measurements of what lies above the rings, which cannot tell the difference.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::abi::{Desc, RingOffsets};
use super::mapping::Mapping;
use super::queue::{Consuming, Producing, Queue};
use super::socket::RingSizes;
use crate::mem::{Plain, Region};

/// As the kernel has it: each cursor and the flags in a cache line of their own.
const LAYOUT: RingOffsets = RingOffsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

/// One of the four rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Empty frames, from the program to the kernel.
    Fill,
    /// Packets received.
    Rx,
    /// Packets to send.
    Tx,
    /// Frames of packets that were sent.
    Completion,
}

/// The kernel's end of the four rings. It never asks to be woken.
#[derive(Debug)]
pub struct Opposite {
    fill: Consuming<u64>,
    tx: Consuming<Desc>,
    rx: Producing<Desc>,
    completion: Producing<u64>,
    /// Entries of `rx` that are not shown yet.
    hidden: u32,
}

/// Both ends of fresh rings. EINVAL unless all sizes are powers of two.
pub fn pair(sizes: RingSizes) -> io::Result<(Queue, Opposite)> {
    if !sizes.is_valid() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let (fill, fill_opposite, fd) = ring(sizes.fill)?;
    let (completion, completion_opposite, _) = ring(sizes.completion)?;
    let (rx, rx_opposite, _) = ring(sizes.rx)?;
    let (tx, tx_opposite, _) = ring(sizes.tx)?;
    let queue = Queue::over(fd, fill, tx, rx, completion);
    let opposite = Opposite {
        fill: Consuming::new(fill_opposite),
        tx: Consuming::new(tx_opposite),
        rx: Producing::new(rx_opposite),
        completion: Producing::new(completion_opposite),
        hidden: 0,
    };
    Ok((queue, opposite))
}

/// One ring, mapped twice, and a descriptor of its memory.
fn ring<T: Plain>(size: u32) -> io::Result<(Mapping<T>, Mapping<T>, OwnedFd)> {
    let region = Region::create(c"underpass-ring", Mapping::<T>::len_for(LAYOUT, size))?;
    let Some(fd) = region.fd().map(|fd| fd.try_clone_to_owned()).transpose()? else {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    };
    let other = Region::open_owner(fd.as_fd().try_clone_to_owned()?)?;
    Ok((Mapping::over(region, LAYOUT, size)?, Mapping::over(other, LAYOUT, size)?, fd))
}

impl Opposite {
    /// An empty frame to receive into, by its place in the UMEM.
    pub fn take_empty(&mut self) -> Option<u64> {
        let addr = self.fill.pop()?;
        self.fill.release();
        Some(addr)
    }

    /// Puts a received packet into the ring, where it is not seen before [`Self::show`]. False if the ring is full.
    #[inline]
    pub fn put(&mut self, packet: Desc) -> bool {
        let pushed = self.rx.push(packet);
        self.hidden += u32::from(pushed);
        pushed
    }

    /// Shows the oldest `count` packets that were put; returns how many there were.
    #[inline]
    pub fn show(&mut self, count: u32) -> u32 {
        let shown = count.min(self.hidden);
        self.hidden -= shown;
        self.rx.flush_all_but(self.hidden);
        shown
    }

    /// The next packet to send. Give its frame back with [`Self::complete`].
    pub fn take_sent(&mut self) -> Option<Desc> {
        let packet = self.tx.pop()?;
        self.tx.release();
        Some(packet)
    }

    /// A packet was sent. False if the ring is full.
    pub fn complete(&mut self, addr: u64) -> bool {
        let pushed = self.completion.push(addr);
        self.completion.flush();
        pushed
    }

    /// The addresses that lie in a ring, those of packets that are not shown yet included.
    pub fn lying(&self, which: Which) -> Vec<u64> {
        match which {
            Which::Fill => self.fill.ring().lying(0).collect(),
            Which::Rx => self.rx.ring().lying(self.hidden).map(|packet| packet.addr).collect(),
            Which::Tx => self.tx.ring().lying(0).map(|packet| packet.addr).collect(),
            Which::Completion => self.completion.ring().lying(0).collect(),
        }
    }

    /// A kernel that has lost count: moves its own cursor of a ring by `by`, until it next shows the right one.
    pub fn lose_count(&mut self, which: Which, by: u32) {
        let cursor = match which {
            Which::Fill => self.fill.ring().consumer(),
            Which::Rx => self.rx.ring().producer(),
            Which::Tx => self.tx.ring().consumer(),
            Which::Completion => self.completion.ring().producer(),
        };
        cursor.fetch_add(by, Ordering::AcqRel);
    }
}
