//! What a change of the network means for the connections on lanes.

use underpass_stack::control::{DemoteAsk, PathChanged, TooBig};
use underpass_stack::ip::flow::Addr;
use underpass_stack::lane::Reason;

use super::eligible::Endpoints;
use super::path;
use super::session::{Conn, Session};
use super::state::Daemon;
use crate::net::flow_label::Label;
use crate::net::icmp;
use crate::net::watch::{self, Change};

/// What becomes of a connection.
enum Verdict {
    /// Nothing.
    Keep,
    /// Its packets take another path.
    Redirect(underpass_stack::ip::path::Path),
    /// The kernel does better.
    Demote(Reason),
}

impl Daemon {
    /// Reads the notifications of a namespace and tells the clients concerned.
    pub fn network_changed(&mut self, netns: u64) {
        let Some(namespace) = self.namespaces.get(&netns) else { return };
        let claims = namespace.routers.as_ref().map(|routers| routers.heard()).unwrap_or_default();
        for change in watch::changes(&namespace.watch) {
            self.apply(netns, &change);
        }
        for claim in claims {
            self.hand_on(netns, &claim);
        }
    }

    /// Looks what has become of the way of a connection while nobody watched.
    pub fn look_again(&mut self, netns: u64, session: u32, slot: u32) {
        let Some(conn) = self.sessions.get(&session).and_then(|s| s.conns.get(&slot)) else { return };
        let ifindex = conn.path.ifindex;
        let link = self.namespaces.get_mut(&netns).and_then(|namespace| namespace.link(ifindex).ok());
        let change = link.map_or(Change::LinkGone(ifindex), Change::Link);
        for change in [change, Change::Routes] {
            let verdict = self.judge(netns, session, slot, &change);
            self.carry_out(session, slot, verdict);
        }
    }

    /// Tells the owner of a connection what a router says of one of its packets. Whether that can be true the engine knows.
    fn hand_on(&mut self, netns: u64, claim: &icmp::TooBig) {
        let Some(namespace) = self.namespaces.get(&netns) else { return };
        // Cheap, for messages about others' connections or nobody's.
        if !namespace.interfaces.values().any(|interface| interface.steer.holds(&claim.flow)) {
            return;
        }
        let of = |session: &Session| {
            let conn = session.conns.iter().find(|(_, conn)| conn.netns == netns && conn.flow == claim.flow);
            conn.map(|(slot, conn)| (session.id, *slot, conn.generation))
        };
        if let Some((session, slot, generation)) = self.sessions.values().find_map(of) {
            self.tell(session, &TooBig { slot, generation, seq: claim.seq, mtu: claim.mtu });
        }
    }

    fn apply(&mut self, netns: u64, change: &Change) {
        if let Change::LinkGone(ifindex) = change
            && let Some(namespace) = self.namespaces.get_mut(&netns)
        {
            namespace.interfaces.remove(ifindex);
        }
        let concerned: Vec<(u32, u32)> = self
            .sessions
            .values()
            .flat_map(|session| session.conns.iter().map(|(slot, conn)| (session.id, *slot, conn)))
            .filter(|(_, _, conn)| conn.netns == netns)
            .map(|(session, slot, _)| (session, slot))
            .collect();
        for (session, slot) in concerned {
            let verdict = self.judge(netns, session, slot, change);
            self.carry_out(session, slot, verdict);
        }
    }

    fn judge(&mut self, netns: u64, session: u32, slot: u32, change: &Change) -> Verdict {
        let Some(conn) = self.sessions.get(&session).and_then(|s| s.conns.get(&slot)) else { return Verdict::Keep };
        let mine = |ifindex: u32| ifindex == conn.path.ifindex;
        match change {
            Change::LinkGone(ifindex) if mine(*ifindex) => Verdict::Demote(Reason::LinkDown),
            Change::Link(link) if mine(link.ifindex) => {
                if !link.running {
                    Verdict::Demote(Reason::LinkDown)
                } else if link.mtu < conn.path.mtu || !path::fits(link.mtu, frame_size(self, session, conn)) {
                    Verdict::Demote(Reason::Mtu)
                } else if link.mac != conn.path.src_mac {
                    Verdict::Redirect(underpass_stack::ip::path::Path { src_mac: link.mac, ..conn.path })
                } else {
                    Verdict::Keep
                }
            }
            Change::AddressGone(address) if Addr::from(*address) == conn.flow.local => {
                Verdict::Demote(Reason::PathChanged)
            }
            Change::Neighbour(n) if mine(n.ifindex) && n.address == conn.next_hop => match n.mac {
                Some(mac) if mac != conn.path.dst_mac => {
                    Verdict::Redirect(underpass_stack::ip::path::Path { dst_mac: mac, ..conn.path })
                }
                _ => Verdict::Keep,
            },
            Change::Routes => self.look_up_again(netns, session, slot),
            _ => Verdict::Keep,
        }
    }

    fn look_up_again(&mut self, netns: u64, session: u32, slot: u32) -> Verdict {
        let Self { namespaces, sessions, settings, .. } = self;
        let found = sessions.get_mut(&session).and_then(|s| s.conns.get_mut(&slot));
        let (Some(namespace), Some(conn)) = (namespaces.get_mut(&netns), found) else { return Verdict::Keep };
        let ends = endpoints(conn);
        match path::find(namespace, settings, &ends, conn.path.flow_label) {
            Ok(way) if way.path.ifindex != conn.path.ifindex => Verdict::Demote(Reason::PathChanged),
            Ok(way) => {
                conn.next_hop = way.next_hop;
                if way.path == conn.path { Verdict::Keep } else { Verdict::Redirect(way.path) }
            }
            // The kernel has forgotten the peer's Ethernet address, the connection has not.
            Err(refusal) if refusal.reason == Reason::NoNeighbour && is_direct(conn, &ends) => Verdict::Keep,
            Err(_) => Verdict::Demote(Reason::PathChanged),
        }
    }

    fn carry_out(&mut self, session: u32, slot: u32, verdict: Verdict) {
        match verdict {
            Verdict::Keep => {}
            Verdict::Demote(reason) => self.tell(session, &DemoteAsk { slot, reason: reason as u16, pad: 0 }),
            Verdict::Redirect(path) => {
                let conn = self.sessions.get_mut(&session).and_then(|s| s.conns.get_mut(&slot));
                let Some(conn) = conn else { return };
                conn.path = path;
                let generation = conn.generation;
                self.tell(session, &PathChanged { slot, generation, path });
            }
        }
    }
}

/// Is the next hop the peer itself? Then no route can have moved it.
fn is_direct(conn: &Conn, ends: &Endpoints) -> bool {
    conn.next_hop == ends.remote.ip()
}

fn frame_size(daemon: &Daemon, session: u32, conn: &Conn) -> u32 {
    daemon.sessions.get(&session).and_then(|s| s.ports.get(&conn.port)).map_or(0, |port| port.frame_size)
}

/// As they were at the promotion: nothing of this can change on the lane.
fn endpoints(conn: &Conn) -> Endpoints {
    let (local, remote) = (conn.flow.local(), conn.flow.remote());
    let label = Label::Fixed(conn.path.flow_label);
    Endpoints { local, remote, tos: conn.path.tos, ttl: conn.path.ttl, label, ecn: false }
}
