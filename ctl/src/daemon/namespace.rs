//! What the daemon keeps of a network namespace: its netlink sockets and accelerated interfaces.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use underpass_stack::lane::Reason;

use super::interface::Interface;
use super::reply::Refusal;
use super::sockopt;
use crate::net::link::{self, Link};
use crate::net::netlink::{Netlink, Protocol};
use crate::net::netns::{Inside, Netns};
use crate::net::{flow_label, icmp, ipsec, watch};

const SO_NETNS_COOKIE: i32 = 71;
/// Values of net.ipv4.tcp_ecn beyond this are about accurate ECN (ip-sysctl.rst).
const LAST_CLASSIC_ECN: u32 = 2;

/// A namespace that some session has sockets in.
pub struct Namespace {
    /// Requests about links, routes, neighbours.
    pub route: Netlink,
    /// Requests about connection tracking.
    pub netfilter: Option<Netlink>,
    /// Notifications.
    pub watch: Netlink,
    /// What routers say; without it, silent losses have to tell.
    pub routers: Option<icmp::Listener>,
    /// Accelerated interfaces by index.
    pub interfaces: HashMap<u32, Interface>,
    netns: Netns,
}

impl Namespace {
    /// Opens the sockets inside `netns`.
    pub fn open(netns: Netns, home: &Netns) -> io::Result<Self> {
        let inside = netns.enter(home)?;
        let route = Netlink::open(Protocol::Route, 0)?;
        let netfilter = Netlink::open(Protocol::Netfilter, 0).ok();
        let watch = watch::subscribe()?;
        let routers = icmp::Listener::open();
        drop(inside);
        if let Err(error) = &routers {
            tracing::warn!("routers that say that packets are too big are not heard: {error}");
        }
        Ok(Self { route, netfilter, watch, routers: routers.ok(), interfaces: HashMap::new(), netns })
    }

    /// Goes inside for a moment.
    pub fn enter<'a>(&self, home: &'a Netns) -> io::Result<Inside<'a>> {
        self.netns.enter(home)
    }

    /// Does an IPsec policy exist here?
    pub fn has_ipsec(&self, home: &Netns) -> io::Result<bool> {
        let _inside = self.enter(home)?;
        ipsec::any_policy()
    }

    /// How flow labels are chosen here.
    pub fn label_policy(&self, home: &Netns) -> io::Result<flow_label::Policy> {
        let _inside = self.enter(home)?;
        Ok(flow_label::Policy::read())
    }

    /// May connections here have negotiated accurate ECN, which looks like the classic kind from outside (net.ipv4.tcp_ecn)?
    pub fn may_have_accurate_ecn(&self, home: &Netns) -> io::Result<bool> {
        let _inside = self.enter(home)?;
        let mode = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_ecn")?;
        Ok(mode.trim().parse().is_ok_and(|mode: u32| mode > LAST_CLASSIC_ECN))
    }

    /// An interface as it is now.
    pub fn link(&mut self, ifindex: u32) -> io::Result<Link> {
        link::get(&mut self.route, ifindex)
    }

    /// The interface with our program on it, which is attached if need be.
    pub fn interface(&mut self, link: &Link, home: &Netns) -> Result<&mut Interface, Refusal> {
        if !self.interfaces.contains_key(&link.ifindex) {
            let _inside = self.netns.enter(home)?;
            let opened = Interface::open(&mut self.route, link)?;
            self.interfaces.insert(link.ifindex, opened);
        }
        self.interfaces.get_mut(&link.ifindex).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV).into())
    }

    /// An interface that carries our program already, with the program awake.
    pub fn awake(&mut self, ifindex: u32) -> Result<&mut Interface, Refusal> {
        let interface = self.interfaces.get_mut(&ifindex).ok_or(Reason::LinkDown)?;
        interface.wake(&mut self.route)?;
        Ok(interface)
    }

    /// Removes the programs that nobody uses. True if none is left.
    pub fn tidy(&mut self) -> bool {
        let unused: Vec<u32> = self.interfaces.iter().filter(|(_, i)| i.users == 0).map(|(index, _)| *index).collect();
        for ifindex in unused {
            let Some(interface) = self.interfaces.remove(&ifindex) else { continue };
            match interface.detach(&mut self.route) {
                Ok(()) => tracing::info!("interface {ifindex}: XDP program detached"),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => tracing::warn!("interface {ifindex}: XDP program not detached: {error}"),
            }
        }
        self.interfaces.is_empty()
    }
}

/// SO_NETNS_COOKIE of a socket: names its namespace for good.
pub fn cookie_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    sockopt::get::<u64>(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE).map(|(cookie, _)| cookie)
}
