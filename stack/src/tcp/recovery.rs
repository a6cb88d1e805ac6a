//! What the owner of a connection knows of its transmissions, beyond what others need to carry the connection on.
//!
//! It lies in the owner's memory beside the slot, not in the arena: the kernel could not be told of it. After an import it is begun
//! anew from the numbers.

use super::ack::sack_blocks;
use super::rate::{Delivery, Rate};
use super::sent::{Room, Sent};
use super::seq::SeqNr;
use super::tcb::Tcb;
use super::time::Instant;

/// The transmissions of one connection. `Default` is that of a connection which has nothing in flight.
#[derive(Debug, Default)]
pub struct Recovery {
    pub(crate) sent: Sent,
    pub(crate) rate: Rate,
}

/// Memory for the records of one connection, lent while something is in flight.
#[derive(Debug)]
pub struct Records(Room);

impl Recovery {
    /// The connection was imported: what is in flight went out nobody knows when.
    pub(crate) fn begin(&mut self, tcb: &Tcb, now: Instant) {
        self.rate = Rate::default();
        let stamp = self.rate.stamp(now, tcb.flight(), 0);
        self.sent.restart(tcb.snd_una, tcb.snd_nxt, stamp);
    }

    /// What an acknowledgement of everything before `ack`, with these SACK blocks, says was delivered. Blocks of nothing in flight
    /// (D-SACK, nonsense) are passed over.
    pub(crate) fn take_delivery(&mut self, ack: SeqNr, blocks: &[u8], nxt: SeqNr, sack: bool) -> Delivery {
        let mut delivery = Delivery::default();
        self.sent.take_acked(ack, |piece| {
            if !piece.sacked {
                delivery.add(piece);
            }
        });
        for (start, end) in sack_blocks(blocks).filter(|_| sack) {
            if ack.lt(start) && start.lt(end) && end.le(nxt) {
                self.sent.take_sacked(start, end, |piece| delivery.add(piece));
            }
        }
        delivery
    }

    /// Sees to it that sending needs no memory of its own: `records` that another connection has returned, or new ones.
    pub fn lend(&mut self, records: impl FnOnce() -> Option<Records>) {
        if !self.sent.has_room() {
            self.sent.lend(records().map(|records| records.0));
        }
    }

    /// Returns the memory if nothing is in flight; `None` too if it has become too large to be kept.
    pub fn give_back(&mut self) -> Option<Records> {
        self.sent.take_room().map(Records)
    }
}
