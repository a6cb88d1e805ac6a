//! What an end may remember at most, whatever its peer says. The numbers are said here once more, so that a bound which is lifted or
//! forgotten in the engine shows.

use super::host::Host;

/// Records of what is in flight: so many, or ...
const SENT_RECORDS: usize = 1024;
/// ... one for each so many bytes of the send ring, if that is more. The SACK scoreboard is these records, so it has the same bound.
const BYTES_A_RECORD: usize = 512;
/// Pieces of out-of-order data, those in the connection's record (18) included.
const OUT_OF_ORDER: usize = 1024;

impl Host {
    /// Panics if the engine remembers more of what is in flight, of what the peer has selectively acknowledged or of what arrived out of
    /// order than the bounds above, or holds memory for twice as much (a list that grows doubles).
    pub fn assert_bounded(&self) {
        let (records, most) = (self.sent_records(), SENT_RECORDS.max(self.rings().1 / BYTES_A_RECORD));
        assert!(records <= most, "{records} records of what is in flight, {most} is the most");
        let capacity = self.recovery.sent.capacity();
        assert!(capacity <= 2 * most, "memory for {capacity} records, {most} is the most");
        let pieces = self.out_of_order();
        assert!(pieces <= OUT_OF_ORDER, "{pieces} pieces out of order, {OUT_OF_ORDER} is the most");
        let capacity = self.recovery.beyond_capacity();
        assert!(capacity <= 2 * OUT_OF_ORDER, "memory for {capacity} pieces, {OUT_OF_ORDER} is the most");
    }

    /// Records of what is in flight.
    pub fn sent_records(&self) -> usize {
        self.recovery.sent.records().len()
    }

    /// Pieces of data that arrived out of order.
    pub fn out_of_order(&self) -> usize {
        self.tcb.ooo.as_slice().len() + self.recovery.beyond().len()
    }
}
