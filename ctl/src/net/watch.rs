//! What changes in a namespace that may move a connection's path.

use std::io;
use std::net::IpAddr;

use super::address::from_octets;
use super::link::{self, Link};
use super::neigh::{self, Neighbour};
use super::netlink::{Message, Netlink, Protocol};

const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE (linux/rtnetlink.h).
const GROUPS_V4: u32 = 0x01 | 0x04 | 0x10 | 0x40 | 0x80;
/// RTMGRP_IPV6_IFADDR, IPV6_ROUTE, IPV6_IFINFO, and RTNLGRP_IPV6_RULE, the nineteenth.
const GROUPS_V6: u32 = 0x100 | 0x400 | 0x800 | 1 << 18;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A neighbour's entry changed.
    Neighbour(Neighbour),
    /// An address was taken from an interface.
    AddressGone(IpAddr),
    /// Routes or rules changed, or notifications were lost: look everything up again.
    Routes,
}

/// Subscribes to the changes of the calling thread's namespace.
pub fn subscribe() -> io::Result<Netlink> {
    Netlink::open(Protocol::Route, GROUPS_V4 | GROUPS_V6)
}

/// The changes since the last call.
pub fn changes(netlink: &Netlink) -> Vec<Change> {
    let mut out = Vec::new();
    loop {
        match netlink.notifications() {
            Ok(messages) => out.extend(messages.iter().filter_map(change_of)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => out.push(Change::Routes),
            Err(_) => break,
        }
    }
    // A burst of route messages (a routing daemon starts) is one look-up.
    let mut routes_seen = false;
    out.retain(|change| *change != Change::Routes || !std::mem::replace(&mut routes_seen, true));
    out
}

fn change_of(message: &Message) -> Option<Change> {
    match message.kind {
        // What routers say of a link (its MTU) comes as a link message of IPv6's.
        libc::RTM_NEWLINK if message.body.first() == Some(&(libc::AF_INET6 as u8)) => Some(Change::Routes),
        libc::RTM_NEWLINK => link::parse(message).map(Change::Link),
        libc::RTM_DELLINK => link::parse(message).map(|link| Change::LinkGone(link.ifindex)),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neigh::parse(message).map(Change::Neighbour),
        libc::RTM_DELADDR => {
            let attrs = message.attrs(IFADDRMSG);
            // IPv6 has the first only where there is a peer's address beside.
            let local = attrs.find(IFA_LOCAL).or_else(|| attrs.find(IFA_ADDRESS))?;
            from_octets(local).map(Change::AddressGone)
        }
        libc::RTM_NEWADDR => None,
        _ => Some(Change::Routes),
    }
}
