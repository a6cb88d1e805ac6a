//! Ends of all kinds: shutdown, close, resets.

use libc::{MSG_NOSIGNAL, POLLIN, POLLOUT, POLLRDHUP, SHUT_RD, SHUT_RDWR, SHUT_WR, SIGPIPE, SOL_SOCKET};

use super::group;
use crate::session::{Session, digest, pattern, until};
use crate::sys::{fds, io, process, shown, sock};

const ALL: i16 = POLLIN | POLLOUT | POLLRDHUP;

/// <net/tcp_states.h>.
const FIN_WAIT2: i64 = 5;

group!("close":
    shut_writing shut_reading shut_both shut_twice bad_shutdown peer_shuts peer_shuts_with_data half_closed_bulk
    half_closed_bulk_out peer_closes_then_writes broken_pipe nosignal peer_resets peer_resets_read_later peer_resets_write
    error_option resets_peer closes_with_unread_data closes_in_peace closes_with_data_on_its_way lingers
    lingers_not shut_then_close calls_after_close both_shut_at_once data_after_shut_reading
    waits_after_the_end peer_restarts;
    closes_untouched peer_closes_at_once peer_resets_at_once
);

fn shut_writing(s: &mut Session) {
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    s.tell("drain");
    s.poll("after", ALL);
    s.tell("send 100 2");
    s.recv("recv", 100, libc::MSG_WAITALL);
    s.ret("send", io::send(s.fd, b"x", MSG_NOSIGNAL));
    s.tell("shut 1");
    s.recv("end", 10, 0);
    s.poll("after", ALL);
}

fn shut_reading(s: &mut Session) {
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_RD));
    s.poll("after", ALL);
    s.recv("recv", 10, 0);
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.tell("recv 100");
    s.recv("recv", 10, 0);
}

fn data_after_shut_reading(s: &mut Session) {
    s.tell("send 10 1");
    s.arrived(10);
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_RD));
    s.recv("what was there", 5, 0);
    s.tell("send 10 2");
    s.tell("sync");
    s.recv("recv", 5, 0);
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.tell("recv 100");
}

fn shut_both(s: &mut Session) {
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_RDWR));
    s.poll("after", ALL);
    s.recv("recv", 10, 0);
    s.ret("send", io::send(s.fd, b"x", MSG_NOSIGNAL));
    s.tell("drain");
    s.tell("shut 1");
    s.ret("close", fds::close(s.fd));
}

fn shut_twice(s: &mut Session) {
    for _ in 0..2 {
        s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    }
    s.tell("drain");
    s.tell("shut 1");
    s.await_events(libc::POLLHUP);
    s.ret("shutdown when closed", sock::shutdown(s.fd, SHUT_WR));
    s.ret("shutdown reading when closed", sock::shutdown(s.fd, SHUT_RD));
}

fn bad_shutdown(s: &mut Session) {
    s.ret("shutdown 7", sock::shutdown(s.fd, 7));
    s.ret("shutdown -1", sock::shutdown(s.fd, -1));
    s.ret("send", io::send(s.fd, b"still there", 0));
    s.tell("recv 11");
}

fn peer_shuts(s: &mut Session) {
    s.later("shut 1");
    s.recv("recv", 10, 0);
    s.recv("again", 10, 0);
    s.recv("and again", 10, libc::MSG_PEEK);
    s.poll("after", ALL);
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.tell("recv 100");
    s.ret("state", sock::tcp_state(s.fd));
}

fn peer_shuts_with_data(s: &mut Session) {
    s.tell("send 100 1");
    s.tell("shut 1");
    s.await_events(POLLRDHUP);
    s.arrived(100);
    s.recv("recv", 60, 0);
    s.poll("data left", ALL);
    s.recv("recv", 60, 0);
    s.poll("no data left", ALL);
    s.recv("recv", 60, 0);
}

fn half_closed_bulk(s: &mut Session) {
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    s.tell("drain");
    s.begin("send 1000000 3");
    s.recv("recv", 1_000_000, libc::MSG_WAITALL);
    let answer = s.answer();
    s.say("sent", answer);
    s.tell("close");
    s.recv("end", 10, 0);
}

fn half_closed_bulk_out(s: &mut Session) {
    s.tell("shut 1");
    s.await_events(POLLRDHUP);
    s.begin("drain");
    s.ret("send", io::send(s.fd, &pattern(3, 1_000_000), 0));
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    let answer = s.answer();
    s.say("received", answer);
}

fn peer_closes_then_writes(s: &mut Session) {
    s.tell("close");
    s.await_events(POLLRDHUP);
    s.recv("recv", 10, 0);
    s.ret("write into the void", io::send(s.fd, &pattern(1, 10), MSG_NOSIGNAL));
    s.await_events(libc::POLLERR);
    s.ret("write", io::send(s.fd, &pattern(1, 10), MSG_NOSIGNAL));
    s.recv("recv", 10, 0);
    s.ret("write again", io::send(s.fd, &pattern(1, 10), MSG_NOSIGNAL));
}

fn broken_pipe(s: &mut Session) {
    process::catch(SIGPIPE, false);
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    s.ret("send", io::send(s.fd, b"x", 0));
    s.say("SIGPIPE", process::caught());
    s.ret("write", io::write(s.fd, b"x"));
    s.say("SIGPIPE", process::caught());
    s.ret("writev", io::writev(s.fd, &[b"x"], None));
    s.say("SIGPIPE", process::caught());
    s.ret("sendmsg", io::sendmsg(s.fd, &[b"x"], 0, false));
    s.say("SIGPIPE", process::caught());
    s.ret("nothing", io::send(s.fd, b"", 0));
    s.say("SIGPIPE", process::caught());
}

fn nosignal(s: &mut Session) {
    process::catch(SIGPIPE, false);
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    s.ret("send", io::send(s.fd, b"x", MSG_NOSIGNAL));
    s.ret("sendmsg", io::sendmsg(s.fd, &[b"x"], MSG_NOSIGNAL, false));
    s.say("SIGPIPE", process::caught());
}

fn peer_resets(s: &mut Session) {
    s.later("reset");
    s.recv("blocked", 10, 0);
    s.recv("again", 10, 0);
    s.ret("send", io::send(s.fd, b"x", MSG_NOSIGNAL));
    s.poll("after", ALL);
    s.ret("state", sock::tcp_state(s.fd));
    s.ret("peer's name", sock::getpeername(s.fd).0);
    s.ret("own name", sock::getsockname(s.fd).0);
}

fn peer_resets_read_later(s: &mut Session) {
    s.tell("send 10 1");
    s.arrived(10);
    s.tell("reset");
    s.await_events(libc::POLLERR);
    s.recv("recv", 5, 0);
    s.recv("again", 5, 0);
    s.recv("and again", 5, 0);
}

fn peer_resets_write(s: &mut Session) {
    process::catch(SIGPIPE, false);
    s.tell("reset");
    s.await_events(libc::POLLERR);
    s.ret("send", io::send(s.fd, b"x", 0));
    s.ret("send", io::send(s.fd, b"x", 0));
    s.say("SIGPIPE", process::caught());
    s.recv("recv", 5, 0);
}

fn error_option(s: &mut Session) {
    s.ret("before", sock::get_int(s.fd, SOL_SOCKET, libc::SO_ERROR));
    s.tell("reset");
    s.await_events(libc::POLLERR);
    s.ret("SO_ERROR", sock::get_int(s.fd, SOL_SOCKET, libc::SO_ERROR));
    s.ret("again", sock::get_int(s.fd, SOL_SOCKET, libc::SO_ERROR));
    s.poll("after", ALL);
    s.recv("recv", 5, 0);
}

fn resets_peer(s: &mut Session) {
    s.ret("linger", sock::set_linger(s.fd, true, 0));
    s.ret("close", fds::close(s.fd));
    s.tell("wait");
    s.tell("drain");
    s.tell("drain");
}

fn closes_with_unread_data(s: &mut Session) {
    s.tell("send 100 1");
    s.arrived(100);
    s.ret("close", fds::close(s.fd));
    s.tell("wait");
    s.tell("drain");
}

fn closes_in_peace(s: &mut Session) {
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.ret("close", fds::close(s.fd));
    s.tell("drain");
    s.tell("send 10 1");
    s.tell("wait");
    s.tell("try");
}

fn closes_with_data_on_its_way(s: &mut Session) {
    let (chunk, mut sent) = (pattern(5, 10_000), Vec::new());
    loop {
        match io::send(s.fd, &chunk, libc::MSG_DONTWAIT) {
            got if got > 0 => sent.extend_from_slice(&chunk[..got as usize]),
            _ => break,
        }
    }
    s.ret("close", fds::close(s.fd));
    let answer = s.ask("drain");
    s.say("every byte, then the end", answer == format!("{} then end", digest(&sent)));
}

fn lingers(s: &mut Session) {
    s.ret("linger", sock::set_linger(s.fd, true, 5));
    s.ret("send", io::send(s.fd, &pattern(1, 50_000), 0));
    s.begin("drain");
    s.ret("close", fds::close(s.fd));
    let answer = s.answer();
    s.say("received", answer);
}

fn lingers_not(s: &mut Session) {
    s.ret("linger off", sock::set_linger(s.fd, false, 0));
    s.say("linger", format!("{:?}", sock::getsockopt(s.fd, SOL_SOCKET, libc::SO_LINGER, 8)));
    s.ret("send", io::send(s.fd, &pattern(1, 50_000), 0));
    s.ret("close", fds::close(s.fd));
    s.tell("drain");
}

fn shut_then_close(s: &mut Session) {
    s.ret("send", io::send(s.fd, &pattern(1, 100), 0));
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    s.ret("close", fds::close(s.fd));
    s.tell("drain");
}

fn calls_after_close(s: &mut Session) {
    s.ret("close", fds::close(s.fd));
    s.recv("recv", 10, 0);
    s.ret("send", io::send(s.fd, b"x", 0));
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    s.ret("close", fds::close(s.fd));
    s.ret("name", sock::getpeername(s.fd).0);
    s.ret("option", sock::get_int(s.fd, SOL_SOCKET, libc::SO_ERROR));
    s.poll("poll", ALL);
    let [out, into] = fds::pipe(0);
    s.say("the number is used again", out == s.fd);
    s.ret("write to the pipe", io::write(into, b"pipe"));
    s.say("read from the pipe", shown(io::read(out, &mut [0; 10])));
    s.ret("not a socket any more", io::recv(out, &mut [0], 0));
    s.tell("drain");
}

fn both_shut_at_once(s: &mut Session) {
    s.begin("shut 1");
    s.ret("shutdown", sock::shutdown(s.fd, SHUT_WR));
    let answer = s.answer();
    s.say("peer", answer);
    s.tell("drain");
    s.recv("recv", 10, 0);
    s.await_events(libc::POLLHUP);
    s.recv("recv", 10, 0);
    s.ret("close", fds::close(s.fd));
}

fn closes_untouched(s: &mut Session) {
    s.ret("close", fds::close(s.fd));
    s.tell("drain");
}

fn peer_closes_at_once(s: &mut Session) {
    s.tell("send 10 1");
    s.tell("close");
    s.await_events(POLLRDHUP);
    s.recv("recv", 100, 0);
    s.recv("recv", 100, 0);
}

fn peer_resets_at_once(s: &mut Session) {
    s.tell("reset");
    s.await_events(libc::POLLERR);
    s.recv("recv", 100, 0);
    s.recv("recv", 100, 0);
}

/// In TIME-WAIT there is no socket to ask.
/// A connection that the peer knows nothing of any more: its SYN is answered, its RST to that counts (RFC 5961, section 4.2; RFC 9293,
/// section 3.5.1), and the next SYN finds the kernel, where nobody listens any more.
fn peer_restarts(s: &mut Session) {
    s.tell("restart");
    s.await_events(libc::POLLERR);
    s.recv("recv", 10, 0);
    s.recv("again", 10, 0);
    s.ret("state", sock::tcp_state(s.fd));
    s.tell("outcome");
}

fn waits_after_the_end(s: &mut Session) {
    s.ret("shutdown", sock::shutdown(s.fd, libc::SHUT_WR));
    until("the FIN's acknowledgement", || sock::tcp_state(s.fd) == FIN_WAIT2);
    s.tell("shut 1");
    s.await_events(libc::POLLHUP);
    s.say("state", sock::tcp_state(s.fd));
    s.recv("recv", 10, 0);
    s.ret("send", io::send(s.fd, b"more", libc::MSG_NOSIGNAL));
    s.ret("shutdown", sock::shutdown(s.fd, libc::SHUT_RDWR));
}
