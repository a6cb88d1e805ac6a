//! How the packets of a connection reach its peer, and whether a lane may carry them.

use std::net::{IpAddr, SocketAddr};

use underpass_stack::ip::path::Path;
use underpass_stack::lane::Reason;

use super::eligible::Endpoints;
use super::namespace::Namespace;
use super::reply::Refusal;
use super::settings::Settings;
use crate::net::link::Link;
use crate::net::route::{self, Kind};
use crate::net::{conntrack, neigh};
use crate::steer::inject::MAX_FRAME;

/// Bytes of a frame that are not IP packet: XDP's headroom, the Ethernet header, a VLAN tag.
const OVERHEAD: u32 = 256 + ETHERNET;
/// Of these, the Ethernet header and the VLAN tag.
const ETHERNET: u32 = 14 + 4;
/// Largest packet that can go back to the kernel when it came too late for the lane.
const MAX_MTU: u32 = MAX_FRAME as u32 - ETHERNET;

/// Where a connection's packets go.
#[derive(Clone, Debug)]
pub struct Way {
    /// For the stack.
    pub path: Path,
    /// Whose Ethernet address `path.dst_mac` is.
    pub next_hop: IpAddr,
    /// The interface.
    pub link: Link,
}

/// Finds the way of a connection's packets, which have this flow label.
pub fn find(namespace: &mut Namespace, settings: &Settings, ends: &Endpoints, label: u32) -> Result<Way, Refusal> {
    let route = route::lookup(&mut namespace.route, ends.local, ends.remote, ends.tos)
        .map_err(|error| Refusal { reason: Reason::NoRoute, errno: error.raw_os_error().unwrap_or(0) })?;
    match route.kind {
        Kind::Unicast => {}
        Kind::Local => return Err(Reason::Loopback.into()),
        Kind::Other => return Err(Reason::NoRoute.into()),
    }
    let link = namespace.link(route.ifindex)?;
    is_usable(&link, settings)?;
    let mac = neigh::resolve(&mut namespace.route, route.ifindex, route.next_hop)?;
    let largest = if ends.remote.is_ipv4() { link.mtu } else { link.mtu.min(link.mtu_v6.unwrap_or(u32::MAX)) };
    let path = Path {
        ifindex: route.ifindex,
        mtu: route.mtu.unwrap_or(largest).min(largest),
        flow_label: label,
        known_mtu: route.learnt_mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(0),
        src_mac: link.mac,
        dst_mac: mac.ok_or(Reason::NoNeighbour)?,
        // Of an IPv6 socket the kernel tells the limit that counts, the route's included.
        ttl: if ends.remote.is_ipv4() { route.hop_limit.unwrap_or(ends.ttl) } else { ends.ttl },
        tos: ends.tos,
        pad: [0; 4],
    };
    Ok(Way { path, next_hop: route.next_hop, link })
}

fn is_usable(link: &Link, settings: &Settings) -> Result<(), Refusal> {
    if link.loopback {
        return Err(Reason::Loopback.into());
    }
    if !link.ethernet {
        return Err(Reason::NotEthernet.into());
    }
    if !link.running {
        return Err(Reason::LinkDown.into());
    }
    if !settings.admits(&link.name) {
        return Err(Reason::InterfaceExcluded.into());
    }
    if link.mtu > MAX_MTU { Err(Reason::Mtu.into()) } else { Ok(()) }
}

/// Does a packet of `mtu` bytes fit into a frame of this size?
pub fn fits(mtu: u32, frame_size: u32) -> bool {
    mtu.saturating_add(OVERHEAD) <= frame_size
}

/// Makes sure that connection tracking will go on accepting the connection's packets.
pub fn square_conntrack(namespace: &mut Namespace, local: SocketAddr, remote: SocketAddr) -> Result<(), Refusal> {
    let Some(netfilter) = namespace.netfilter.as_mut() else { return Ok(()) };
    match conntrack::lookup(netfilter, local, remote)? {
        conntrack::Tracking::Untracked => Ok(()),
        conntrack::Tracking::Translated => Err(Reason::Nat.into()),
        conntrack::Tracking::Plain => Ok(conntrack::be_liberal(netfilter, local, remote)?),
    }
}
