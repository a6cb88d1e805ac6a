//! What changes in a namespace that may move a connection's path.

use std::io;
use std::net::Ipv4Addr;

use super::link::{self, Link};
use super::neigh::{self, Neighbour};
use super::netlink::{Message, Netlink, Protocol};

const IFADDRMSG: usize = 8;
const IFA_LOCAL: u16 = 2;
/// RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE (linux/rtnetlink.h).
const GROUPS: u32 = 0x01 | 0x04 | 0x10 | 0x40 | 0x80;

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
    AddressGone(Ipv4Addr),
    /// Routes or rules changed, or notifications were lost: look everything up again.
    Routes,
}

/// Subscribes to the changes of the calling thread's namespace.
pub fn subscribe() -> io::Result<Netlink> {
    Netlink::open(Protocol::Route, GROUPS)
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
        libc::RTM_NEWLINK => link::parse(message).map(Change::Link),
        libc::RTM_DELLINK => link::parse(message).map(|link| Change::LinkGone(link.ifindex)),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neigh::parse(message).map(Change::Neighbour),
        libc::RTM_DELADDR => {
            let local = message.attrs(IFADDRMSG).find(IFA_LOCAL)?;
            Some(Change::AddressGone(<[u8; 4]>::try_from(local).ok()?.into()))
        }
        libc::RTM_NEWADDR => None,
        _ => Some(Change::Routes),
    }
}
