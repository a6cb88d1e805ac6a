//! An XDP program on a veth slows everything else that its peer sends, so it leaves while no flow is steered.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::state::Daemon;

/// So long after its last flow.
const REST_AFTER: Duration = Duration::from_secs(2);

impl Daemon {
    /// When a program may leave its interface next.
    pub fn rest_due(&self) -> Option<Instant> {
        let interfaces = self.namespaces.values().flat_map(|namespace| namespace.interfaces.values());
        let idle = interfaces.filter(|interface| interface.can_rest()).filter_map(|interface| interface.idle_since);
        idle.min().map(|since| since + REST_AFTER)
    }

    /// Notes which interfaces steer nothing, and takes the programs off those that have done so for a while. Not during the grace time:
    /// their flows' owners may yet come back.
    pub fn rest_idle(&mut self, now: Instant) {
        if self.grace.is_some() {
            return;
        }
        let conns = self.sessions.values().flat_map(|session| session.conns.values());
        let busy: HashSet<(u64, u32)> = conns.map(|conn| (conn.netns, conn.path.ifindex)).collect();
        for (&cookie, namespace) in &mut self.namespaces {
            for (&ifindex, interface) in &mut namespace.interfaces {
                if !interface.can_rest() || busy.contains(&(cookie, ifindex)) {
                    interface.idle_since = None;
                    continue;
                }
                if *interface.idle_since.get_or_insert(now) + REST_AFTER > now {
                    continue;
                }
                match interface.rest(&mut namespace.route) {
                    Ok(()) => tracing::info!("interface {ifindex}: nothing to steer, the XDP program rests"),
                    Err(error) => tracing::warn!("interface {ifindex}: XDP program not detached: {error}"),
                }
            }
        }
    }
}
