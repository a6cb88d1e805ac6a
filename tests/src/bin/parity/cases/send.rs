//! Sending: flags, vectors, full buffers.

use libc::{IPPROTO_TCP, MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, TCP_CORK, TCP_NODELAY};

use super::group;
use crate::session::{Session, digest, pattern, until};
use crate::sys::{fds, io, ready, shown, sock};

group!("send":
    plain nothing more cork small_writes vectors message addressed peculiar_flags nonblocking_full timeout
    large_blocking to_a_peer_that_shut_reading unsent_bytes several_messages;
    first_call_writes first_call_is_large
);

fn plain(s: &mut Session) {
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.ret("write", io::write(s.fd, &pattern(2, 100)));
    s.tell("recv 200");
    s.ret("send", io::send(s.fd, &pattern(3, 20_000), MSG_NOSIGNAL));
    s.tell("recv 20000");
}

fn nothing(s: &mut Session) {
    s.ret("send nothing", io::send(s.fd, &[], 0));
    s.ret("write nothing", io::write(s.fd, &[]));
    s.ret("writev nothing", io::writev(s.fd, &[b"", b""], None));
    s.ret("writev of no vectors", io::writev(s.fd, &[], None));
    s.tell("try");
}

fn more(s: &mut Session) {
    for part in 0..5 {
        s.ret("more", io::send(s.fd, &pattern(part, 10), MSG_MORE));
    }
    s.ret("last", io::send(s.fd, &pattern(9, 10), 0));
    s.tell("recv 60");
}

fn cork(s: &mut Session) {
    s.ret("cork", sock::set_int(s.fd, IPPROTO_TCP, TCP_CORK, 1));
    for part in 0..5 {
        s.ret("write", io::write(s.fd, &pattern(part, 10)));
    }
    s.ret("corked", sock::get_int(s.fd, IPPROTO_TCP, TCP_CORK));
    s.ret("uncork", sock::set_int(s.fd, IPPROTO_TCP, TCP_CORK, 0));
    s.tell("recv 50");
    s.ret("corked", sock::get_int(s.fd, IPPROTO_TCP, TCP_CORK));
}

fn small_writes(s: &mut Session) {
    for nodelay in [1, 0] {
        s.ret("nodelay", sock::set_int(s.fd, IPPROTO_TCP, TCP_NODELAY, nodelay));
        let sent: i64 = (0..200).map(|part| io::write(s.fd, &pattern(part, 5))).sum();
        s.ret("sent", sent);
        s.tell("recv 1000");
    }
}

fn vectors(s: &mut Session) {
    let (a, b) = (pattern(1, 10), pattern(2, 3000));
    s.ret("writev", io::writev(s.fd, &[b"", &a, b"", &b, b"x", b""], None));
    s.tell("recv 3011");
    let many = vec![&b"ab"[..]; 1024];
    s.ret("as many as there may be", io::writev(s.fd, &many, None));
    s.tell("recv 2048");
    s.ret("too many", io::writev(s.fd, &[b"a"], Some(1025)));
    s.ret("negative", io::writev(s.fd, &[b"a"], Some(-1)));
    s.tell("try");
}

fn message(s: &mut Session) {
    let (a, b) = (pattern(1, 10), pattern(2, 3000));
    s.ret("sendmsg", io::sendmsg(s.fd, &[&a, b"", &b], 0, false));
    s.tell("recv 3010");
    s.ret("sendmsg more", io::sendmsg(s.fd, &[&a], MSG_MORE, false));
    s.ret("sendmsg nothing", io::sendmsg(s.fd, &[], 0, false));
    s.ret("sendmsg", io::sendmsg(s.fd, &[&a], 0, false));
    s.tell("recv 20");
}

fn addressed(s: &mut Session) {
    s.ret("sendto elsewhere", io::sendto(s.fd, &pattern(1, 10), 0));
    s.ret("sendmsg elsewhere", io::sendmsg(s.fd, &[b"0123456789"], 0, true));
    s.tell("recv 20");
}

fn peculiar_flags(s: &mut Session) {
    for flags in [libc::MSG_EOR, libc::MSG_CONFIRM, libc::MSG_DONTROUTE, libc::MSG_ZEROCOPY, libc::MSG_DONTWAIT] {
        s.ret("send", io::send(s.fd, &pattern(1, 10), flags));
    }
    s.tell("recv 50");
    s.ret("fast open", io::sendto(s.fd, &pattern(1, 10), libc::MSG_FASTOPEN));
}

fn nonblocking_full(s: &mut Session) {
    let sent = fill_up(s);
    s.poll("full", libc::POLLOUT | libc::POLLIN);
    let got = s.ask(&format!("recv {}", sent.len()));
    s.say("every byte arrived", got == digest(&sent));
    s.await_events(libc::POLLOUT);
    s.ret("send", io::send(s.fd, &pattern(1, 10), 0));
    s.tell("recv 10");
}

fn timeout(s: &mut Session) {
    s.ret("set", sock::set_timeout(s.fd, libc::SO_SNDTIMEO, 60));
    let chunk = pattern(5, 100_000);
    let mut sent = Vec::new();
    let ended = loop {
        match io::send(s.fd, &chunk, 0) {
            got if got < 0 => break got,
            got => sent.extend_from_slice(&chunk[..got as usize]),
        }
    };
    s.ret("in the end", ended);
    s.timed("again", 60, || s.ret("send", io::send(s.fd, &chunk, 0)));
    let got = s.ask(&format!("recv {}", sent.len()));
    s.say("every byte arrived", got == digest(&sent));
}

fn large_blocking(s: &mut Session) {
    let bytes = pattern(7, 3_000_000);
    s.begin("recv 3000000");
    s.ret("send", io::send(s.fd, &bytes, 0));
    let answer = s.answer();
    s.say("received", answer);
    s.begin("recv 3000000");
    let parts: Vec<&[u8]> = bytes.chunks(100_000).collect();
    s.ret("writev", io::writev(s.fd, &parts, None));
    let answer = s.answer();
    s.say("received", answer);
}

fn to_a_peer_that_shut_reading(s: &mut Session) {
    s.tell("shut 0");
    s.ret("send", io::send(s.fd, &pattern(1, 10), 0));
    s.tell("sync");
    s.ret("send", io::send(s.fd, &pattern(1, 10), 0));
    s.poll("after", libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP);
}

fn unsent_bytes(s: &mut Session) {
    s.ret("send", io::send(s.fd, &pattern(1, 1000), 0));
    s.tell("recv 1000");
    until("the acknowledgement", || fds::ioctl(s.fd, libc::TIOCOUTQ, -1).1 == 0);
    s.say("SIOCOUTQ", format!("{:?}", fds::ioctl(s.fd, libc::TIOCOUTQ, -1)));
    s.say("SIOCOUTQNSD", format!("{:?}", fds::ioctl(s.fd, 0x894B, -1)));
    let sent = fill_up(s);
    s.say("SIOCOUTQ when full is not nothing", fds::ioctl(s.fd, libc::TIOCOUTQ, -1).1 > 0);
    let got = s.ask(&format!("recv {}", sent.len()));
    s.say("every byte arrived", got == digest(&sent));
}

/// Sends until the buffer is full, however late the last window update comes; returns what went in. How much fits is nobody's promise.
fn fill_up(s: &Session) -> Vec<u8> {
    let chunk = pattern(5, 10_000);
    let mut sent = Vec::new();
    loop {
        match io::send(s.fd, &chunk, MSG_DONTWAIT) {
            got if got >= 0 => sent.extend_from_slice(&chunk[..got as usize]),
            _ if ready::poll(&[(s.fd, libc::POLLOUT)], 300).0 == 0 => return sent,
            _ => {}
        }
    }
}

fn several_messages(s: &mut Session) {
    let (sent, lens) = io::sendmmsg(s.fd, [b"one", b"two and three"]);
    s.say("sendmmsg", format!("{} {lens:?}", shown(sent)));
    s.tell("recv 16");
}

fn first_call_writes(s: &mut Session) {
    s.ret("write", io::write(s.fd, &pattern(1, 100)));
    s.tell("recv 100");
    s.ret("write", io::write(s.fd, &pattern(2, 100)));
    s.tell("recv 100");
}

fn first_call_is_large(s: &mut Session) {
    s.begin("recv 1000000");
    s.ret("send", io::send(s.fd, &pattern(1, 1_000_000), 0));
    let answer = s.answer();
    s.say("received", answer);
}
