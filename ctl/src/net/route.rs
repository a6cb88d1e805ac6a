//! Which interface and next hop lead to a peer (rtnetlink(7), RTM_GETROUTE).

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::address::{family, from_octets, octets};
use super::netlink::{Attrs, Netlink, Request};

const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_CACHEINFO: u16 = 12;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
const RTAX_MTU: u16 = 2;
const RTAX_HOPLIMIT: u16 = 10;
/// What of the traffic class can choose a route: all but the ECN field.
const DSCP: u8 = 0xfc;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;

/// What kind of destination it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A host that is reached over an interface.
    Unicast,
    /// This host.
    Local,
    /// Something that a lane cannot carry (tunnel encapsulation, an IPv6 next hop of an IPv4 route, blackhole, ...).
    Other,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is at its end.
    pub kind: Kind,
    /// Interface.
    pub ifindex: u32,
    /// Next hop: the gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// The route's own MTU, bytes, if it has one.
    pub mtu: Option<u32>,
    /// The MTU that the kernel has learnt from a router and will forget again, bytes.
    pub learnt_mtu: Option<u32>,
    /// The route's own hop limit, if it has one.
    pub hop_limit: Option<u8>,
}

/// The route that the packets of a TCP connection take.
pub fn lookup(netlink: &mut Netlink, local: SocketAddr, remote: SocketAddr, tos: u8) -> io::Result<Route> {
    let (source, destination) = (octets(local.ip()), octets(remote.ip()));
    let mut body = [0; RTMSG];
    body[0] = family(remote.ip());
    body[1] = 8 * destination.len() as u8;
    body[2] = 8 * source.len() as u8;
    // For IPv4 the kernel refuses TOS values with the bits below the DSCP set.
    body[3] = if remote.is_ipv4() { tos & 0x1c } else { tos & DSCP };
    let request = Request::new(libc::RTM_GETROUTE, 0, &body)
        .attr(RTA_DST, &destination)
        .attr(RTA_SRC, &source)
        .attr(RTA_IP_PROTO, &[libc::IPPROTO_TCP as u8])
        .attr(RTA_SPORT, &local.port().to_be_bytes())
        .attr(RTA_DPORT, &remote.port().to_be_bytes());
    let answers = netlink.request(request)?;
    let found = answers.iter().find(|message| message.kind == libc::RTM_NEWROUTE && message.body.len() >= RTMSG);
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENETUNREACH))?;
    Ok(parse(message.body[7], message.attrs(RTMSG), remote.ip()))
}

fn parse(kind: u8, attrs: Attrs<'_>, remote: IpAddr) -> Route {
    let odd = attrs.find(RTA_ENCAP).is_some() || attrs.find(RTA_VIA).is_some();
    let gateway = attrs.find(RTA_GATEWAY).and_then(from_octets);
    // `rta_expires` of `struct rta_cacheinfo`: set where the metrics are those of an exception.
    let is_learnt = attrs.find(RTA_CACHEINFO).and_then(|info| info.get(8..12)).is_some_and(|expires| expires != [0; 4]);
    let metrics = Attrs::of(attrs.find(RTA_METRICS).unwrap_or_default());
    let mtu = metrics.find_u32(RTAX_MTU).filter(|mtu| *mtu > 0);
    Route {
        kind: match kind {
            RTN_UNICAST if !odd => Kind::Unicast,
            RTN_LOCAL => Kind::Local,
            _ => Kind::Other,
        },
        ifindex: attrs.find_u32(RTA_OIF).unwrap_or(0),
        next_hop: gateway.unwrap_or(remote),
        mtu: mtu.filter(|_| !is_learnt),
        learnt_mtu: mtu.filter(|_| is_learnt),
        hop_limit: metrics
            .find_u32(RTAX_HOPLIMIT)
            .and_then(|limit| u8::try_from(limit).ok())
            .filter(|limit| *limit > 0),
    }
}
