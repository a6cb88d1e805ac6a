//! Two questions to the kernel by netlink(7): which XDP program is on an interface (rtnetlink(7), IFLA_XDP), and what the
//! driver says it can do (the `netdev` family, Linux Documentation/netlink/specs/netdev.yaml).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_HEADER: usize = 16;

const RTM_GETLINK: u16 = 18;
const IFINFO_LEN: usize = 16;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const GENL_HEADER: usize = 4;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// What a driver offers (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// XDP in the driver, with redirection.
    pub fn native(self) -> bool {
        self.0 & 0b11 == 0b11
    }

    /// AF_XDP without copies.
    pub fn zero_copy(self) -> bool {
        self.0 & 1 << 3 != 0
    }
}

/// Id of the XDP program on an interface; `None`: there is none, or the kernel does not tell.
pub fn xdp_program(ifindex: u32) -> Option<u32> {
    let mut ifinfo = [0; IFINFO_LEN];
    ifinfo[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let answer = ask(SockProtocol::NetlinkRoute, RTM_GETLINK, &ifinfo)?;
    let xdp = attribute(answer.get(IFINFO_LEN..)?, IFLA_XDP)?;
    Some(u32_of(attribute(xdp, IFLA_XDP_PROG_ID)?)?).filter(|&id| id != 0)
}

/// What the driver of an interface can do; `None` before Linux 6.3, which does not tell.
pub fn features(ifindex: u32) -> Option<Features> {
    let family = ask_generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0")?;
    let id = attribute(&family, CTRL_ATTR_FAMILY_ID)?;
    let id = u16::from_ne_bytes(id.get(..2)?.try_into().ok()?);
    let device = ask_generic(id, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes())?;
    let bits = attribute(&device, NETDEV_A_DEV_XDP_FEATURES)?;
    Some(Features(u64::from_ne_bytes(bits.get(..8)?.try_into().ok()?)))
}

/// A generic netlink request with one attribute; the answer's attributes.
fn ask_generic(family: u16, command: u8, attribute: u16, value: &[u8]) -> Option<Vec<u8>> {
    let mut body = vec![command, 1, 0, 0];
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(attribute.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let answer = ask(SockProtocol::NetlinkGeneric, family, &body)?;
    answer.get(GENL_HEADER..).map(<[u8]>::to_vec)
}

/// Sends one request and returns the body of its answer.
fn ask(protocol: SockProtocol, kind: u16, body: &[u8]) -> Option<Vec<u8>> {
    let socket = open(protocol)?;
    let mut request = Vec::new();
    request.extend(((NLMSG_HEADER + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).ok()?;
    let mut answer = vec![0; 64 << 10];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    answer.truncate(len);
    let claimed = u32_of(&answer)? as usize;
    let answered = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if answered == NLMSG_ERROR {
        return None;
    }
    answer.get(NLMSG_HEADER..claimed).map(<[u8]>::to_vec)
}

fn open(protocol: SockProtocol) -> Option<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).ok()?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(2)).ok()?;
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).ok()?;
    Some(socket)
}

/// The value of the first attribute of this kind. NLA_F_NESTED and NLA_F_NET_BYTEORDER are flags in the kind.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        let value = bytes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernel_answers_for_the_loopback_interface() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let mut ifinfo = [0; IFINFO_LEN];
        ifinfo[4..8].copy_from_slice(&index.to_ne_bytes());
        let answer = ask(SockProtocol::NetlinkRoute, RTM_GETLINK, &ifinfo).unwrap();
        // IFLA_IFNAME
        assert_eq!(attribute(&answer[IFINFO_LEN..], 3), Some(&b"lo\0"[..]));
        assert!(ask(SockProtocol::NetlinkRoute, RTM_GETLINK, &[0xff; IFINFO_LEN]).is_none());
    }

    proptest! {
        #[test]
        fn any_attributes_are_walked_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in any::<u16>()) {
            if let Some(value) = attribute(&bytes, kind) {
                prop_assert!(value.len() + 4 <= bytes.len());
            }
        }
    }
}
