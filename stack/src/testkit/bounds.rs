//! What an end may remember at most, whatever its peer says. The numbers are said here once more, so that a bound which is lifted or
//! forgotten in the engine shows.

use super::host::Host;
use crate::tcp::{Connection, Recovery, Tcb};

/// Records of what is in flight: so many, or ...
const SENT_RECORDS: usize = 1024;
/// ... one for each so many bytes of the send ring, if that is more. The SACK scoreboard is these records, so it has the same bound.
const BYTES_A_RECORD: usize = 512;
/// Pieces of out-of-order data, the one in the connection's record included.
const OUT_OF_ORDER: usize = 1024;

/// Panics if a connection remembers more of what is in flight, of what the peer has selectively acknowledged or of what arrived out of order
/// than the bounds above, or holds memory for twice as much (a list that grows doubles).
pub fn assert_bounded(connection: &Connection<'_>) {
    check(connection.tcb, connection.recovery, connection.snd.len());
}

fn check(tcb: &Tcb, recovery: &Recovery, ring: usize) {
    let (records, most) = (recovery.sent.records().len(), SENT_RECORDS.max(ring / BYTES_A_RECORD));
    assert!(records <= most, "{records} records of what is in flight, {most} is the most");
    let capacity = recovery.sent.capacity();
    assert!(capacity <= 2 * most, "memory for {capacity} records, {most} is the most");
    let pieces = out_of_order(tcb, recovery);
    assert!(pieces <= OUT_OF_ORDER, "{pieces} pieces out of order, {OUT_OF_ORDER} is the most");
    let capacity = recovery.beyond_capacity();
    assert!(capacity <= 2 * OUT_OF_ORDER, "memory for {capacity} pieces, {OUT_OF_ORDER} is the most");
}

fn out_of_order(tcb: &Tcb, recovery: &Recovery) -> usize {
    tcb.ooo.as_slice().len() + recovery.beyond().len()
}

impl Host {
    /// As [`assert_bounded`].
    pub fn assert_bounded(&self) {
        check(&self.tcb, &self.recovery, self.rings().1);
    }

    /// Records of what is in flight.
    pub fn sent_records(&self) -> usize {
        self.recovery.sent.records().len()
    }

    /// Pieces of data that arrived out of order.
    pub fn out_of_order(&self) -> usize {
        out_of_order(&self.tcb, &self.recovery)
    }
}
