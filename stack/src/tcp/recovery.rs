//! What the owner of a connection knows of its transmissions, beyond what others need to carry the connection on.
//!
//! It lies in the owner's memory beside the slot, not in the arena: the kernel could not be told of it. After an import it is begun
//! anew from the numbers.

use super::loss::Loss;
use super::prr::Prr;
use super::rack::Rack;
use super::rate::Rate;
use super::sent::{Room, Sent};
use super::tail::Tail;
use super::tcb::Tcb;
use super::time::Instant;
use super::undo::{Frto, Undo};

/// The transmissions of one connection. `Default` is that of a connection which has nothing in flight.
#[derive(Debug, Default)]
pub struct Recovery {
    pub(crate) sent: Sent,
    pub(crate) rate: Rate,
    pub(crate) loss: Loss,
    pub(crate) rack: Rack,
    pub(crate) prr: Prr,
    pub(crate) undo: Undo,
    pub(crate) frto: Frto,
    /// The newest tail loss probe, as long as its answer can say something.
    pub(crate) tail: Option<Tail>,
}

/// Memory for the records of one connection, lent while something is in flight.
#[derive(Debug)]
pub struct Records(Room);

impl Recovery {
    /// The connection was imported: what is in flight went out nobody knows when.
    pub(crate) fn begin(&mut self, tcb: &Tcb, now: Instant) {
        let (una, nxt) = (tcb.snd_una, tcb.snd_nxt);
        let mut rate = Rate::default();
        let stamp = rate.stamp(now, tcb.flight(), 0);
        let mut sent = std::mem::take(&mut self.sent);
        sent.restart(una, nxt, stamp);
        *self = Self { sent, rate, loss: Loss::new(una), rack: Rack::new(una), ..Self::default() };
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
