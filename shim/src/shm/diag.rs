//! One question to the kernel: whose is the socket with these addresses? (sock_diag(7))

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use crate::sys;

/// SOCK_DIAG_BY_FAMILY.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_HEADER: usize = 16;
/// Offsets in `struct inet_diag_msg`.
const STATE_AT: usize = 1;
const UID_AT: usize = 64;
/// States of a connection that bytes travel on (<net/tcp_states.h>).
const OPEN: [u8; 4] = [1, 4, 5, 8];

/// The user that owns the TCP socket of this network namespace with these addresses, if there is one.
pub fn owner(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let socket = sys::netlink_socket(libc::NETLINK_SOCK_DIAG).ok()?;
    let request = request(local, remote);
    sys::set_timeouts(socket.as_fd(), 1).ok()?;
    sys::send_with_fds(socket.as_fd(), &request, &[]).ok()?;
    let mut answer = [0; 1024];
    let (len, _) = sys::recv_with_fds(socket.as_fd(), &mut answer, 0).ok()?;
    owner_in(&answer[..len])
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(remote.port().to_be_bytes());
    for addr in [local, remote] {
        let mut ip = [0; 16];
        match addr.ip() {
            IpAddr::V4(v4) => ip[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => ip = v6.octets(),
        }
        body.extend(ip);
    }
    // Any interface, any cookie.
    body.extend(0u32.to_ne_bytes());
    body.extend(u64::MAX.to_ne_bytes());
    let mut message = Vec::new();
    message.extend(((NLMSG_HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn owner_in(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let body = answer.get(NLMSG_HEADER..)?;
    if kind != BY_FAMILY || !OPEN.contains(body.get(STATE_AT)?) {
        return None;
    }
    Some(u32::from_ne_bytes(body.get(UID_AT..UID_AT + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_a_connection_are_found_and_strangers_are_not() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (near, far) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            // SAFETY: no arguments.
            let me = unsafe { libc::geteuid() };
            assert_eq!(owner(near, far), Some(me));
            assert_eq!(owner(far, near), Some(me));
            drop((client, server, listener));
        }
        assert_eq!(owner("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()), None);
    }
}
