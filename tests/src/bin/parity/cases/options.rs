//! Socket options and names. What TCP_INFO says has a file of its own, and so has TCP_NOTSENT_LOWAT.

use libc::{IPPROTO_IP, IPPROTO_TCP, SOL_SOCKET};

use super::group;
use crate::session::Session;
use crate::sys::{fds, io, shown, sock};

group!("options":
    names socket_level tcp_level ip_level buffers states keepalive maximum_segment lengths unknown congestion wrong_calls
    lingering timeouts_read_back after_the_end quickack user_timeout nodelay_and_traffic mark_and_priority;
    set_before_traffic
);

fn names(s: &mut Session) {
    s.say("own", format!("{:?}", sock::getsockname(s.fd)));
    s.say("peer", format!("{:?}", sock::getpeername(s.fd)));
}

fn socket_level(s: &mut Session) {
    let readable = [
        ("SO_TYPE", libc::SO_TYPE),
        ("SO_DOMAIN", libc::SO_DOMAIN),
        ("SO_PROTOCOL", libc::SO_PROTOCOL),
        ("SO_ACCEPTCONN", libc::SO_ACCEPTCONN),
        ("SO_ERROR", libc::SO_ERROR),
        ("SO_KEEPALIVE", libc::SO_KEEPALIVE),
        ("SO_REUSEADDR", libc::SO_REUSEADDR),
        ("SO_REUSEPORT", libc::SO_REUSEPORT),
        ("SO_OOBINLINE", libc::SO_OOBINLINE),
        ("SO_BROADCAST", libc::SO_BROADCAST),
        ("SO_DONTROUTE", libc::SO_DONTROUTE),
        ("SO_RCVLOWAT", libc::SO_RCVLOWAT),
        ("SO_SNDLOWAT", libc::SO_SNDLOWAT),
        ("SO_PRIORITY", libc::SO_PRIORITY),
        ("SO_MARK", libc::SO_MARK),
        ("SO_TIMESTAMP", libc::SO_TIMESTAMP),
        ("SO_BUSY_POLL", libc::SO_BUSY_POLL),
        ("SO_ZEROCOPY", 60),
    ];
    for (label, name) in readable {
        s.ret(label, sock::get_int(s.fd, SOL_SOCKET, name));
    }
    for (label, name) in [("SO_KEEPALIVE", libc::SO_KEEPALIVE), ("SO_REUSEADDR", libc::SO_REUSEADDR)] {
        s.round_trip(label, SOL_SOCKET, name, 1);
        s.round_trip(label, SOL_SOCKET, name, 0);
        s.exchange();
    }
}

fn tcp_level(s: &mut Session) {
    let readable = [
        ("TCP_NODELAY", libc::TCP_NODELAY),
        ("TCP_CORK", libc::TCP_CORK),
        ("TCP_KEEPIDLE", libc::TCP_KEEPIDLE),
        ("TCP_KEEPINTVL", libc::TCP_KEEPINTVL),
        ("TCP_KEEPCNT", libc::TCP_KEEPCNT),
        ("TCP_SYNCNT", libc::TCP_SYNCNT),
        ("TCP_LINGER2", libc::TCP_LINGER2),
        ("TCP_DEFER_ACCEPT", libc::TCP_DEFER_ACCEPT),
        ("TCP_USER_TIMEOUT", libc::TCP_USER_TIMEOUT),
        ("TCP_FASTOPEN", libc::TCP_FASTOPEN),
        ("TCP_NOTSENT_LOWAT", libc::TCP_NOTSENT_LOWAT),
        ("TCP_REPAIR", libc::TCP_REPAIR),
        ("TCP_THIN_LINEAR_TIMEOUTS", libc::TCP_THIN_LINEAR_TIMEOUTS),
    ];
    for (label, name) in readable {
        s.ret(label, sock::get_int(s.fd, IPPROTO_TCP, name));
    }
    s.round_trip("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, 1);
    s.round_trip("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, 0);
    s.round_trip("TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT, 3);
    s.round_trip("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2, 10);
    s.round_trip("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384);
    s.exchange();
}

fn ip_level(s: &mut Session) {
    s.round_trip("IP_TOS", IPPROTO_IP, libc::IP_TOS, 0x10);
    s.exchange();
    s.round_trip("IP_TTL", IPPROTO_IP, libc::IP_TTL, 50);
    s.exchange();
    s.ret("IP_MTU", sock::get_int(s.fd, IPPROTO_IP, libc::IP_MTU));
    s.ret("IP_MTU_DISCOVER", sock::get_int(s.fd, IPPROTO_IP, libc::IP_MTU_DISCOVER));
    s.ret("IP_RECVERR", sock::get_int(s.fd, IPPROTO_IP, libc::IP_RECVERR));
}

fn buffers(s: &mut Session) {
    for (label, name) in [("SO_SNDBUF", libc::SO_SNDBUF), ("SO_RCVBUF", libc::SO_RCVBUF)] {
        s.round_trip(label, SOL_SOCKET, name, 100_000);
        s.round_trip(label, SOL_SOCKET, name, 1);
        s.round_trip(label, SOL_SOCKET, name, -1);
        s.exchange();
    }
}

fn states(s: &mut Session) {
    s.ret("established", sock::tcp_state(s.fd));
    s.tell("shut 1");
    s.await_events(libc::POLLRDHUP);
    s.ret("peer has shut", sock::tcp_state(s.fd));
    s.ret("shutdown", sock::shutdown(s.fd, libc::SHUT_WR));
    s.await_events(libc::POLLHUP);
    crate::session::until("the last acknowledgement", || sock::tcp_state(s.fd) == 7);
    s.ret("closed", sock::tcp_state(s.fd));
}

fn keepalive(s: &mut Session) {
    s.round_trip("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, 1);
    s.round_trip("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL, 1);
    s.round_trip("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, 2);
    s.round_trip("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    s.exchange();
    // Longer than idle time and probes together: a peer that answers keeps it alive.
    s.timed("silence", 3500, || s.say("poll", format!("{:?}", crate::sys::ready::poll(&[(s.fd, libc::POLLIN)], 3500))));
    s.exchange();
    for bad in [0, -1, 40_000] {
        s.ret("bad TCP_KEEPIDLE", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_KEEPIDLE, bad));
    }
}

fn maximum_segment(s: &mut Session) {
    s.ret("TCP_MAXSEG", sock::get_int(s.fd, IPPROTO_TCP, libc::TCP_MAXSEG));
    s.ret("send", io::send(s.fd, &[1; 10_000], 0));
    s.tell("recv 10000");
    s.ret("TCP_MAXSEG", sock::get_int(s.fd, IPPROTO_TCP, libc::TCP_MAXSEG));
    s.ret("set", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_MAXSEG, 1000));
    s.exchange();
}

fn lengths(s: &mut Session) {
    for room in [0, 1, 2, 4, 8] {
        let (got, value) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_NODELAY, room);
        s.say("get", format!("{} {value:?}", shown(got)));
    }
    for room in [0, 1, 2, 4, 8] {
        s.ret("set", sock::setsockopt(s.fd, IPPROTO_TCP, libc::TCP_NODELAY, &vec![1; room]));
    }
    let (got, value) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_INFO, 8);
    s.say("a short TCP_INFO", format!("{} {} state {}", shown(got), value.len(), value[0]));
    let (got, value) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_INFO, 1000);
    s.say("a long TCP_INFO", format!("{} {} state {}", shown(got), value.len(), value[0]));
}

fn unknown(s: &mut Session) {
    s.ret("socket level", sock::get_int(s.fd, SOL_SOCKET, 9999));
    s.ret("TCP level", sock::get_int(s.fd, IPPROTO_TCP, 9999));
    s.ret("no level", sock::get_int(s.fd, 9999, 1));
    s.ret("socket level", sock::set_int(s.fd, SOL_SOCKET, 9999, 1));
    s.ret("TCP level", sock::set_int(s.fd, IPPROTO_TCP, 9999, 1));
    s.ret("no level", sock::set_int(s.fd, 9999, 1, 1));
    s.exchange();
}

fn congestion(s: &mut Session) {
    let (got, name) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16);
    s.say("TCP_CONGESTION", format!("{} {:?}", shown(got), String::from_utf8_lossy(&name)));
    s.ret("set reno", sock::setsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"reno"));
    s.ret("set nonsense", sock::setsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"nonsense"));
    let (got, name) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16);
    s.say("TCP_CONGESTION", format!("{} {:?}", shown(got), String::from_utf8_lossy(&name)));
    s.exchange();
}

fn wrong_calls(s: &mut Session) {
    s.ret("listen", sock::listen(s.fd));
    s.ret("accept", sock::accept(s.fd));
    s.ret("connect", sock::connect(s.fd));
    s.ret("bind", sock::bind(s.fd));
    s.ret("lseek", io::lseek(s.fd));
    s.ret("pread", io::pread(s.fd));
    s.ret("pwrite", io::pwrite(s.fd));
    s.ret("fsync", fds::fsync(s.fd));
    s.ret("ftruncate", fds::ftruncate(s.fd));
    s.ret("mmap", fds::mmap(s.fd));
    s.exchange();
}

fn lingering(s: &mut Session) {
    s.say("before", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, libc::SO_LINGER, 8)));
    s.ret("set", sock::set_linger(s.fd, true, 3));
    s.say("after", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, libc::SO_LINGER, 8)));
    s.exchange();
}

fn timeouts_read_back(s: &mut Session) {
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        s.ret("set", sock::set_timeout(s.fd, name, 2500));
        s.say("get", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, name, 16)));
    }
    s.exchange();
}

fn after_the_end(s: &mut Session) {
    s.tell("reset");
    s.await_events(libc::POLLERR);
    s.ret("TCP_NODELAY", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_NODELAY, 1));
    s.ret("SO_KEEPALIVE", sock::set_int(s.fd, SOL_SOCKET, libc::SO_KEEPALIVE, 1));
    s.ret("state", sock::tcp_state(s.fd));
    s.ret("own name", sock::getsockname(s.fd).0);
    s.ret("peer's name", sock::getpeername(s.fd).0);
}

fn quickack(s: &mut Session) {
    s.ret("set", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_QUICKACK, 1));
    s.ret("get", sock::get_int(s.fd, IPPROTO_TCP, libc::TCP_QUICKACK));
    s.ret("set", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_QUICKACK, 0));
    s.exchange();
}

fn user_timeout(s: &mut Session) {
    s.round_trip("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 5000);
    s.exchange();
    s.round_trip("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, -1);
    s.round_trip("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 0);
    s.exchange();
}

fn nodelay_and_traffic(s: &mut Session) {
    for value in [1, 0, 5] {
        s.round_trip("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, value);
        s.exchange();
    }
}

fn mark_and_priority(s: &mut Session) {
    s.round_trip("SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY, 5);
    s.exchange();
    s.round_trip("SO_MARK", SOL_SOCKET, libc::SO_MARK, 77);
    s.exchange();
    s.round_trip("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, 1);
    s.exchange();
}

fn set_before_traffic(s: &mut Session) {
    s.round_trip("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, 1);
    s.round_trip("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    s.round_trip("SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF, 50_000);
    s.exchange();
    s.ret("TCP_NODELAY", sock::get_int(s.fd, IPPROTO_TCP, libc::TCP_NODELAY));
    s.ret("SO_KEEPALIVE", sock::get_int(s.fd, SOL_SOCKET, libc::SO_KEEPALIVE));
    s.ret("SO_RCVBUF", sock::get_int(s.fd, SOL_SOCKET, libc::SO_RCVBUF));
}
