//! Frames in, several at once: what has arrived on a queue together, and the trains in it.

use crate::ip::input::{self, Unverified};
use crate::mem::Region;
use crate::tcp::train::Train;
use crate::tcp::{Connection, Instant};
use crate::wire::{ethernet, ipv4};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Addresses and ports in an ordinary IPv4 frame.
const ENDS_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN - 8;

/// Frames that have arrived on a queue and were not looked at yet.
pub(super) struct Batch<'a> {
    pub queue: &'a mut Queue,
    pub umem: &'a Region,
    pub pool: &'a mut FramePool,
    pub max_frame: usize,
    /// How many.
    pub left: u32,
    /// Bytes of those that were.
    pub bytes: u64,
}

impl<'a> Batch<'a> {
    /// Takes the next one, which there is.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Desc {
        let desc = self.queue.rx_pop_known();
        self.count(u64::from(desc.len));
        desc
    }

    /// Takes the frame that [`Self::next_frame`] has told of.
    #[inline(always)]
    fn pass(&mut self, frame: &[u8]) {
        self.queue.rx_skip_known();
        self.count(frame.len() as u64);
    }

    #[inline(always)]
    fn count(&mut self, bytes: u64) {
        self.left -= 1;
        self.bytes += bytes;
    }

    /// The address of the frame that a packet lies in.
    #[inline(always)]
    pub(super) fn base_of(&self, packet: Desc) -> Option<u64> {
        self.pool.base_of(packet.addr)
    }

    /// The next one, which stays that, if it is no longer than frames are, and the address of its frame.
    #[inline(always)]
    fn next_frame(&self) -> Option<(&'a [u8], u64)> {
        if self.left == 0 {
            return None;
        }
        let desc = self.queue.rx_peek_known();
        let base = self.base_of(desc)?;
        let frame = self.umem.bytes(desc.addr as usize, desc.len as usize)?;
        (frame.len() <= self.max_frame).then_some((frame, base))
    }

    /// Is the next one of the same flow as this one, if both are of ordinary IPv4? So that none but these are looked at as trains.
    #[inline(always)]
    pub(super) fn continues(&self, frame: &[u8]) -> bool {
        self.left != 0 && self.next_frame().is_some_and(|(next, _)| ends_of(next) == ends_of(frame))
    }

    /// A frame is free: for the next packet.
    #[inline(always)]
    pub(super) fn refill(&mut self, base: u64) {
        if !self.queue.fill_push(base) {
            self.pool.give_addr(base);
        }
    }
}

/// Where addresses and ports lie in an ordinary IPv4 frame.
#[inline(always)]
fn ends_of(frame: &[u8]) -> Option<&[u8; 12]> {
    frame.get(ENDS_AT..)?.first_chunk()
}

/// A segment as its connection expects it has come, and more frames after it: takes in all that continue it, as one. Says whether there
/// is something to read, and whether there is more send space. `None`: the first is not what its checksum says, and nothing has happened.
#[inline(always)]
pub(super) fn train_in(
    connection: &mut Connection<'_>,
    first: &Unverified<'_>,
    now: Instant,
    batch: &mut Batch<'_>,
) -> Option<(bool, bool)> {
    let (has_data, before) = (!first.segment.payload.is_empty(), batch.left);
    let train = match has_data {
        true => train_of::<true>(connection, first, batch),
        false => train_of::<false>(connection, first, batch),
    };
    let writable = connection.take_train(now, &train?, 1 + before - batch.left);
    Some((has_data, writable))
}

/// Takes in the data of a segment, and of all that continue it.
#[inline(never)]
fn train_of<const DATA: bool>(
    connection: &mut Connection<'_>,
    first: &Unverified<'_>,
    batch: &mut Batch<'_>,
) -> Option<Train> {
    let sum = first.sum();
    // Where the first is verified the others are: one that leaves its checksum to a network card is no part of the train.
    let verifies = DATA && sum.is_some();
    let mut train = connection.begin_train::<DATA>(&first.segment, sum)?;
    while let Some((frame, base)) = batch.next_frame() {
        let Some(next) = input::parse_usual(frame).filter(|next| next.ends == first.ends) else { break };
        if !connection
            .lengthen::<DATA>(&mut train, &next.segment, || if verifies { Some(next.whole_sum()) } else { next.sum() })
        {
            break;
        }
        batch.pass(frame);
        batch.refill(base);
    }
    Some(train)
}
