//! What a lane need not carry, but must not get wrong: urgent data, sendfile(2), splice(2), stdio.

use std::os::fd::{AsRawFd, RawFd};

use libc::{MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_WAITALL, POLLIN, POLLPRI};

use super::group;
use crate::session::{Session, digest, pattern, until};
use crate::sys::process::Stream;
use crate::sys::{fds, io, ready, shown, sock};

/// sockios.h.
const SIOCATMARK: libc::Ioctl = 0x8905;

group!("odd":
    urgent_comes urgent_inline urgent_goes urgent_among_data urgent_read_first urgent_stops_waitall urgent_stops_vectors
    file_goes splice_in splice_out splice_to_a_full_pipe stdio stdio_then_recv zero_ways_to_nothing lane_after_urgent;
    file_goes_first splice_first
);

fn urgent_comes(s: &mut Session) {
    s.tell("urgent");
    until("urgent data", || ready::poll(&[(s.fd, POLLPRI)], 100).1[0] & POLLPRI != 0);
    s.poll("poll", POLLPRI | POLLIN);
    s.recv("the byte", 1, MSG_OOB);
    s.recv("it is gone", 1, MSG_OOB);
    s.exchange();
}

fn urgent_inline(s: &mut Session) {
    s.ret("SO_OOBINLINE", sock::set_int(s.fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1));
    s.tell("urgent");
    s.arrived(1);
    s.say("at the mark", format!("{:?}", fds::ioctl(s.fd, SIOCATMARK, -1)));
    s.recv("in line", 10, 0);
    s.recv("not out of band", 1, MSG_OOB);
    s.exchange();
}

fn urgent_goes(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"before", 0));
    s.ret("send", io::send(s.fd, b"!", MSG_OOB));
    s.ret("send", io::send(s.fd, b"after", 0));
    s.tell("recv 6");
    s.tell("recv 5");
    s.exchange();
}

/// 10 bytes, the urgent one, 10 bytes: when this returns all of them are here.
fn urgent_between(s: &mut Session) {
    s.tell("send 10 1");
    s.tell("urgent");
    s.tell("send 10 2");
    s.tell("delivered");
}

/// What is told without reading.
fn mark(s: &Session) {
    s.say("up to the mark", format!("{:?}", fds::ioctl(s.fd, libc::FIONREAD, -1)));
    s.say("at the mark", format!("{:?}", fds::ioctl(s.fd, SIOCATMARK, -1)));
    s.poll("poll", POLLPRI | POLLIN);
}

fn urgent_among_data(s: &mut Session) {
    urgent_between(s);
    mark(s);
    s.recv("a look at the byte", 1, MSG_OOB | MSG_PEEK);
    s.recv("before the mark", 4, 0);
    mark(s);
    s.recv("not beyond the mark", 100, 0);
    mark(s);
    s.recv("the byte", 1, MSG_OOB);
    s.recv("it is gone", 1, MSG_OOB);
    mark(s);
    s.recv("after the mark", 100, MSG_DONTWAIT);
    mark(s);
    s.recv("nothing left", 100, MSG_DONTWAIT);
    s.exchange();
    // Passed over without being asked for, it is no byte of the stream.
    urgent_between(s);
    s.recv("not beyond the mark", 100, 0);
    s.recv("after the mark", 100, MSG_DONTWAIT);
    s.recv("it is gone", 1, MSG_OOB);
    s.recv("nothing left", 100, MSG_DONTWAIT);
    s.exchange();
}

fn urgent_read_first(s: &mut Session) {
    urgent_between(s);
    s.recv("the byte", 1, MSG_OOB);
    // Time enough to be tempted to go to a lane: the mark still lies ahead.
    s.later("sync");
    s.tell("sync");
    for _ in 0..5 {
        s.recv("before the mark", 1, 0);
    }
    mark(s);
    s.recv("not beyond the mark", 100, 0);
    mark(s);
    s.recv("after the mark", 100, MSG_DONTWAIT);
    mark(s);
    s.recv("nothing left", 100, MSG_DONTWAIT);
    s.exchange();
}

fn urgent_stops_waitall(s: &mut Session) {
    urgent_between(s);
    s.recv("not beyond the mark", 20, MSG_WAITALL);
    mark(s);
    s.recv("the byte", 1, MSG_OOB);
    s.recv("after the mark", 100, MSG_DONTWAIT);
    s.exchange();
    // The same while the call sleeps: the mark comes to it.
    s.later("send 10 1");
    s.begin("later urgent");
    s.begin("later send 10 2");
    s.recv("not beyond the mark", 20, MSG_WAITALL);
    for _ in 0..2 {
        s.answer();
    }
    s.tell("delivered");
    mark(s);
    s.recv("the byte", 1, MSG_OOB);
    s.recv("after the mark", 100, MSG_DONTWAIT);
    s.exchange();
}

fn urgent_stops_vectors(s: &mut Session) {
    urgent_between(s);
    let (got, bytes) = io::readv(s.fd, &[10, 10], None);
    s.say("not beyond the mark", format!("{} {}", shown(got), digest(&bytes)));
    mark(s);
    s.recv("the byte", 1, MSG_OOB);
    s.recv("after the mark", 100, MSG_DONTWAIT);
    s.recv("nothing left", 10, MSG_DONTWAIT);
    s.exchange();
}

fn lane_after_urgent(s: &mut Session) {
    s.tell("urgent");
    until("urgent data", || ready::poll(&[(s.fd, POLLPRI)], 100).1[0] & POLLPRI != 0);
    s.recv("the byte", 1, MSG_OOB);
    for _ in 0..3 {
        s.ret("send", io::send(s.fd, &pattern(1, 50_000), 0));
        s.tell("recv 50000");
    }
}

fn file() -> std::fs::File {
    fds::file_of(&pattern(6, 200_000)).unwrap()
}

fn send_file(s: &mut Session) {
    let file = file();
    s.begin("recv 200000");
    s.ret("sendfile", io::sendfile(s.fd, file.as_raw_fd(), 200_000));
    let answer = s.answer();
    s.say("received", answer);
}

fn file_goes(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"header", libc::MSG_MORE));
    s.tell("sync");
    send_file_after_header(s);
    s.exchange();
}

fn send_file_after_header(s: &mut Session) {
    let file = file();
    s.begin("recv 200006");
    s.ret("sendfile", io::sendfile(s.fd, file.as_raw_fd(), 200_000));
    let answer = s.answer();
    s.say("received", answer);
    s.ret("sendfile of nothing", io::sendfile(s.fd, file.as_raw_fd(), 0));
}

fn file_goes_first(s: &mut Session) {
    send_file(s);
    s.exchange();
    send_file(s);
}

fn splice_in(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    s.ret("write", io::write(into, &pattern(1, 3000)));
    s.ret("splice", io::splice(out, s.fd, 3000, 0));
    s.tell("recv 3000");
    s.exchange();
}

/// Moves `len` bytes from the socket through a pipe, and shows them. How many a call moves is nobody's promise.
fn splice_through(s: &Session, [out, into]: [RawFd; 2], len: usize) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while bytes.len() < len {
        let moved = io::splice(s.fd, into, len - bytes.len(), 0);
        if moved <= 0 {
            s.ret("splice", moved);
            break;
        }
        let read = io::read(out, &mut buffer[..moved as usize]);
        if read != moved {
            s.say("read", format!("{} of {moved}", shown(read)));
            break;
        }
        bytes.extend_from_slice(&buffer[..moved as usize]);
    }
    s.say("through the pipe", digest(&bytes));
}

fn nonblocking(s: &Session, on: bool) {
    s.ret("O_NONBLOCK", fds::fcntl(s.fd, libc::F_SETFL, if on { libc::O_NONBLOCK } else { 0 }));
}

fn splice_out(s: &mut Session) {
    let pipe = fds::pipe(0);
    s.tell("send 3000 2");
    s.arrived(3000);
    splice_through(s, pipe, 1000);
    s.say("left", format!("{:?}", fds::ioctl(s.fd, libc::FIONREAD, -1)));
    s.recv("recv goes on there", 500, MSG_WAITALL);
    splice_through(s, pipe, 1500);
    nonblocking(s, true);
    s.ret("nothing left", io::splice(s.fd, pipe[1], 3000, 0));
    nonblocking(s, false);
    s.exchange();
    // More than a pipe holds, while it comes; then what comes while the call sleeps.
    s.begin("send 300000 4");
    splice_through(s, pipe, 300_000);
    let answer = s.answer();
    s.say("sent", answer);
    s.later("send 10 5");
    splice_through(s, pipe, 10);
    s.ret("no pipe at all", io::splice(s.fd, s.fd, 10, 0));
    s.later("shut 1");
    s.ret("the end", io::splice(s.fd, pipe[1], 10, 0));
    s.ret("the end again", io::splice(s.fd, pipe[1], 10, 0));
    s.ret("send", io::send(s.fd, b"one way still", 0));
    s.tell("recv 13");
}

fn splice_first(s: &mut Session) {
    let pipe = fds::pipe(0);
    s.later("send 3000 2");
    splice_through(s, pipe, 3000);
    s.exchange();
    s.later("send 3000 4");
    splice_through(s, pipe, 3000);
    s.exchange();
}

fn splice_to_a_full_pipe(s: &mut Session) {
    let [out, into] = fds::pipe(libc::O_NONBLOCK);
    let room = std::iter::repeat_with(|| io::write(into, &[7; 4096])).take_while(|&got| got > 0).sum::<i64>();
    s.tell("send 10 1");
    s.arrived(10);
    s.ret("no room", io::splice(s.fd, into, 10, 0));
    s.say("none the less", format!("{:?}", fds::ioctl(s.fd, libc::FIONREAD, -1)));
    s.say("emptied", io::read(out, &mut vec![0; room as usize]) == room);
    splice_through(s, [out, into], 10);
    s.exchange();
}

fn stdio(s: &mut Session) {
    let stream = Stream::open(fds::dup(s.fd));
    s.tell("text a line");
    s.say("fgets", stream.line().trim_end());
    s.ret("fputs", stream.say("an answer\n"));
    s.tell("recv 10");
    s.later("text later");
    s.say("fgets", stream.line().trim_end());
    s.ret("fclose", stream.close());
    s.exchange();
}

fn stdio_then_recv(s: &mut Session) {
    let stream = Stream::open(s.fd);
    s.tell("text a line");
    s.say("fgets", stream.line().trim_end());
    s.tell("send 10 1");
    s.recv("recv", 10, MSG_WAITALL);
    s.ret("fputs", stream.say("by stdio\n"));
    s.ret("send", io::send(s.fd, b"by send", 0));
    s.tell("recv 16");
    s.ret("fclose", stream.close());
    s.tell("drain");
}

fn zero_ways_to_nothing(s: &mut Session) {
    let ([out, into], [no_more, end]) = (fds::pipe(0), fds::pipe(0));
    fds::close(end);
    let (nothing, null) = (fds::file_of(&[]).unwrap(), std::fs::File::open("/dev/null").unwrap());
    s.ret("splice nothing in", io::splice(out, s.fd, 0, 0));
    s.ret("splice nothing out", io::splice(s.fd, into, 0, 0));
    s.ret("splice from an empty pipe", io::splice(out, s.fd, 10, libc::SPLICE_F_NONBLOCK));
    s.ret("splice from a pipe at its end", io::splice(no_more, s.fd, 10, 0));
    s.ret("sendfile nothing", io::sendfile(s.fd, nothing.as_raw_fd(), 0));
    s.ret("sendfile from an empty file", io::sendfile(s.fd, nothing.as_raw_fd(), 10));
    s.ret("sendfile from nowhere", io::sendfile(s.fd, null.as_raw_fd(), 10));
    s.tell("try");
    s.exchange();
    nonblocking(s, true);
    s.ret("splice with nothing there", io::splice(s.fd, into, 10, 0));
    s.ret("splice with nothing there", io::splice(s.fd, into, 10, libc::SPLICE_F_NONBLOCK));
    nonblocking(s, false);
    s.say("nothing in the pipe", format!("{:?}", fds::ioctl(out, libc::FIONREAD, -1)));
    // A pipe that need not be waited for; the socket, which blocks, is.
    s.later("send 10 1");
    s.ret("splice waits", io::splice(s.fd, into, 10, libc::SPLICE_F_NONBLOCK));
    let mut buffer = [0; 20];
    let got = io::read(out, &mut buffer);
    s.say("read", format!("{} {}", shown(got), digest(&buffer[..got.clamp(0, 20) as usize])));
    s.tell("try");
    s.exchange();
}
