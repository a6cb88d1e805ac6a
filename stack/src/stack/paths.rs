//! What connections have found out about their paths, for the next one to the same peer (RFC 8899, section 6.1.4 calls it a cache).

use std::collections::HashMap;

use super::Stack;
use crate::arena::{ConnRecord, Phase};
use crate::ip::flow::Addr;
use crate::ip::path::Path;
use crate::tcp::{Instant, SeqNr};

/// Paths remembered at most.
const PATHS: usize = 256;
/// How long what was found counts, ns (Linux: `net.ipv4.route.mtu_expires`).
const LIFE: u64 = 600_000_000_000;

/// The size of packets that get through to a peer.
#[derive(Clone, Copy, Debug)]
struct Found {
    mtu: u32,
    silent: bool,
    at: Instant,
}

/// From where to whom: cookie of the network namespace, interface index, peer.
type Way = (u64, u32, Addr);

/// What is known of each.
#[derive(Debug, Default)]
pub(super) struct PathMtus(HashMap<Way, Found>);

impl PathMtus {
    fn note(&mut self, path: Way, found: Found) {
        if self.0.len() >= PATHS && !self.0.contains_key(&path) {
            let oldest = self.0.iter().min_by_key(|(_, found)| found.at).map(|(path, _)| *path);
            oldest.and_then(|path| self.0.remove(&path));
        }
        self.0.insert(path, found);
    }

    fn get(&self, path: Way, now: Instant) -> Option<Found> {
        self.0.get(&path).copied().filter(|found| now.nanos_since(found.at) < LIFE)
    }
}

impl Stack {
    /// A router says that a packet of a connection, whose segment began at `seq`, is larger than `mtu` bytes, which is what fits.
    pub fn packet_too_big(&mut self, slot: u32, generation: u32, seq: u32, mtu: u32, now: Instant) {
        let now = self.not_back(now);
        if self.record(slot).is_none_or(|record| record.generation != generation) {
            return;
        }
        let Some(mut connection) = self.connection(slot) else { return };
        let outcome = connection.packet_too_big(now, SeqNr(seq), mtu);
        self.apply(slot, &outcome, now);
        self.touch(slot);
    }

    /// The connection knows now what its path carries.
    pub(super) fn note_path(&mut self, slot: u32, now: Instant) {
        let Some(record) = self.record(slot) else { return };
        let path = self.way(record);
        let (mtu, silent, whole) = (record.tcb.path_mtu(), record.tcb.in_black_hole(), record.path.mtu);
        if mtu < whole {
            self.path_mtus.note(path, Found { mtu, silent, at: now });
        } else {
            self.path_mtus.0.remove(&path);
        }
    }

    /// Tells a new connection what is known of its path.
    pub(super) fn recall_path(&mut self, slot: u32, path: &Path, now: Instant) {
        let Some(record) = self.record(slot) else { return };
        let found = self.path_mtus.get(self.way(record), now);
        let Some(record) = self.record_mut(slot) else { return };
        debug_assert_ne!(Phase::from_raw(record.phase), Phase::Live, "before the record is valid");
        record.tcb.know_path_mtu(now, path.known(), false);
        if let Some(found) = found {
            record.tcb.know_path_mtu(found.at, found.mtu, found.silent);
        }
    }

    fn way(&self, record: &ConnRecord) -> Way {
        let port = self.ports.get(record.port as usize).and_then(Option::as_ref);
        (port.map_or(0, |port| port.config.netns), record.path.ifindex, record.flow.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_bounded_and_grows_old() {
        let mut paths = PathMtus::default();
        let found = |at| Found { mtu: 1400, silent: false, at: Instant(at) };
        for n in 0..=PATHS as u32 {
            paths.note((7, n, Addr::v4([10, 0, 0, 1])), found(1 + u64::from(n)));
        }
        let get = |n, at| paths.get((7, n, Addr::v4([10, 0, 0, 1])), Instant(at)).map(|found| found.mtu);
        assert_eq!((paths.0.len(), get(0, 300), get(1, 300)), (PATHS, None, Some(1400)));
        assert_eq!((get(1, LIFE + 1), get(1, LIFE + 2)), (Some(1400), None));
    }
}
