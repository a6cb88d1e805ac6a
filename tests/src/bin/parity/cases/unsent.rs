//! TCP_NOTSENT_LOWAT.

use libc::{IPPROTO_TCP, SOL_SOCKET};

use super::group;
use super::information::{tcp_info, word};
use crate::session::{Session, until};
use crate::sys::{io, sock};

group!("options":
    little_unsent little_unsent_at_once;
);

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
    until("the queue to be sent", || word(&tcp_info(s), 24) == 0 && word(&tcp_info(s), 144) == 0);
    s.await_events(libc::POLLOUT);
    let answer = s.answer();
    s.say("it came", answer.starts_with('['));
    s.exchange();
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
    s.round_trip("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 65_536);
    s.exchange();
    s.later("recv 200000");
    s.ret("send", io::send(s.fd, &[1; 200_000], 0));
    until("the end of the queue", || word(&tcp_info(s), 24) == 0 && word(&tcp_info(s), 144) == 0);
    s.await_events(libc::POLLOUT);
    s.exchange();
    s.round_trip("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 0);
    s.exchange();
}
