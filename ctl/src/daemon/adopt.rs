//! After a restart: clients hand over again what an earlier daemon made for them.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use underpass_stack::arena::MAX_CONNS;
use underpass_stack::control::{AdoptConn, AdoptPort, MAX_FDS};
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::lane::Reason;

use super::demote::claimed;
use super::eligible::{Endpoints, is_tcp};
use super::repair::in_repair;
use super::reply::{Answer, Refusal, Reply};
use super::session::{Conn, Port};
use super::sockopt::{self, get_int};
use super::state::Daemon;
use crate::net::flow_label::Label;

impl Daemon {
    /// Answers [`AdoptPort`]. The XSKMAP still holds the sockets: nothing is entered on a client's word.
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
        let known = self.session(session)?.port_on(netns, ifindex).is_some();
        let Self { namespaces, home, .. } = self;
        let namespace = namespaces.get_mut(&netns).ok_or(Reason::Failed)?;
        let link = namespace.link(ifindex)?;
        if known || link.xdp.is_none() {
            // Without its program the lane is dead; the client demotes and attaches anew.
            return Err(Reason::LinkDown.into());
        }
        let interface = namespace.interface(&link, home)?;
        if !interface.take_slots_at(ask.xsk_base, ask.queues) {
            return Err(Reason::ProtocolError.into());
        }
        interface.users += 1;
        tracing::info!("session {session}: {} AF_XDP queues on {} taken over", ask.queues, link.name);
        let frame_size = ask.attach.frame_size;
        let port = Port { netns, ifindex, xsk_base: ask.xsk_base, frame_size, rings, queues, umem };
        self.session(session)?.ports.insert(ask.attach.port, port);
        Ok(Reply::done(ask.queues))
    }

    /// Answers [`AdoptConn`].
    pub fn adopt_conn(&mut self, session: u32, ask: &AdoptConn, fds: Vec<OwnedFd>) -> Answer {
        let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Refusal::from(Reason::ProtocolError))?;
        is_tcp(fd.as_fd())?;
        if !in_repair(fd.as_fd())? {
            return Err(Reason::BadImage.into());
        }
        let netns = self.namespace_of(fd.as_fd())?;
        let ends = Endpoints::of(fd.as_fd())?;
        let flow = FlowKey::tcp(ends.local, ends.remote);
        let known = self.session(session)?;
        let record = known.taken_over(ask.slot, ask.generation).ok_or(Reason::BadImage)?;
        let port = known.ports.get(&ask.port).ok_or(Reason::ProtocolError)?;
        let free = (ask.slot as usize) < MAX_CONNS && !known.conns.contains_key(&ask.slot);
        if record.flow != flow || !free || port.netns != netns {
            return Err(Reason::BadImage.into());
        }
        let (ifindex, xsk_base) = (port.ifindex, port.xsk_base);
        let namespace = self.namespaces.get_mut(&netns).ok_or(Reason::LinkDown)?;
        namespace.awake(ifindex)?.steer.redirect(&flow, xsk_base)?;
        // The way as it is now; if there is none, the watch on the network will say so to the client in its own time.
        let ends = Endpoints { label: Label::Fixed(record.path.flow_label), ..ends };
        let way = self.way(netns, &ends).ok().filter(|way| way.path.ifindex == ifindex);
        let mut path = record.path;
        path.ifindex = ifindex;
        let conn = Conn {
            generation: ask.generation,
            cookie: sockopt::get::<u64>(fd.as_fd(), libc::SOL_SOCKET, libc::SO_COOKIE)?.0,
            fd,
            flow,
            netns,
            port: ask.port,
            path: way.as_ref().map_or(path, |way| way.path),
            next_hop: way.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |way| way.next_hop),
            restore: claimed(ask.restore),
            kept: None,
        };
        self.session(session)?.conns.insert(ask.slot, conn);
        Ok(Reply::done(1))
    }
}
