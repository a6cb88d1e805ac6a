//! Connection tracking (ctnetlink, linux/netfilter/nfnetlink_conntrack.h).

use std::io;
use std::net::SocketAddr;

use super::address::{family, octets};
use super::netlink::{Attrs, Netlink, Request};

const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = 1 << 8 | 1;
/// Bytes of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
const CTA_TIMEOUT: u16 = 7;
/// IPS_SRC_NAT and IPS_DST_NAT.
const NAT: u32 = 1 << 4 | 1 << 5;
/// IP_CT_TCP_FLAG_BE_LIBERAL.
const BE_LIBERAL: u8 = 0x08;
/// The kernel's own timeout of an established connection (nf_conntrack_tcp_timeout_established), seconds.
const KEEP_SECONDS: u32 = 432_000;

/// What connection tracking knows of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Nothing.
    Untracked,
    /// An entry without translation.
    Plain,
    /// An entry whose addresses or ports are translated.
    Translated,
}

/// Looks a connection up. A kernel without ctnetlink counts as untracked.
pub fn lookup(netlink: &mut Netlink, local: SocketAddr, remote: SocketAddr) -> io::Result<Tracking> {
    let request = about(CT_GET, local, remote);
    let answers = match netlink.request(request) {
        Ok(answers) => answers,
        Err(error) if absent(&error) => return Ok(Tracking::Untracked),
        Err(error) => return Err(error),
    };
    let Some(entry) = answers.first() else { return Ok(Tracking::Untracked) };
    let status = entry.attrs(NFGENMSG).find(CTA_STATUS).and_then(|s| <[u8; 4]>::try_from(s).ok());
    let translated = status.is_some_and(|s| u32::from_be_bytes(s) & NAT != 0);
    Ok(if translated { Tracking::Translated } else { Tracking::Plain })
}

/// Makes the entry liberal in both directions and long-lived: while a lane carries the connection no packet of it is
/// seen, and afterwards none must be judged by a window long past.
pub fn be_liberal(netlink: &mut Netlink, local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
    let flags = [BE_LIBERAL, BE_LIBERAL];
    let request =
        about(CT_NEW, local, remote).attr(CTA_TIMEOUT, &KEEP_SECONDS.to_be_bytes()).nest(CTA_PROTOINFO, |info| {
            info.nest(CTA_PROTOINFO_TCP, |tcp| {
                tcp.attr(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &flags).attr(CTA_PROTOINFO_TCP_FLAGS_REPLY, &flags)
            })
        });
    match netlink.request(request) {
        Err(error) if !absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Is an entry liberal in both directions? `None` without an entry.
pub fn is_liberal(netlink: &mut Netlink, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<bool>> {
    let request = about(CT_GET, local, remote);
    let answers = match netlink.request(request) {
        Err(error) if absent(&error) => return Ok(None),
        other => other?,
    };
    let Some(entry) = answers.first() else { return Ok(None) };
    let info = Attrs::of(entry.attrs(NFGENMSG).find(CTA_PROTOINFO).unwrap_or_default());
    let tcp = Attrs::of(info.find(CTA_PROTOINFO_TCP).unwrap_or_default());
    let both = [CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY];
    Ok(Some(both.iter().all(|kind| tcp.find(*kind).and_then(|f| f.first()).is_some_and(|f| f & BE_LIBERAL != 0))))
}

/// A request about the entry of a connection.
fn about(kind: u16, local: SocketAddr, remote: SocketAddr) -> Request {
    let (source, destination) =
        if local.is_ipv4() { (CTA_IP_V4_SRC, CTA_IP_V4_DST) } else { (CTA_IP_V6_SRC, CTA_IP_V6_DST) };
    Request::new(kind, 0, &[family(local.ip()), 0, 0, 0]).nest(CTA_TUPLE_ORIG, |tuple| {
        tuple
            .nest(CTA_TUPLE_IP, |ip| ip.attr(source, &octets(local.ip())).attr(destination, &octets(remote.ip())))
            .nest(CTA_TUPLE_PROTO, |proto| {
                proto
                    .attr(CTA_PROTO_NUM, &[libc::IPPROTO_TCP as u8])
                    .attr(CTA_PROTO_SRC_PORT, &local.port().to_be_bytes())
                    .attr(CTA_PROTO_DST_PORT, &remote.port().to_be_bytes())
            })
    })
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ECONNREFUSED | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EINVAL)
    )
}
