//! Receiving: flags, vectors, timeouts.

use libc::{FIONREAD, MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SOL_SOCKET};

use super::group;
use crate::session::{Session, digest};
use crate::sys::{fds, io, ready, shown, sock};

group!("recv":
    peek waitall waitall_meets_end waitall_peek dontwait truncate nothing_wanted vectors message from peculiar_flags
    timeout waitall_with_timeout low_water pieces blocks_until_data nonblocking bytes_waiting several_messages
    goes_on_in_a_file ends_in_a_file looks_into_several_places throws_much_away looks_at_the_end;
    first_call_reads first_call_peeks begins_before_the_lane turns_twice looks_before_the_lane
);

fn peek(s: &mut Session) {
    s.tell("send 10 1");
    s.arrived(10);
    s.recv("peek 4", 4, MSG_PEEK);
    s.recv("peek 100", 100, MSG_PEEK);
    s.recv("recv 6", 6, 0);
    s.recv("peek rest", 100, MSG_PEEK);
    s.recv("recv rest", 100, 0);
    s.recv("nothing left", 100, MSG_PEEK | MSG_DONTWAIT);
}

fn waitall(s: &mut Session) {
    s.later("send 100 1");
    s.later("send 200 2");
    s.recv("waitall", 300, MSG_WAITALL);
    s.recv("waitall dontwait", 300, MSG_WAITALL | MSG_DONTWAIT);
    s.tell("send 10 1");
    s.arrived(10);
    s.recv("waitall dontwait, the ten", 300, MSG_WAITALL | MSG_DONTWAIT);
    s.later("send 100000 3");
    s.recv("many segments", 100_000, MSG_WAITALL);
}

fn waitall_meets_end(s: &mut Session) {
    s.later("send 50 1");
    s.later("shut 1");
    s.recv("waitall", 300, MSG_WAITALL);
    s.recv("then", 300, MSG_WAITALL);
}

fn waitall_peek(s: &mut Session) {
    s.later("send 10 1");
    s.later("send 10 2");
    s.recv("waitall peek", 20, MSG_WAITALL | MSG_PEEK);
    s.recv("recv", 20, MSG_WAITALL);
}

fn dontwait(s: &mut Session) {
    s.recv("empty", 10, MSG_DONTWAIT);
    s.tell("send 10 1");
    s.arrived(10);
    s.recv("full", 100, MSG_DONTWAIT);
    s.recv("empty", 100, MSG_DONTWAIT);
}

fn truncate(s: &mut Session) {
    s.tell("send 20 1");
    s.arrived(20);
    let mut buffer = [7; 100];
    let got = io::recv(s.fd, &mut buffer[..5], MSG_TRUNC);
    s.say("thrown away", format!("{} buffer {}", shown(got), digest(&buffer)));
    s.recv("peek at the next", 5, MSG_PEEK);
    let got = io::recv(s.fd, &mut buffer, MSG_TRUNC);
    s.say("the rest", format!("{} buffer {}", shown(got), digest(&buffer)));
    s.recv("nothing left", 5, MSG_DONTWAIT | MSG_TRUNC);
}

fn nothing_wanted(s: &mut Session) {
    s.ret("read nothing", io::read(s.fd, &mut []));
    s.ret("recv nothing", io::recv(s.fd, &mut [], MSG_DONTWAIT));
    s.tell("send 3 1");
    s.arrived(3);
    s.ret("read nothing of three", io::read(s.fd, &mut []));
    s.ret("recv nothing of three", io::recv(s.fd, &mut [], 0));
    s.ret("readv nothing of three", io::readv(s.fd, &[0, 0], None).0);
    s.recv("all three", 3, 0);
    s.tell("shut 1");
    s.await_events(libc::POLLRDHUP);
    s.ret("recv nothing at the end", io::recv(s.fd, &mut [], 0));
}

fn vectors(s: &mut Session) {
    s.tell("send 100 1");
    s.arrived(100);
    let (got, bytes) = io::readv(s.fd, &[0, 10, 0, 1, 29, 0], None);
    s.say("readv", format!("{} {}", shown(got), digest(&bytes)));
    let (got, bytes) = io::readv(s.fd, &[50, 50], None);
    s.say("readv short", format!("{} {}", shown(got), digest(&bytes)));
    s.ret("no vectors", io::readv(s.fd, &[], None).0);
    s.ret("too many vectors", io::readv(s.fd, &[1], Some(1025)).0);
    s.ret("negative vectors", io::readv(s.fd, &[1], Some(-1)).0);
    s.tell("send 1024 5");
    s.arrived(1024);
    let (got, bytes) = io::readv(s.fd, &[1; 1024], None);
    s.say("as many vectors as there may be", format!("{} {}", shown(got), digest(&bytes)));
}

fn message(s: &mut Session) {
    s.tell("send 100 1");
    s.arrived(100);
    for flags in [MSG_PEEK, 0, MSG_TRUNC, MSG_DONTWAIT] {
        let message = io::recvmsg(s.fd, &[30, 0, 20], flags);
        let bytes = if flags & MSG_TRUNC == 0 { digest(&message.bytes) } else { String::new() };
        let (got, shown_flags) = (shown(message.got), message.flags);
        s.say(
            "recvmsg",
            format!("{got} {bytes} flags {shown_flags:#x} name {} control {}", message.name_len, message.control_len),
        );
    }
}

fn from(s: &mut Session) {
    s.tell("send 10 1");
    let mut buffer = [0; 20];
    let (got, len) = io::recvfrom(s.fd, &mut buffer, 0);
    s.say("recvfrom", format!("{} {} name {len}", shown(got), digest(&buffer)));
    let (got, len) = io::recvfrom(s.fd, &mut buffer, MSG_DONTWAIT);
    s.say("empty", format!("{} name {len}", shown(got)));
}

fn peculiar_flags(s: &mut Session) {
    s.recv("no urgent data", 1, MSG_OOB);
    s.recv("no errors", 10, libc::MSG_ERRQUEUE);
    s.tell("send 10 1");
    s.arrived(10);
    s.recv("more, confirm, nosignal", 4, libc::MSG_MORE | libc::MSG_CONFIRM | libc::MSG_NOSIGNAL);
    s.recv("cmsg cloexec", 4, libc::MSG_CMSG_CLOEXEC);
}

fn timeout(s: &mut Session) {
    s.ret("set", sock::set_timeout(s.fd, libc::SO_RCVTIMEO, 60));
    s.timed("recv", 60, || s.recv("recv", 10, 0));
    s.timed("read", 60, || s.ret("read", io::read(s.fd, &mut [0; 10])));
    s.timed("readv", 60, || s.ret("readv", io::readv(s.fd, &[10], None).0));
    s.ret("set long", sock::set_timeout(s.fd, libc::SO_RCVTIMEO, 5000));
    s.later("send 10 1");
    s.recv("in time", 10, 0);
    s.ret("unset", sock::set_timeout(s.fd, libc::SO_RCVTIMEO, 0));
    s.later("send 10 1");
    s.recv("no timeout", 10, 0);
}

fn waitall_with_timeout(s: &mut Session) {
    s.ret("set", sock::set_timeout(s.fd, libc::SO_RCVTIMEO, 100));
    s.tell("send 10 1");
    s.timed("waitall", 100, || s.recv("waitall", 20, MSG_WAITALL));
    s.tell("send 10 2");
    s.timed("peek", 100, || s.recv("peek", 20, MSG_WAITALL | MSG_PEEK));
    s.recv("recv", 20, 0);
}

fn low_water(s: &mut Session) {
    s.ret("set", sock::set_int(s.fd, SOL_SOCKET, libc::SO_RCVLOWAT, 10));
    s.tell("send 5 1");
    s.arrived(5);
    s.poll("below", libc::POLLIN);
    s.recv("peek without waiting", 100, MSG_PEEK | MSG_DONTWAIT);
    // The kernel wakes a sleeper only when as much as the mark has come since.
    s.later("send 10 2");
    s.recv("recv waits for the mark", 100, 0);
    s.tell("send 10 3");
    s.arrived(10);
    s.poll("at the mark", libc::POLLIN);
    s.recv("recv", 100, 0);
    s.ret("get", sock::get_int(s.fd, SOL_SOCKET, libc::SO_RCVLOWAT));
    s.tell("send 3 1");
    s.arrived(3);
    s.recv("recv less than the mark", 3, 0);
}

fn pieces(s: &mut Session) {
    s.begin("send 150000 9");
    let mut all = Vec::new();
    let sizes = [1, 7, 1000, 3, 65_536, 1448, 20_000];
    for size in sizes.iter().cycle() {
        let mut buffer = vec![0; *size.min(&(150_000 - all.len()))];
        let got = io::recv(s.fd, &mut buffer, 0);
        all.extend_from_slice(&buffer[..got.max(0) as usize]);
        if got <= 0 || all.len() == 150_000 {
            break;
        }
    }
    s.say("all pieces", digest(&all));
    let answer = s.answer();
    s.say("sent", answer);
}

fn blocks_until_data(s: &mut Session) {
    for round in 0..5 {
        s.later(&format!("send {} {round}", 10 + round));
        s.recv("recv", 100, 0);
    }
    s.later("shut 1");
    s.recv("recv", 100, 0);
}

fn nonblocking(s: &mut Session) {
    s.ret("flags", fds::fcntl(s.fd, libc::F_GETFL, 0));
    s.ret("O_NONBLOCK", fds::fcntl(s.fd, libc::F_SETFL, libc::O_NONBLOCK));
    s.recv("recv", 10, 0);
    s.recv("waitall", 10, MSG_WAITALL);
    s.ret("read", io::read(s.fd, &mut [0; 10]));
    s.ret("flags", fds::fcntl(s.fd, libc::F_GETFL, 0));
    s.ret("blocking", fds::fcntl(s.fd, libc::F_SETFL, 0));
    s.later("send 10 1");
    s.recv("recv", 10, 0);
    s.ret("FIONBIO", fds::ioctl(s.fd, libc::FIONBIO, 1).0);
    s.recv("recv", 10, 0);
    s.ret("flags", fds::fcntl(s.fd, libc::F_GETFL, 0));
    s.ret("FIONBIO off", fds::ioctl(s.fd, libc::FIONBIO, 0).0);
    s.later("send 10 1");
    s.recv("recv", 10, 0);
}

fn bytes_waiting(s: &mut Session) {
    s.say("FIONREAD", format!("{:?}", fds::ioctl(s.fd, FIONREAD, -1)));
    s.tell("send 1000 1");
    s.arrived(1000);
    s.recv("recv", 300, 0);
    s.say("FIONREAD", format!("{:?}", fds::ioctl(s.fd, FIONREAD, -1)));
    s.tell("shut 1");
    s.await_events(libc::POLLRDHUP);
    s.say("FIONREAD before the end", format!("{:?}", fds::ioctl(s.fd, FIONREAD, -1)));
    s.recv("recv", 1000, 0);
    s.say("FIONREAD at the end", format!("{:?}", fds::ioctl(s.fd, FIONREAD, -1)));
    s.say("SIOCATMARK", format!("{:?}", fds::ioctl(s.fd, 0x8905, -1)));
}

fn several_messages(s: &mut Session) {
    s.tell("send 30 1");
    s.arrived(30);
    let (got, lens, bytes) = io::recvmmsg(s.fd, [20, 20], 0);
    s.say("recvmmsg", format!("{} {lens:?} {}", shown(got), digest(&bytes)));
    let (got, lens, _) = io::recvmmsg(s.fd, [20, 20], MSG_DONTWAIT);
    s.say("empty", format!("{} {lens:?}", shown(got)));
}

fn first_call_reads(s: &mut Session) {
    s.tell("send 100 1");
    s.say("readable", ready::poll(&[(s.fd, libc::POLLIN)], 5000).0);
    s.recv("recv", 40, 0);
    s.recv("recv", 100, 0);
    s.recv("recv", 100, MSG_DONTWAIT);
}

fn first_call_peeks(s: &mut Session) {
    s.tell("send 100 1");
    s.recv("peek", 100, MSG_PEEK | MSG_WAITALL);
    s.tell("send 100 2");
    s.arrived(200);
    s.recv("recv", 200, 0);
}

/// What is at hand comes in one call, whatever ways it has taken.
fn begins_before_the_lane(s: &mut Session) {
    s.tell("send 100 1");
    s.recv("peek", 100, MSG_PEEK | MSG_WAITALL);
    s.await_lane();
    s.tell("send 100 2");
    s.arrived(200);
    s.recv("peek", 300, MSG_PEEK);
    s.recv("recv", 300, 0);
    s.tell("send 100 3");
    s.recv("waitall", 100, MSG_WAITALL);
}

/// The end comes by sendfile(2), which no lane carries: who looks without taking sees it all the same.
fn goes_on_in_a_file(s: &mut Session) {
    s.await_lane();
    s.tell("send 100 1");
    s.arrived(100);
    s.ret("set", sock::set_int(s.fd, SOL_SOCKET, libc::SO_RCVLOWAT, 150));
    s.poll("below the mark", libc::POLLIN);
    s.tell("file 100 2");
    s.arrived(200);
    s.poll("at the mark", libc::POLLIN);
    s.recv("peek", 300, MSG_PEEK);
    s.recv("peek less", 150, MSG_PEEK);
    s.recv("peek and wait", 200, MSG_PEEK | MSG_WAITALL);
    s.ret("peek at nothing", io::recv(s.fd, &mut [], MSG_PEEK | MSG_DONTWAIT));
    s.recv("some", 40, 0);
    s.recv("peek again", 300, MSG_PEEK);
    s.recv("all", 300, 0);
    s.tell("send 100 3");
    s.recv("waitall", 100, MSG_WAITALL);
}

/// What the peeking call waits for is partly in the file.
fn ends_in_a_file(s: &mut Session) {
    s.await_lane();
    s.tell("send 100 1");
    s.arrived(100);
    s.later("file 100 2");
    s.recv("peek and wait", 200, MSG_PEEK | MSG_WAITALL);
    s.recv("all", 200, MSG_WAITALL);
}

fn looks_into_several_places(s: &mut Session) {
    s.tell("send 100 1");
    s.arrived(100);
    for flags in [MSG_PEEK, MSG_PEEK | MSG_DONTWAIT, MSG_PEEK | MSG_WAITALL] {
        let message = io::recvmsg(s.fd, &[30, 0, 20, 40], flags);
        s.say("recvmsg", format!("{} {}", shown(message.got), digest(&message.bytes)));
    }
    s.ret("nowhere", io::recv_nowhere(s.fd, 70, MSG_PEEK | MSG_TRUNC));
    s.recv("all", 100, 0);
}

fn looks_at_the_end(s: &mut Session) {
    s.tell("send 10 1");
    s.tell("shut 1");
    s.await_events(libc::POLLRDHUP);
    for _ in 0..2 {
        s.ret("nowhere", io::recv_nowhere(s.fd, 70, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT));
        let message = io::recvmsg(s.fd, &[5, 20], MSG_PEEK);
        s.say("recvmsg", format!("{} {}", shown(message.got), digest(&message.bytes)));
        s.recv("recv", 20, MSG_WAITALL);
    }
}

fn looks_before_the_lane(s: &mut Session) {
    looks_into_several_places(s);
}

fn throws_much_away(s: &mut Session) {
    s.tell("send 30000 1");
    s.arrived(30_000);
    s.ret("into several places", io::recvmsg(s.fd, &[50, 50], MSG_TRUNC).got);
    s.recv("recv", 15_000, MSG_TRUNC);
    s.ret("nowhere", io::recv_nowhere(s.fd, 10_000, MSG_TRUNC | MSG_DONTWAIT));
    s.recv("the rest", 30_000, 0);
}

/// From the kernel to a ring and back, before anything is read.
fn turns_twice(s: &mut Session) {
    s.tell("send 5000 1");
    s.arrived(5000);
    s.await_lane();
    s.tell("send 5000 2");
    s.arrived(10_000);
    s.tell("errors");
    s.tell("send 100 3");
    s.arrived(10_100);
    s.say("FIONREAD", format!("{:?}", fds::ioctl(s.fd, FIONREAD, -1)));
    s.recv("peek", 20_000, MSG_PEEK);
    s.recv("throw away", 7000, MSG_TRUNC);
    s.recv("peek", 20_000, MSG_PEEK);
    s.recv("all", 20_000, 0);
}
