//! What an event changed, for the caller to act on.

use crate::stats::Counter;

/// The decisions of one event (a segment or a timer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Outcome {
    /// New bytes can be read.
    pub readable: bool,
    /// The peer acknowledged data: there is more send space.
    pub writable: bool,
    /// The peer's FIN was received in order: reads end here.
    pub peer_fin: bool,
    /// A valid reset: give the connection to the kernel, which reports it.
    pub reset: bool,
    /// Retransmissions, keepalive probes or the user timeout ran out: give the connection to the kernel.
    pub timed_out: bool,
    /// Urgent data. The segment was *not* processed: demote, then give this frame to the kernel too.
    pub urgent: bool,
    /// Both directions are closed for good.
    pub closed: bool,
    /// The size of packets that get through became known: see [`super::Tcb::path_mtu`].
    pub path_mtu: bool,
    /// What to count.
    pub counts: Counts,
}

impl Outcome {
    /// Notes that something has to be counted.
    pub(crate) fn count(&mut self, counter: Counter) {
        self.counts.push(counter);
    }
}

/// A few counters to raise by one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    list: [Option<Counter>; Self::MAX],
}

impl Counts {
    /// No event counts more than this.
    const MAX: usize = 4;

    fn push(&mut self, counter: Counter) {
        let free = self.list.iter_mut().find(|place| place.is_none());
        debug_assert!(free.is_some(), "an event counts at most {} things", Self::MAX);
        if let Some(place) = free {
            *place = Some(counter);
        }
    }

    /// Is there nothing to count?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list[0].is_none()
    }

    /// The counters.
    pub fn iter(&self) -> impl Iterator<Item = Counter> + '_ {
        self.list.iter().map_while(|counter| *counter)
    }
}
