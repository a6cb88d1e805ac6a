//! The kernel's own list of TCP sockets: `/proc/PID/net/tcp` and `tcp6`, proc_pid_net(5).

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the kernel says of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSocket {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// The kernel's state number (`include/net/tcp_states.h`).
    pub state: u8,
    /// Bytes sent and not acknowledged, or not sent.
    pub send_queue: u32,
    /// Bytes not read; for a listening socket, connections not accepted.
    pub recv_queue: u32,
}

impl KernelSocket {
    /// TCP_ESTABLISHED.
    pub const ESTABLISHED: u8 = 1;
    /// TCP_LISTEN.
    pub const LISTEN: u8 = 10;

    /// The state's name, as ss(8) shows it.
    pub fn state_name(&self) -> &'static str {
        state_name(self.state)
    }
}

/// Name of a kernel TCP state.
fn state_name(state: u8) -> &'static str {
    match state {
        1 => "ESTAB",
        2 => "SYN-SENT",
        3 => "SYN-RECV",
        4 => "FIN-WAIT-1",
        5 => "FIN-WAIT-2",
        6 => "TIME-WAIT",
        7 => "CLOSED",
        8 => "CLOSE-WAIT",
        9 => "LAST-ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        12 => "NEW-SYN-RECV",
        _ => "UNKNOWN",
    }
}

/// The TCP sockets of the network namespace of a process, by inode. An unreadable list is an empty one.
pub fn sockets(pid: u32) -> HashMap<u64, KernelSocket> {
    let lists = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    lists.iter().flat_map(|list| list.lines().skip(1)).filter_map(parse_line).collect()
}

/// One line: `sl local remote st tx:rx tr:when retrnsmt uid timeout inode …`.
fn parse_line(line: &str) -> Option<(u64, KernelSocket)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (tx, rx) = fields.get(4)?.split_once(':')?;
    let socket = KernelSocket {
        local: parse_address(fields.get(1)?)?,
        remote: parse_address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        send_queue: u32::from_str_radix(tx, 16).ok()?,
        recv_queue: u32::from_str_radix(rx, 16).ok()?,
    };
    Some((fields.get(9)?.parse().ok()?, socket))
}

/// `0100007F:1F90`: the address as words of the machine's byte order, the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut octets = [0; 16];
            octets.chunks_exact_mut(4).zip(words).for_each(|(out, word)| out.copy_from_slice(&word));
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
    }

    /// The kernel is the oracle: sockets made here must be listed as they are.
    #[test]
    fn the_kernels_list_shows_our_sockets() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let list = sockets(std::process::id());
            let (server, client_row) = (list[&inode(&listener)], list[&inode(&client)]);
            assert_eq!((server.local, server.state_name()), (listener.local_addr().unwrap(), "LISTEN"));
            assert_eq!(client_row.local, client.local_addr().unwrap());
            assert_eq!(client_row.remote, client.peer_addr().unwrap());
            assert_eq!(client_row.state, KernelSocket::ESTABLISHED);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_or_refused(line in "[ -~]{0,200}") {
            let _ = parse_line(&line);
        }

        #[test]
        fn any_address_is_parsed_or_refused(text in "[0-9A-Fa-f:\u{e9}]{0,60}") {
            let _ = parse_address(&text);
        }
    }
}
