//! Sent frames: the kernel is told of them, and they are taken back when they have left.

use super::Stack;
use super::port::Unsent;
use crate::stats::Counter;
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Sent frames are taken back when there are so many, or when none is left.
const COLLECTED: u32 = 8;
/// Tries to get a queue's frames on their way before the rest is left to the next pass.
const KICKS: usize = 64;

/// Where frames lie in TX rings that the kernel may have to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unkicked {
    /// In none.
    #[default]
    Nowhere,
    /// In that of one queue at most.
    In { port: u32, queue: u32 },
    /// Perhaps in several.
    Several,
}

impl Unkicked {
    /// As well in this one.
    #[inline]
    pub(super) fn add(&mut self, port: u32, queue: u32) {
        let this = Self::In { port, queue };
        // Nearly always so already.
        if *self != this {
            *self = if *self == Self::Nowhere { this } else { Self::Several };
        }
    }
}

impl Stack {
    /// Starts the transmission of what lies in TX rings and has not left.
    #[inline(always)]
    pub(super) fn kick(&mut self) {
        let left = match self.unkicked {
            Unkicked::Nowhere => false,
            Unkicked::In { port, queue } => self.kick_queue(port, queue),
            Unkicked::Several => return self.kick_all(),
        };
        if !left {
            self.unkicked = Unkicked::Nowhere;
        }
    }

    /// Starts the transmission of everything that lies in TX rings.
    #[inline(never)]
    fn kick_all(&mut self) {
        self.unkicked = Unkicked::Nowhere;
        for port in 0..self.port_limit as u32 {
            let queues = self.ports[port as usize].as_ref().map_or(0, |port| port.queues.len());
            for queue in 0..queues as u32 {
                if self.kick_queue(port, queue) {
                    self.unkicked.add(port, queue);
                }
            }
        }
    }

    /// Starts the transmission of what lies in one TX ring. Is something left there?
    #[inline(never)]
    fn kick_queue(&mut self, number: u32, queue_number: u32) -> bool {
        let Some(Some(port)) = self.ports.get_mut(number as usize) else { return false };
        let at = queue_number as usize;
        let (Some(queue), Some(unsent)) = (port.queues.get_mut(at), port.unsent.get_mut(at)) else { return false };
        match unsent {
            Unsent::None => return false,
            Unsent::Known => (),
            Unsent::Fresh => {
                queue.tx_flush();
                if queue.completions() >= COLLECTED {
                    return self.call_kernel(number, queue_number);
                }
            }
        }
        if queue.tx_needs_kick() {
            return self.call_kernel(number, queue_number);
        }
        let is_left = queue.tx_is_pending();
        *unsent = if is_left { Unsent::Known } else { Unsent::None };
        is_left
    }

    /// The same where sent frames are taken back, or the kernel wants to be told.
    #[inline(never)]
    fn call_kernel(&mut self, number: u32, queue_number: u32) -> bool {
        let Some(Some(port)) = self.ports.get_mut(number as usize) else { return false };
        let at = queue_number as usize;
        let (Some(queue), Some(unsent)) = (port.queues.get_mut(at), port.unsent.get_mut(at)) else { return false };
        let (kicks, failed) = kick(queue);
        if queue.completions() >= COLLECTED {
            collect(queue, &mut port.pool);
        }
        let is_left = queue.tx_is_pending();
        *unsent = if is_left { Unsent::Known } else { Unsent::None };
        if kicks > 0 {
            self.count_kicks(kicks, failed);
        }
        is_left
    }

    #[cold]
    fn count_kicks(&self, kicks: u64, failed: u64) {
        let stats = self.stats();
        stats.add(Counter::TxKicks, kicks);
        stats.add(Counter::TxKicksFailed, failed);
    }
}

/// Takes sent frames back from the completion ring.
#[inline(never)]
pub(super) fn collect(queue: &mut Queue, pool: &mut FramePool) {
    let count = queue.completions();
    for _ in 0..count {
        pool.give_addr(queue.completion_take_known());
    }
    if count != 0 {
        queue.completion_release();
    }
}

/// The same for all queues of an attachment, whose frames are everybody's: what one has sent last may lie there for as long as it is silent.
/// Is there a free frame then?
#[cold]
pub(super) fn gather(queues: &mut [Queue], pool: &mut FramePool) -> bool {
    queues.iter_mut().for_each(|queue| collect(queue, pool));
    pool.available() > 0
}

/// Sent frames that were taken back so far, modulo 2^32.
pub(super) fn moved(queues: &[Queue]) -> u32 {
    queues.iter().map(Queue::completed).fold(0, u32::wrapping_add)
}

/// Has the kernel send the TX ring; in copy mode one call takes at most 32 frames. Returns calls made and calls failed.
pub(super) fn kick(queue: &mut Queue) -> (u64, u64) {
    let (mut kicks, mut failed) = (0, 0);
    for _ in 0..KICKS {
        if !queue.tx_needs_kick() {
            break;
        }
        kicks += 1;
        if queue.kick_tx().is_err() {
            failed += 1;
            break;
        }
        if queue.tx_pending() == 0 {
            break;
        }
    }
    (kicks, failed)
}
