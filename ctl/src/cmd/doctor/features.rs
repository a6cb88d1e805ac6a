//! What a driver says it can do: the `netdev` family of generic netlink (Linux 6.3,
//! Documentation/netlink/specs/netdev.yaml).

use underpass_ctl::net::netlink::{Message, Netlink, Protocol, Request, u16_at};

/// GENL_ID_CTRL and the question for a family's number, linux/genetlink.h.
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`.
const HEADER: usize = 4;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// What a driver offers: bits of `enum netdev_xdp_act`.
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

/// What the driver of an interface can do; `None` before Linux 6.3, which does not tell.
pub fn features(ifindex: u32) -> Option<Features> {
    let mut netlink = Netlink::open(Protocol::Generic, 0).ok()?;
    let family = ask(&mut netlink, CONTROL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0")?;
    let number = u16_at(family.attrs(HEADER).find(CTRL_ATTR_FAMILY_ID)?, 0)?;
    let device = ask(&mut netlink, number, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes())?;
    let bits = device.attrs(HEADER).find(NETDEV_A_DEV_XDP_FEATURES)?;
    Some(Features(u64::from_ne_bytes(bits.get(..8)?.try_into().ok()?)))
}

fn ask(netlink: &mut Netlink, family: u16, command: u8, attribute: u16, value: &[u8]) -> Option<Message> {
    let request = Request::new(family, 0, &[command, 1, 0, 0]).attr(attribute, value);
    netlink.request(request).ok()?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_mean_what_the_kernel_says() {
        assert!(Features(0b11).native() && !Features(0b11).zero_copy());
        assert!(!Features(0b01).native() && Features(0b1000).zero_copy());
    }

    #[test]
    fn an_interface_that_does_not_exist_has_none() {
        assert_eq!(features(u32::MAX >> 1), None);
    }
}
