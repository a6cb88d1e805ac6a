//! A client and what the daemon holds for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use underpass_stack::arena::{ConnRecord, Phase, conn_offset};
use underpass_stack::control::Restore;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::path::Path;
use underpass_stack::mem::Region;
use underpass_stack::xsk::RingSizes;

use super::repair::Dump;

/// Flows whose late frames may still be injected.
const RECENT: usize = 4096;
/// How late a frame may be.
const LATE: Duration = Duration::from_secs(5);

/// Who a client is, by SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In the daemon's pid namespace.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
}

/// A client's connection to the daemon.
pub struct Session {
    /// Its number.
    pub id: u32,
    /// Requests and answers.
    pub socket: OwnedFd,
    /// Readable when the client is dead, even if a child still holds its sockets. Before Linux 6.5 there is none.
    pub pidfd: Option<OwnedFd>,
    /// Where unasked messages go, once it has said [`underpass_stack::control::Hello`].
    pub events: Option<OwnedFd>,
    /// Who it is.
    pub peer: Peer,
    /// Its stack's state, once it has said hello.
    pub arena: Option<Region>,
    /// Its attachments.
    pub ports: BTreeMap<u32, Port>,
    /// Its connections on the lane, by slot.
    pub conns: BTreeMap<u32, Conn>,
    /// Flows that it had.
    pub recent: Recent,
    /// It has hung up but lives; when that was looked at last.
    pub absent_since: Option<Instant>,
}

/// AF_XDP sockets of a session on one interface.
pub struct Port {
    /// The namespace's cookie.
    pub netns: u64,
    /// Interface.
    pub ifindex: u32,
    /// First XSKMAP slot.
    pub xsk_base: u32,
    /// Bytes of one frame.
    pub frame_size: u32,
    /// Ring sizes.
    pub rings: RingSizes,
    /// The sockets, in queue order.
    pub queues: Vec<OwnedFd>,
    /// The frames.
    pub umem: Region,
}

/// A connection on the lane.
pub struct Conn {
    /// Its slot's generation.
    pub generation: u32,
    /// The kernel socket, in repair mode.
    pub fd: OwnedFd,
    /// SO_COOKIE.
    pub cookie: u64,
    /// Its addresses; a demotion restores no others.
    pub flow: FlowKey,
    /// The namespace's cookie.
    pub netns: u64,
    /// Attachment.
    pub port: u32,
    /// How packets reach the peer.
    pub path: Path,
    /// Whose Ethernet address `path.dst_mac` is.
    pub next_hop: IpAddr,
    /// What promotion changed on the socket.
    pub restore: Restore,
    /// What was read from the kernel, until the stack has taken it over.
    pub kept: Option<Kept>,
}

/// A connection between kernel and stack.
pub struct Kept {
    /// All of it.
    pub dump: Dump,
    /// Were the kernel's queues emptied?
    pub hollowed: bool,
}

impl Session {
    /// A copy of a connection's record. What it says is a claim.
    pub fn record(&self, slot: u32) -> Option<ConnRecord> {
        self.arena.as_ref()?.read(conn_offset(slot)?)
    }

    /// The record of a connection that the stack runs or has frozen.
    pub fn taken_over(&self, slot: u32, generation: u32) -> Option<ConnRecord> {
        let record = self.record(slot)?;
        let runs = matches!(Phase::from_raw(record.phase), Phase::Live | Phase::Frozen);
        (runs && record.generation == generation).then_some(record)
    }

    /// Lets go of what was kept for connections that the stack has taken over meanwhile.
    pub fn drop_kept(&mut self) {
        let waiting: Vec<(u32, u32)> =
            self.conns.iter().filter(|(_, c)| c.kept.is_some()).map(|(slot, c)| (*slot, c.generation)).collect();
        for (slot, generation) in waiting {
            if self.taken_over(slot, generation).is_some()
                && let Some(conn) = self.conns.get_mut(&slot)
            {
                conn.kept = None;
            }
        }
    }

    /// The attachment to an interface.
    pub fn port_on(&self, netns: u64, ifindex: u32) -> Option<(u32, &Port)> {
        self.ports.iter().find(|(_, p)| p.netns == netns && p.ifindex == ifindex).map(|(number, p)| (*number, p))
    }
}

/// Flows that a session had, the oldest forgotten first.
#[derive(Debug, Default)]
pub struct Recent {
    order: VecDeque<(u64, FlowKey)>,
    until: HashMap<(u64, FlowKey), Instant>,
}

impl Recent {
    /// Remembers a flow of a namespace. Its addresses may soon be somebody else's, so not for long.
    pub fn add(&mut self, netns: u64, flow: FlowKey, now: Instant) {
        let key = (netns, flow);
        if self.until.insert(key, now + LATE).is_some() {
            self.order.retain(|known| *known != key);
        }
        self.order.push_back(key);
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// Was this flow the session's a moment ago?
    pub fn contains(&self, netns: u64, flow: &FlowKey, now: Instant) -> bool {
        self.until.get(&(netns, *flow)).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_flow_is_forgotten_first() {
        let flow = |n: usize| FlowKey { local_port: (n as u16).to_be_bytes(), ..FlowKey::default() };
        let now = Instant::now();
        let mut recent = Recent::default();
        (0..=RECENT).for_each(|n| recent.add(1, flow(n), now));
        assert!(!recent.contains(1, &flow(0), now));
        assert!(recent.contains(1, &flow(1), now) && recent.contains(1, &flow(RECENT), now));
        assert!(!recent.contains(2, &flow(1), now));
        recent.add(1, flow(1), now + LATE);
        assert!(recent.contains(1, &flow(1), now + LATE) && !recent.contains(1, &flow(2), now + LATE));
        assert_eq!((recent.order.len(), recent.until.len()), (RECENT, RECENT));
    }
}
