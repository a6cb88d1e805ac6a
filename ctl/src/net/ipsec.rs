//! Does IPsec touch a namespace's packets? (XFRM_MSG_GETPOLICY, linux/xfrm.h)

use std::io;

use super::netlink::{DUMP, Netlink, Protocol, Request};

const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// `struct xfrm_userpolicy_id`.
const POLICY_ID: usize = 64;

/// Is there any policy in the calling thread's namespace? Coarse on purpose: with IPsec in use, connections stay in the
/// kernel. A kernel without IPsec has none.
pub fn any_policy() -> io::Result<bool> {
    let Ok(mut netlink) = Netlink::open(Protocol::Xfrm, 0) else { return Ok(false) };
    match netlink.request(Request::new(XFRM_MSG_GETPOLICY, DUMP, &[0; POLICY_ID])) {
        Ok(answers) => Ok(answers.iter().any(|message| message.kind == XFRM_MSG_NEWPOLICY)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::EOPNOTSUPP | libc::EINVAL)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
