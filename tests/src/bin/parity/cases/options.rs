//! Socket options and names.

use libc::{IPPROTO_IP, IPPROTO_TCP, SOL_SOCKET};

use super::group;
use crate::session::Session;
use crate::sys::{fds, io, shown, sock};

group!("options":
    names socket_level tcp_level ip_level buffers states keepalive maximum_segment lengths unknown congestion wrong_calls
    lingering timeouts_read_back after_the_end quickack user_timeout nodelay_and_traffic mark_and_priority information totals
    little_unsent little_unsent_at_once;
    set_before_traffic
);

/// Sets an option, reads it back.
fn round_trip(s: &Session, label: &str, level: i32, name: i32, value: i32) {
    let set = shown(sock::set_int(s.fd, level, name, value));
    s.say(label, format!("set {value}: {set}, get: {}", shown(sock::get_int(s.fd, level, name))));
}

/// The connection still works.
fn exchange(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"exchange", 0));
    s.tell("recv 8");
    s.later("send 10 3");
    s.recv("recv", 10, libc::MSG_WAITALL);
}

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
        round_trip(s, label, SOL_SOCKET, name, 1);
        round_trip(s, label, SOL_SOCKET, name, 0);
        exchange(s);
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
    round_trip(s, "TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, 1);
    round_trip(s, "TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, 0);
    round_trip(s, "TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT, 3);
    round_trip(s, "TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2, 10);
    round_trip(s, "TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384);
    exchange(s);
}

fn ip_level(s: &mut Session) {
    round_trip(s, "IP_TOS", IPPROTO_IP, libc::IP_TOS, 0x10);
    exchange(s);
    round_trip(s, "IP_TTL", IPPROTO_IP, libc::IP_TTL, 50);
    exchange(s);
    s.ret("IP_MTU", sock::get_int(s.fd, IPPROTO_IP, libc::IP_MTU));
    s.ret("IP_MTU_DISCOVER", sock::get_int(s.fd, IPPROTO_IP, libc::IP_MTU_DISCOVER));
    s.ret("IP_RECVERR", sock::get_int(s.fd, IPPROTO_IP, libc::IP_RECVERR));
}

fn buffers(s: &mut Session) {
    for (label, name) in [("SO_SNDBUF", libc::SO_SNDBUF), ("SO_RCVBUF", libc::SO_RCVBUF)] {
        round_trip(s, label, SOL_SOCKET, name, 100_000);
        round_trip(s, label, SOL_SOCKET, name, 1);
        round_trip(s, label, SOL_SOCKET, name, -1);
        exchange(s);
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
    round_trip(s, "TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, 1);
    round_trip(s, "TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL, 1);
    round_trip(s, "TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, 2);
    round_trip(s, "SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    exchange(s);
    // Longer than idle time and probes together: a peer that answers keeps it alive.
    s.timed("silence", 3500, || s.say("poll", format!("{:?}", crate::sys::ready::poll(&[(s.fd, libc::POLLIN)], 3500))));
    exchange(s);
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
    exchange(s);
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
    exchange(s);
}

fn congestion(s: &mut Session) {
    let (got, name) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16);
    s.say("TCP_CONGESTION", format!("{} {:?}", shown(got), String::from_utf8_lossy(&name)));
    s.ret("set reno", sock::setsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"reno"));
    s.ret("set nonsense", sock::setsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"nonsense"));
    let (got, name) = sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16);
    s.say("TCP_CONGESTION", format!("{} {:?}", shown(got), String::from_utf8_lossy(&name)));
    exchange(s);
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
    exchange(s);
}

fn lingering(s: &mut Session) {
    s.say("before", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, libc::SO_LINGER, 8)));
    s.ret("set", sock::set_linger(s.fd, true, 3));
    s.say("after", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, libc::SO_LINGER, 8)));
    exchange(s);
}

fn timeouts_read_back(s: &mut Session) {
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        s.ret("set", sock::set_timeout(s.fd, name, 2500));
        s.say("get", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, name, 16)));
    }
    exchange(s);
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
    exchange(s);
}

fn user_timeout(s: &mut Session) {
    round_trip(s, "TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 5000);
    exchange(s);
    round_trip(s, "TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, -1);
    round_trip(s, "TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 0);
    exchange(s);
}

fn nodelay_and_traffic(s: &mut Session) {
    for value in [1, 0, 5] {
        round_trip(s, "TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, value);
        exchange(s);
    }
}

fn mark_and_priority(s: &mut Session) {
    round_trip(s, "SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY, 5);
    exchange(s);
    round_trip(s, "SO_MARK", SOL_SOCKET, libc::SO_MARK, 77);
    exchange(s);
    round_trip(s, "SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, 1);
    exchange(s);
}

fn set_before_traffic(s: &mut Session) {
    round_trip(s, "TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, 1);
    round_trip(s, "SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    round_trip(s, "SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF, 50_000);
    exchange(s);
    s.ret("TCP_NODELAY", sock::get_int(s.fd, IPPROTO_TCP, libc::TCP_NODELAY));
    s.ret("SO_KEEPALIVE", sock::get_int(s.fd, SOL_SOCKET, libc::SO_KEEPALIVE));
    s.ret("SO_RCVBUF", sock::get_int(s.fd, SOL_SOCKET, libc::SO_RCVBUF));
}

/// `struct tcp_info` of linux/tcp.h.
fn tcp_info(s: &Session) -> Vec<u8> {
    sock::getsockopt(s.fd, IPPROTO_TCP, libc::TCP_INFO, 248).1
}

fn word(info: &[u8], at: usize) -> u32 {
    info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn long(info: &[u8], at: usize) -> u64 {
    info.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// What an exchange changes in TCP_INFO, and what it leaves.
fn information(s: &mut Session) {
    exchange(s);
    let unacked = |s: &Session| word(&tcp_info(s), 24);
    crate::session::until("the acknowledgement", || unacked(s) == 0);
    let before = tcp_info(s);
    for _ in 0..3 {
        exchange(s);
    }
    crate::session::until("the acknowledgement", || unacked(s) == 0);
    let after = tcp_info(s);
    let more = |at| long(&after, at).wrapping_sub(long(&before, at));
    s.say("bytes acknowledged, received, sent, sent again", format!("{:?}", [120, 128, 200, 208].map(more)));
    let more = |at| word(&after, at).wrapping_sub(word(&before, at));
    // How many segments carry them, the two ends' timing decides.
    s.say("segments out, in, with data in, out", format!("{:?}", [136, 140, 152, 156].map(|at| more(at) > 0)));
    s.say("total retransmissions", more(100));
    s.say("state, congestion state, retransmits, probes, backoff", format!("{:?}", &after[..5]));
    s.say("options, shifts", format!("{:?}", &after[5..7]));
    s.say("sacked, lost, sent again", format!("{:?}", [28, 32, 36].map(|at| word(&after, at))));
    s.say("MSS for sending", word(&after, 16));
    s.say("path MTU", word(&after, 60));
    s.say("not sent", word(&after, 144));
    let young = |at| word(&after, at) < 5_000;
    s.say("times since the last data and acknowledgement", format!("{:?}", [44, 52, 56].map(young)));
    s.say("an RTO of 200 ms or more", word(&after, 8) >= 200_000);
    s.say("windows", format!("{:?}", [228, 232, 80].map(|at| word(&after, at) > 0)));
}

/// Counts of TCP_INFO over the connection's life, by their size in bytes.
const TOTALS: [(usize, usize); 17] = [
    (8, 120), // tcpi_bytes_acked and received, bytes_sent and retrans
    (8, 128),
    (8, 200),
    (8, 208),
    (4, 100), // tcpi_total_retrans
    (4, 136), // tcpi_segs_out and in, data_segs_in and out
    (4, 140),
    (4, 152),
    (4, 156),
    (4, 192), // tcpi_delivered, delivered_ce
    (4, 196),
    (4, 216), // tcpi_dsack_dups, reord_seen, rcv_ooopack
    (4, 220),
    (4, 224),
    (2, 240), // tcpi_total_rto, total_rto_recoveries, total_rto_time
    (2, 242),
    (4, 244),
];

fn total(info: &[u8], (size, at): (usize, usize)) -> u64 {
    let bytes = info.get(at..at + size).unwrap_or_default();
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Totals of a connection's whole life, the handshake included, and whether one is less than `before`.
fn say_totals(s: &Session, label: &str, before: &[u8]) -> Vec<u8> {
    crate::session::until("the acknowledgement", || word(&tcp_info(s), 24) == 0);
    let info = tcp_info(s);
    let fell: Vec<_> = TOTALS.into_iter().filter(|&field| total(&info, field) < total(before, field)).collect();
    s.say(label, format!("less than before: {fell:?}"));
    s.say(
        "bytes acknowledged, received, sent, sent again",
        format!("{:?}", [120, 128, 200, 208].map(|at| long(&info, at))),
    );
    // What carries them, the ends' timing decides; the handshake is no data.
    s.say("delivered beyond the data sent", word(&info, 192).wrapping_sub(word(&info, 156)));
    s.say(
        "lost, marked, duplicate, out of order",
        format!("{:?}", [100, 196, 216, 220, 224].map(|at| word(&info, at))),
    );
    s.say("timeouts", format!("{:?}", TOTALS[14..].iter().map(|&field| total(&info, field)).collect::<Vec<_>>()));
    s.say("reordering", word(&info, 88));
    s.say("a shortest round trip", (1..1_000_000).contains(&word(&info, 148)));
    info
}

/// The totals of TCP_INFO go on where they were when the connection changes its tier: a call that no lane carries takes it to the kernel,
/// with something to read, and with little more it comes to the lane again.
fn totals(s: &mut Session) {
    exchange(s);
    let mut before = say_totals(s, "at first", &[]);
    for _ in 0..3 {
        exchange(s);
        before = say_totals(s, "after an exchange", &before);
        s.tell("send 10 3");
        s.arrived(10);
        s.ret("another name", sock::connect(s.fd));
        before = say_totals(s, "after a call for the kernel", &before);
        s.recv("recv", 10, libc::MSG_WAITALL);
        before = say_totals(s, "when that was read", &before);
        for _ in 0..8 {
            exchange(s);
        }
    }
    say_totals(s, "in the end", &before);
}

/// What a program that does not wait can write while nobody reads is what the peer's window holds, and a little.
fn little_unsent_at_once(s: &mut Session) {
    const BUFFER: i32 = 2 << 20;
    s.ret("buffer", sock::set_int(s.fd, SOL_SOCKET, libc::SO_SNDBUF, BUFFER));
    s.ret("set", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384));
    let little = fill(s);
    s.say("it is little", little < 800_000);
    s.poll("and no more is asked for", libc::POLLOUT);
    s.ret("set", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 0));
    s.poll("without the bound", libc::POLLOUT);
    let more = fill(s);
    s.say("it is much", more > 800_000);
    s.ret("set", sock::set_int(s.fd, IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384));
    s.begin(&format!("recv {}", little + more));
    crate::session::until("the queue to be sent", || word(&tcp_info(s), 24) == 0 && word(&tcp_info(s), 144) == 0);
    s.await_events(libc::POLLOUT);
    let answer = s.answer();
    s.say("it came", answer.starts_with('['));
    exchange(s);
}

/// Writes as long as bytes are taken; returns how many were.
fn fill(s: &Session) -> usize {
    let mut taken = 0;
    let mut rests = 0;
    while rests < 50 {
        match io::send(s.fd, &[1; 10_000], libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            got if got > 0 => (taken, rests) = (taken + got as usize, 0),
            _ => {
                // What is on its way may make room for more.
                rests += 1;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
    taken
}

/// With TCP_NOTSENT_LOWAT little waits to be sent, and the socket is writable again when less does.
fn little_unsent(s: &mut Session) {
    round_trip(s, "TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 65_536);
    exchange(s);
    s.later("recv 200000");
    s.ret("send", io::send(s.fd, &[1; 200_000], 0));
    crate::session::until("the end of the queue", || word(&tcp_info(s), 24) == 0 && word(&tcp_info(s), 144) == 0);
    s.await_events(libc::POLLOUT);
    exchange(s);
    round_trip(s, "TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 0);
    exchange(s);
}
