//! After a restart: clients hand over again what an earlier daemon made for them.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use underpass_stack::arena::MAX_CONNS;
use underpass_stack::control::{AdoptConn, AdoptPort, MAX_FDS};
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::path::Path;
use underpass_stack::lane::Reason;

use super::attach::{admit, enter_slots_at};
use super::demote::claimed;
use super::eligible::{Endpoints, is_tcp};
use super::repair::in_repair;
use super::reply::{Answer, Refusal, Reply};
use super::session::{Conn, Port};
use super::sockopt::{self, get_int};
use super::state::Daemon;
use crate::net::flow_label::Label;

impl Daemon {
    /// Answers [`AdoptPort`]. Where the program has been taken off meanwhile it comes back. A socket that is not of this queue would receive
    /// nothing (xsk_rcv_check in the kernel), and only its owner would miss it.
    pub fn adopt_port(&mut self, session: u32, ask: &AdoptPort, mut fds: Vec<OwnedFd>) -> Answer {
        if fds.len() < 2 || fds.len() > MAX_FDS || fds.len() - 1 != ask.queues as usize {
            return Err(Reason::ProtocolError.into());
        }
        let queues = fds.split_off(1);
        let umem = fds.pop().ok_or(Reason::ProtocolError)?;
        let (umem, rings) = self.check_attach(session, &ask.attach, umem)?;
        for queue in &queues {
            if get_int(queue.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN)? != libc::AF_XDP {
                return Err(Reason::ProtocolError.into());
            }
        }
        let netns = self.namespace_of(queues[0].as_fd())?;
        let ifindex = ask.attach.ifindex;
        let known = self.session(session)?;
        if known.port_on(netns, ifindex).is_some() {
            return Err(Reason::ProtocolError.into());
        }
        let pid = known.peer.pid;
        self.take_port_back(pid, netns, ifindex);
        let frame_size = ask.attach.frame_size;
        let Self { namespaces, home, settings, .. } = self;
        let namespace = namespaces.get_mut(&netns).ok_or(Reason::Failed)?;
        let link = namespace.link(ifindex)?;
        admit(settings, &link, frame_size)?;
        let interface = namespace.interface(&link, home)?;
        if let Err(refusal) = enter_slots_at(interface, ask.xsk_base, &queues) {
            self.tidy();
            return Err(refusal);
        }
        interface.users += 1;
        tracing::info!("session {session}: {} AF_XDP queues on {} taken over", ask.queues, link.name);
        let port = Port { netns, ifindex, xsk_base: ask.xsk_base, frame_size, rings, queues, umem };
        self.session(session)?.ports.insert(ask.attach.port, port);
        Ok(Reply::done(ask.queues))
    }

    /// Answers [`AdoptConn`]. A connection whose attachment is gone is taken, too: somebody has to give it back to the kernel.
    pub fn adopt_conn(&mut self, session: u32, ask: &AdoptConn, fds: Vec<OwnedFd>) -> Answer {
        let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Refusal::from(Reason::ProtocolError))?;
        is_tcp(fd.as_fd())?;
        if !in_repair(fd.as_fd())? {
            return Err(Reason::BadImage.into());
        }
        let netns = self.namespace_of(fd.as_fd())?;
        let ends = Endpoints::of(fd.as_fd())?;
        let flow = FlowKey::tcp(ends.local, ends.remote);
        let cookie = sockopt::get::<u64>(fd.as_fd(), libc::SOL_SOCKET, libc::SO_COOKIE)?.0;
        let known = self.session(session)?;
        let pid = known.peer.pid;
        let record = known.taken_over(ask.slot, ask.generation).ok_or(Reason::BadImage)?;
        let port = known.ports.get(&ask.port).map(|port| (port.netns, port.ifindex, port.xsk_base));
        let free = (ask.slot as usize) < MAX_CONNS && !known.conns.contains_key(&ask.slot);
        if record.flow != flow || !free || port.is_some_and(|(of, _, _)| of != netns) {
            return Err(Reason::BadImage.into());
        }
        self.take_conn_back(pid, cookie);
        let conn = Conn {
            generation: ask.generation,
            cookie,
            fd,
            flow,
            netns,
            port: ask.port,
            path: port.map_or(record.path, |(_, ifindex, _)| Path { ifindex, ..record.path }),
            next_hop: self.next_hop(netns, &ends, &record.path),
            restore: claimed(ask.restore),
            kept: None,
        };
        self.session(session)?.conns.insert(ask.slot, conn);
        let Some((_, ifindex, xsk_base)) = port else { return Ok(Reply::done(0)) };
        if let Err(refusal) = self.redirect(netns, ifindex, &flow, xsk_base) {
            tracing::warn!("session {session}: {flow:?} is not steered: {refusal}");
            return Ok(Reply::done(0));
        }
        self.look_again(netns, session, ask.slot);
        Ok(Reply::done(1))
    }

    fn redirect(&mut self, netns: u64, ifindex: u32, flow: &FlowKey, xsk_base: u32) -> Result<(), Refusal> {
        let namespace = self.namespaces.get_mut(&netns).ok_or(Reason::LinkDown)?;
        Ok(namespace.awake(ifindex)?.steer.redirect(flow, xsk_base)?)
    }

    /// Whose Ethernet address a path's is, as far as can be told: the kernel may have forgotten it meanwhile.
    fn next_hop(&mut self, netns: u64, ends: &Endpoints, path: &Path) -> IpAddr {
        let ends = Endpoints { label: Label::Fixed(path.flow_label), ..*ends };
        self.way(netns, &ends).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |way| way.next_hop)
    }
}
