//! Interfaces: what they are, and the XDP program on them (rtnetlink(7), linux/if_link.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{Attrs, Message, Netlink, Request, u16_at, u32_at};

const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_CONF: u16 = 2;
/// Index of the MTU in IFLA_INET6_CONF (DEVCONF_MTU6, linux/ipv6.h).
const DEVCONF_MTU6: usize = 2;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_REPLACE: u32 = 1 << 4;
const ARPHRD_ETHER: u16 = 1;
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// The XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// In the driver, as opposed to generic.
    pub native: bool,
    /// The program's id; 0 when several are attached.
    pub program_id: u32,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// The same for IPv6, which a router can lower; `None` if the interface has no IPv6.
    pub mtu_v6: Option<u32>,
    /// Administratively up with a carrier.
    pub running: bool,
    /// ARPHRD_ETHER.
    pub ethernet: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// What made it (`veth`, `bond`, ...); empty for hardware.
    pub kind: String,
    /// RX queues that the driver allocated; fewer may be in use.
    pub rx_queues: u32,
    /// The XDP program, if there is one.
    pub xdp: Option<AttachedXdp>,
}

/// Looks up an interface by index.
pub fn get(netlink: &mut Netlink, ifindex: u32) -> io::Result<Link> {
    let request = Request::new(libc::RTM_GETLINK, 0, &ifinfomsg(ifindex));
    let answers = netlink.request(request)?;
    answers.iter().find_map(parse).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Reads an RTM_NEWLINK or RTM_DELLINK message.
pub fn parse(message: &Message) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK && message.kind != libc::RTM_DELLINK {
        return None;
    }
    let flags = u32_at(&message.body, 8)? as i32;
    let attrs = message.attrs(IFINFOMSG);
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    let info = Attrs::of(attrs.find(IFLA_LINKINFO).unwrap_or_default());
    let inet6 = Attrs::of(Attrs::of(attrs.find(IFLA_AF_SPEC).unwrap_or_default()).find(AF_INET6).unwrap_or_default());
    Some(Link {
        ifindex: u32_at(&message.body, 4)?,
        name: text(attrs.find(IFLA_IFNAME)),
        kind: text(info.find(IFLA_INFO_KIND)),
        mac: attrs.find(IFLA_ADDRESS).and_then(|a| a.try_into().ok()).unwrap_or_default(),
        mtu: attrs.find_u32(IFLA_MTU).unwrap_or(0),
        mtu_v6: inet6.find(IFLA_INET6_CONF).and_then(|conf| u32_at(conf, 4 * DEVCONF_MTU6)),
        running: flags & wanted == wanted,
        ethernet: u16_at(&message.body, 2)? == ARPHRD_ETHER,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        rx_queues: attrs.find_u32(IFLA_NUM_RX_QUEUES).unwrap_or(1).max(1),
        xdp: attrs.find(IFLA_XDP).and_then(|nested| parse_xdp(Attrs::of(nested))),
    })
}

fn text(attribute: Option<&[u8]>) -> String {
    let bytes = attribute.unwrap_or_default();
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

fn parse_xdp(attrs: Attrs<'_>) -> Option<AttachedXdp> {
    let mode = *attrs.find(IFLA_XDP_ATTACHED)?.first()?;
    let attached =
        AttachedXdp { native: mode == XDP_ATTACHED_DRV, program_id: attrs.find_u32(IFLA_XDP_PROG_ID).unwrap_or(0) };
    (mode != 0).then_some(attached)
}

/// Attaches a program to an interface that has none.
///
/// By netlink and not by a bpf_link, on purpose: the program stays when the daemon is killed, and running lanes go on.
///
/// # Errors
/// `EBUSY` or `EEXIST` if a program is attached, `EOPNOTSUPP` and others if the driver cannot do it in this mode.
pub fn attach_xdp(netlink: &mut Netlink, ifindex: u32, program: BorrowedFd<'_>, native: bool) -> io::Result<()> {
    let flags = XDP_FLAGS_UPDATE_IF_NOEXIST | mode_flag(native);
    let request = Request::new(libc::RTM_SETLINK, 0, &ifinfomsg(ifindex)).nest(IFLA_XDP, |nest| {
        nest.attr(IFLA_XDP_FD, &program.as_raw_fd().to_ne_bytes()).attr(IFLA_XDP_FLAGS, &flags.to_ne_bytes())
    });
    netlink.request(request).map(drop)
}

/// Detaches `program` if it is (still) the attached one.
pub fn detach_xdp(netlink: &mut Netlink, ifindex: u32, program: BorrowedFd<'_>, native: bool) -> io::Result<()> {
    let flags = XDP_FLAGS_REPLACE | mode_flag(native);
    let request = Request::new(libc::RTM_SETLINK, 0, &ifinfomsg(ifindex)).nest(IFLA_XDP, |nest| {
        nest.attr(IFLA_XDP_FD, &(-1i32).to_ne_bytes())
            .attr(IFLA_XDP_FLAGS, &flags.to_ne_bytes())
            .attr(IFLA_XDP_EXPECTED_FD, &program.as_raw_fd().to_ne_bytes())
    });
    netlink.request(request).map(drop)
}

/// Every interface of the namespace.
pub fn list(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let request = Request::new(libc::RTM_GETLINK, super::netlink::DUMP, &ifinfomsg(0));
    Ok(netlink.request(request)?.iter().filter_map(parse).collect())
}

fn mode_flag(native: bool) -> u32 {
    if native { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE }
}

fn ifinfomsg(ifindex: u32) -> [u8; IFINFOMSG] {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    body
}
