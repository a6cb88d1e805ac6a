//! The kernel sends nothing to the next hops of lanes, so it would forget them, and with them the news that one has moved.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::state::Daemon;
use crate::net::neigh;

/// Shorter than the kernel keeps an unused neighbour (gc_stale_time, arp(7)).
const INTERVAL: Duration = Duration::from_secs(20);

impl Daemon {
    /// When the next hops are due; `None` while no connection is on a lane.
    pub fn neighbours_due(&self) -> Option<Instant> {
        let busy = self.sessions.values().any(|session| !session.conns.is_empty());
        busy.then(|| self.neighbours_touched.map_or_else(Instant::now, |last| last + INTERVAL))
    }

    /// Tells the kernel which next hops are in use.
    pub fn touch_neighbours(&mut self, now: Instant) {
        if self.neighbours_due().is_none_or(|due| due > now) {
            return;
        }
        self.neighbours_touched = Some(now);
        let conns = self.sessions.values().flat_map(|session| session.conns.values());
        let hops: HashSet<_> = conns.map(|conn| (conn.netns, conn.path.ifindex, conn.next_hop)).collect();
        for (netns, ifindex, next_hop) in hops.into_iter().filter(|(_, _, hop)| !hop.is_unspecified()) {
            let Some(namespace) = self.namespaces.get_mut(&netns) else { continue };
            if let Err(error) = neigh::touch(&mut namespace.route, ifindex, next_hop) {
                tracing::debug!("next hop {next_hop} of interface {ifindex}: {error}");
            }
        }
    }
}
