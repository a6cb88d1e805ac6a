//! The orderly end: living clients take their connections back into the kernel first.

use std::time::{Duration, Instant};

use underpass_stack::control::DemoteAsk;
use underpass_stack::lane::Reason;

use super::state::Daemon;

/// How long the clients may take.
const PATIENCE: Duration = Duration::from_secs(3);

impl Daemon {
    /// Asks every client to demote everything. Returns when patience ends.
    pub fn begin_shutdown(&mut self) -> Instant {
        self.grace = None;
        self.ending = true;
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in ids {
            self.tell(id, &DemoteAsk { slot: u32::MAX, reason: Reason::DaemonGone as u16, pad: 0 });
        }
        Instant::now() + PATIENCE
    }

    /// Connections on lanes.
    pub fn connections(&self) -> usize {
        self.sessions.values().map(|session| session.conns.len()).sum()
    }

    /// Takes the programs off the interfaces. Where a client has not demoted, the program stays: its lane goes on, and the next
    /// daemon takes over.
    pub fn finish(&mut self) {
        for session in self.sessions.values() {
            if !session.conns.is_empty() {
                let (pid, count) = (session.peer.pid, session.conns.len());
                tracing::warn!("pid {pid} keeps {count} connections on the lane: left to the next daemon");
                continue;
            }
            for port in session.ports.values() {
                let namespace = self.namespaces.get_mut(&port.netns);
                if let Some(interface) = namespace.and_then(|n| n.interfaces.get_mut(&port.ifindex)) {
                    interface.users = interface.users.saturating_sub(1);
                }
            }
        }
        for namespace in self.namespaces.values_mut() {
            namespace.tidy();
        }
    }
}
