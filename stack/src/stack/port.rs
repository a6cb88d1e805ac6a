//! An attachment: the AF_XDP queues of one interface and their frames.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::stall::Stall;
use super::{Leftover, Stack};
use crate::arena::{MAX_PORTS, Phase, PortEntry};
use crate::mem::Region;
use crate::stats::Counter;
use crate::xsk::RingSizes;
use crate::xsk::queue::Queue;
use crate::xsk::socket::statistics;
use crate::xsk::umem::FramePool;

/// Sizes of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Interface index.
    pub ifindex: u32,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Bytes of one frame.
    pub frame_size: u32,
    /// Frames of the UMEM.
    pub frame_count: u32,
    /// Entries of each ring.
    pub rings: RingSizes,
    /// First slot of the XSKMAP (kept for the next daemon).
    pub xsk_base: u32,
    /// Low and high half of the network namespace's cookie.
    pub netns: u64,
}

/// What of a TX ring has not left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// Nothing.
    None,
    /// Frames that the kernel has not been told of.
    Fresh,
    /// Frames that it knows of. It takes them by itself, unless it asks to be told again.
    Known,
}

/// One attachment.
pub struct Port {
    /// Its number among all that there have been.
    pub(super) attachment: u64,
    pub(super) config: PortConfig,
    pub(super) umem: Region,
    pub(super) pool: FramePool,
    pub(super) queues: Vec<Queue>,
    /// Whether frames lie in TX rings, by queue.
    pub(super) unsent: Vec<Unsent>,
    /// TX rings without room, by queue.
    pub(super) full: Vec<Stall>,
    /// No frame to send in.
    pub(super) drained: Stall,
    /// What the kernel had dropped when last asked, by queue, in the order of [`DROPS`].
    dropped: Vec<[u64; DROPS.len()]>,
}

/// The kernel's reasons for dropping a frame that was redirected to us.
const DROPS: [Counter; 3] = [Counter::XskRingFull, Counter::XskFillEmpty, Counter::XskDropped];

impl Port {
    /// Sizes and place.
    pub fn config(&self) -> &PortConfig {
        &self.config
    }

    /// The UMEM's memfd.
    pub fn umem_fd(&self) -> Option<BorrowedFd<'_>> {
        self.umem.fd()
    }

    /// The AF_XDP sockets, in queue order.
    pub fn queue_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(Queue::fd)
    }

    /// The longest frame: what a buffer holds. The interface's MTU is no bound for what it receives, and may have grown since.
    pub(super) fn max_frame(&self) -> usize {
        self.config.frame_size as usize
    }

    /// The queue on which frames leave that came on this one; there may be fewer now.
    #[inline]
    pub(super) fn queue_for(&self, queue: u16) -> usize {
        let queue = queue as usize;
        if queue < self.queues.len() { queue } else { self.queues.len().saturating_sub(1) }
    }

    /// The start of the frame that an address lies in.
    pub(super) fn base_of(&self, addr: u64) -> Option<u64> {
        self.pool.frame_of(addr).map(|frame| self.pool.addr_of(frame))
    }

    /// Puts free frames into a queue's fill ring until it is full or half of all frames would be out for receiving.
    fn fill(&mut self, queue: usize) {
        let share =
            (self.config.frame_count as usize / 2 / self.queues.len().max(1)).min(self.config.rings.fill as usize);
        let Some(q) = self.queues.get_mut(queue) else { return };
        for _ in 0..share {
            let Some(frame) = self.pool.take() else { break };
            if !q.fill_push(self.pool.addr_of(frame)) {
                self.pool.give(frame);
                break;
            }
        }
        q.fill_flush();
    }
}

impl Stack {
    /// The attachment for an interface of a namespace, if there is one.
    pub fn port_of(&self, netns: u64, ifindex: u32) -> Option<u32> {
        self.ports()
            .find(|(_, port)| port.config.ifindex == ifindex && port.config.netns == netns)
            .map(|(number, _)| number)
    }

    /// Every attachment with its number.
    pub fn ports(&self) -> impl Iterator<Item = (u32, &Port)> {
        self.ports.iter().enumerate().filter_map(|(n, port)| Some((n as u32, &**port.as_ref()?)))
    }

    /// A number for a new attachment.
    pub fn free_port(&self) -> Option<u32> {
        (0..MAX_PORTS).find(|&n| self.ports[n].is_none()).map(|n| n as u32)
    }

    /// Takes an attachment into use: `umem` and the finished AF_XDP sockets, in queue order. `entry` is what the board shows.
    pub fn attach(
        &mut self,
        number: u32,
        config: PortConfig,
        umem: Region,
        sockets: Vec<OwnedFd>,
        entry: PortEntry,
    ) -> io::Result<()> {
        let queues = sockets.into_iter().map(|fd| Queue::map(fd, config.rings)).collect::<io::Result<_>>()?;
        self.attach_queues(number, config, umem, queues, entry)
    }

    /// The same with queues that are mapped already.
    pub fn attach_queues(
        &mut self,
        number: u32,
        config: PortConfig,
        umem: Region,
        queues: Vec<Queue>,
        entry: PortEntry,
    ) -> io::Result<()> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let pool = FramePool::new(config.frame_count, config.frame_size).ok_or_else(invalid)?;
        let unsent = vec![Unsent::None; queues.len()];
        let full = vec![Stall::default(); queues.len()];
        let dropped = vec![[0; DROPS.len()]; queues.len()];
        self.attachments += 1;
        let mut port = Port {
            attachment: self.attachments,
            config,
            umem,
            pool,
            queues,
            unsent,
            full,
            drained: Stall::default(),
            dropped,
        };
        for queue in 0..port.queues.len() {
            port.fill(queue);
        }
        let place = self.ports.get_mut(number as usize).ok_or_else(invalid)?;
        *place = Some(Box::new(port));
        self.port_limit = self.port_limit.max(number as usize + 1);
        if let Some(header) = self.header_mut() {
            header.port[number as usize] = entry;
            header.ports = header.ports.max(number + 1);
        }
        Ok(())
    }

    /// Does an attachment carry a connection?
    pub fn is_used(&self, number: u32) -> bool {
        let in_stack = |phase| matches!(Phase::from_raw(phase), Phase::Live | Phase::Frozen);
        let on_it = |slot| self.record(slot).is_some_and(|record| in_stack(record.phase) && record.port == number);
        (0..self.slots.len() as u32).any(on_it)
    }

    /// Lets go of an attachment that carries no connection: its queues are free again when the sockets are closed.
    pub fn detach(&mut self, number: u32) {
        if !self.is_used(number)
            && let Some(place) = self.ports.get_mut(number as usize)
        {
            *place = None;
            let is_elsewhere = |frame: &Leftover| frame.port != number;
            self.early.retain(is_elsewhere);
            self.leftovers.retain(is_elsewhere);
        }
    }

    /// Gives an injected leftover's frame back to its queue.
    pub fn recycle(&mut self, leftover: Leftover) {
        let Some(Some(port)) = self.ports.get_mut(leftover.port as usize) else { return };
        if port.attachment != leftover.attachment {
            return;
        }
        let Some(queue) = port.queues.get_mut(leftover.queue as usize) else { return };
        let Some(frame) = port.pool.frame_of(u64::from(leftover.frame.addr)) else { return };
        if queue.fill_push(port.pool.addr_of(frame)) {
            queue.fill_flush();
        } else {
            port.pool.give(frame);
        }
    }

    /// Adds what the kernel has dropped of ours since the last time to the counters (XDP_STATISTICS).
    pub fn count_drops(&mut self) {
        let mut more = [0; DROPS.len()];
        for port in self.ports[..self.port_limit].iter_mut().flatten() {
            for (queue, before) in port.queues.iter().zip(&mut port.dropped) {
                let Ok(now) = statistics(queue.fd()) else { continue };
                let now = [now.rx_ring_full, now.rx_fill_ring_empty_descs, now.rx_dropped];
                more.iter_mut().zip(now.iter().zip(&*before)).for_each(|(sum, (now, then))| *sum += now - then);
                *before = now;
            }
        }
        let stats = self.stats();
        DROPS.iter().zip(more).filter(|(_, more)| *more > 0).for_each(|(counter, more)| stats.add(*counter, more));
    }

    /// The AF_XDP sockets to wait on.
    pub fn wait_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ports.iter().flatten().flat_map(|port| port.queue_fds())
    }
}
