//! What a lane need not carry, but must not get wrong: urgent data, sendfile(2), splice(2), stdio.

use std::io::Write;
use std::os::fd::AsRawFd;

use libc::{MSG_OOB, POLLIN, POLLPRI};

use super::group;
use crate::session::{Session, digest, pattern, until};
use crate::sys::process::Stream;
use crate::sys::{fds, io, ready, shown, sock};

/// sockios.h.
const SIOCATMARK: libc::Ioctl = 0x8905;

group!("odd":
    urgent_comes urgent_inline urgent_goes urgent_among_data file_goes splice_in splice_out stdio stdio_then_recv
    zero_ways_to_nothing lane_after_urgent;
    file_goes_first splice_first
);

fn exchange(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"exchange", 0));
    s.tell("recv 8");
    s.later("send 10 3");
    s.recv("recv", 10, libc::MSG_WAITALL);
}

fn urgent_comes(s: &mut Session) {
    s.tell("urgent");
    until("urgent data", || ready::poll(&[(s.fd, POLLPRI)], 100).1[0] & POLLPRI != 0);
    s.poll("poll", POLLPRI | POLLIN);
    s.recv("the byte", 1, MSG_OOB);
    s.recv("it is gone", 1, MSG_OOB);
    exchange(s);
}

fn urgent_inline(s: &mut Session) {
    s.ret("SO_OOBINLINE", sock::set_int(s.fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1));
    s.tell("urgent");
    s.arrived(1);
    s.say("at the mark", format!("{:?}", fds::ioctl(s.fd, SIOCATMARK, -1)));
    s.recv("in line", 10, 0);
    s.recv("not out of band", 1, MSG_OOB);
    exchange(s);
}

fn urgent_goes(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"before", 0));
    s.ret("send", io::send(s.fd, b"!", MSG_OOB));
    s.ret("send", io::send(s.fd, b"after", 0));
    s.tell("recv 6");
    s.tell("recv 5");
    exchange(s);
}

fn urgent_among_data(s: &mut Session) {
    s.tell("send 10 1");
    s.tell("urgent");
    s.tell("send 10 2");
    until("urgent data", || ready::poll(&[(s.fd, POLLPRI)], 100).1[0] & POLLPRI != 0);
    s.recv("up to the mark", 100, 0);
    s.say("at the mark", format!("{:?}", fds::ioctl(s.fd, SIOCATMARK, -1)));
    s.recv("the byte", 1, MSG_OOB);
    s.recv("after the mark", 10, libc::MSG_WAITALL);
    exchange(s);
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
    let path = std::env::temp_dir().join(format!("parity-{}", std::process::id()));
    let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(&pattern(6, 200_000)).unwrap();
    file
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
    exchange(s);
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
    exchange(s);
    send_file(s);
}

fn splice_in(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    s.ret("write", io::write(into, &pattern(1, 3000)));
    s.ret("splice", io::splice(out, s.fd, 3000, 0));
    s.tell("recv 3000");
    exchange(s);
}

fn splice_out(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    s.tell("send 3000 2");
    s.arrived(3000);
    let mut total = 0;
    while total < 3000 {
        match io::splice(s.fd, into, 3000, 0) {
            got if got > 0 => total += got,
            error => {
                s.ret("splice", error);
                return;
            }
        }
    }
    let mut buffer = vec![0; 4000];
    let got = io::read(out, &mut buffer);
    s.say("read", format!("{} {}", shown(got), digest(&buffer[..got.max(0) as usize])));
    fds::fcntl(s.fd, libc::F_SETFL, libc::O_NONBLOCK);
    s.ret("nothing left", io::splice(s.fd, into, 3000, libc::SPLICE_F_NONBLOCK));
    fds::fcntl(s.fd, libc::F_SETFL, 0);
    exchange(s);
}

fn splice_first(s: &mut Session) {
    splice_out(s);
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
    exchange(s);
}

fn stdio_then_recv(s: &mut Session) {
    let stream = Stream::open(s.fd);
    s.tell("text a line");
    s.say("fgets", stream.line().trim_end());
    s.tell("send 10 1");
    s.recv("recv", 10, libc::MSG_WAITALL);
    s.ret("fputs", stream.say("by stdio\n"));
    s.ret("send", io::send(s.fd, b"by send", 0));
    s.tell("recv 16");
    s.ret("fclose", stream.close());
    s.tell("drain");
}

fn zero_ways_to_nothing(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    s.ret("splice of nothing", io::splice(out, s.fd, 0, 0));
    fds::fcntl(s.fd, libc::F_SETFL, libc::O_NONBLOCK);
    s.ret("splice with nothing there", io::splice(s.fd, into, 10, libc::SPLICE_F_NONBLOCK));
    fds::fcntl(s.fd, libc::F_SETFL, 0);
    exchange(s);
}
