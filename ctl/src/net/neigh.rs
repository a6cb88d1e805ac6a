//! Ethernet addresses of next hops: ARP, Neighbor Discovery (arp(7), RFC 4861, RTM_GETNEIGH).

use std::io;
use std::net::IpAddr;

use super::address::{family, from_octets, octets};
use super::netlink::{CREATE, Message, Netlink, REPLACE, Request, u16_at, u32_at};

const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// NUD_REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: the address may be used.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// The entry is used: start resolving it.
const NTF_USE: u8 = 1;

/// A neighbour of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, if it is known.
    pub mac: Option<[u8; 6]>,
}

/// The Ethernet address of a next hop. `None`: not known, and the kernel was asked to find it out.
pub fn resolve(netlink: &mut Netlink, ifindex: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let request = Request::new(libc::RTM_GETNEIGH, 0, &ndmsg(ifindex, address, 0)).attr(NDA_DST, &octets(address));
    let known = match netlink.request(request) {
        Ok(answers) => answers.iter().find_map(parse).and_then(|neighbour| neighbour.mac),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => return Err(error),
    };
    if known.is_none() {
        touch(netlink, ifindex, address)?;
    }
    Ok(known)
}

/// Tells the kernel that a next hop is in use: it finds out or confirms its Ethernet address, and does not forget it for a while.
pub fn touch(netlink: &mut Netlink, ifindex: u32, address: IpAddr) -> io::Result<()> {
    let request = Request::new(libc::RTM_NEWNEIGH, CREATE | REPLACE, &ndmsg(ifindex, address, NTF_USE));
    netlink.request(request.attr(NDA_DST, &octets(address))).map(drop)
}

/// Reads an RTM_NEWNEIGH or RTM_DELNEIGH message of a host.
pub fn parse(message: &Message) -> Option<Neighbour> {
    let ours = message.kind == libc::RTM_NEWNEIGH || message.kind == libc::RTM_DELNEIGH;
    let attrs = message.attrs(NDMSG);
    let address = from_octets(attrs.find(NDA_DST)?)?;
    // Bridges tell of their ports in the same way.
    if !ours || *message.body.first()? != family(address) {
        return None;
    }
    let usable = message.kind == libc::RTM_NEWNEIGH && u16_at(&message.body, 8)? & USABLE != 0;
    let mac = attrs.find(NDA_LLADDR).and_then(|mac| mac.try_into().ok());
    Some(Neighbour { ifindex: u32_at(&message.body, 4)?, address, mac: mac.filter(|_| usable) })
}

fn ndmsg(ifindex: u32, address: IpAddr, flags: u8) -> [u8; NDMSG] {
    let mut body = [0; NDMSG];
    body[0] = family(address);
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    body[10] = flags;
    body
}
