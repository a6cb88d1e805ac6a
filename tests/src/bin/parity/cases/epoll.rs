//! epoll(7): all its modes, and sets within sets.

use libc::{EPOLL_CTL_ADD as ADD, EPOLL_CTL_DEL as DEL, EPOLL_CTL_MOD as MOD};
use libc::{EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLPRI, EPOLLRDHUP};

use super::group;
use crate::session::{Session, named};
use crate::sys::ready::{epoll_create, epoll_ctl, epoll_pwait, epoll_wait, poll};
use crate::sys::{fds, io, shown, sock};

group!("epoll":
    level edge edge_writable oneshot exclusive rearm_by_mod edge_mod remove control_errors data_is_kept two_sets times_out
    wakes_up set_in_poll nested with_pipe with_timerfd peer_shuts both_shut peer_resets closed_leaves duplicate_stays
    added_while_waiting pwait full_then_writable nonblocking_loop;
);

/// Prints what epoll_wait(2) returned.
pub fn show(s: &Session, label: &str, (got, events): (i64, Vec<(u32, u64)>)) {
    let words: Vec<String> = events.iter().map(|&(events, data)| format!("{}@{data}", named(events as i16))).collect();
    s.say(label, format!("{} {}", shown(got), words.join(" ")));
}

/// A set that has the connection in it.
pub fn set_with(s: &Session, events: i32) -> i32 {
    let set = epoll_create();
    s.ret("add", epoll_ctl(set, ADD, s.fd, events, 1));
    set
}

fn level(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    show(s, "empty", epoll_wait(set, 8, 0));
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "ten bytes", epoll_wait(set, 8, 0));
    show(s, "still", epoll_wait(set, 8, 0));
    s.recv("recv", 5, 0);
    show(s, "five left", epoll_wait(set, 8, 0));
    s.recv("recv", 5, 0);
    show(s, "none left", epoll_wait(set, 8, 0));
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN | EPOLLOUT, 2));
    show(s, "writable", epoll_wait(set, 8, 0));
    show(s, "still writable", epoll_wait(set, 8, 0));
}

fn edge(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLET);
    show(s, "empty", epoll_wait(set, 8, 0));
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "an edge", epoll_wait(set, 8, 1000));
    show(s, "no edge", epoll_wait(set, 8, 0));
    s.recv("recv", 5, 0);
    show(s, "reading is no edge", epoll_wait(set, 8, 0));
    s.tell("send 10 2");
    s.arrived(15);
    show(s, "more came", epoll_wait(set, 8, 1000));
    s.recv("recv", 100, 0);
    s.recv("recv", 100, libc::MSG_DONTWAIT);
    show(s, "empty", epoll_wait(set, 8, 0));
    s.later("send 10 3");
    show(s, "wakes up", epoll_wait(set, 8, -1));
}

fn edge_writable(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLOUT | EPOLLET);
    show(s, "writable at first", epoll_wait(set, 8, 1000));
    show(s, "once", epoll_wait(set, 8, 0));
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "an edge tells all", epoll_wait(set, 8, 1000));
    show(s, "once", epoll_wait(set, 8, 0));
}

fn oneshot(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLONESHOT);
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "first", epoll_wait(set, 8, 1000));
    show(s, "disarmed", epoll_wait(set, 8, 0));
    s.tell("send 10 2");
    s.arrived(20);
    show(s, "still disarmed", epoll_wait(set, 8, 20));
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN | EPOLLONESHOT, 9));
    show(s, "armed again", epoll_wait(set, 8, 1000));
    show(s, "disarmed", epoll_wait(set, 8, 0));
    s.recv("recv", 100, 0);
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN | EPOLLONESHOT, 9));
    show(s, "armed and empty", epoll_wait(set, 8, 20));
    s.later("send 10 3");
    show(s, "wakes up", epoll_wait(set, 8, -1));
}

fn exclusive(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLEXCLUSIVE);
    show(s, "empty", epoll_wait(set, 8, 0));
    s.later("send 10 1");
    show(s, "wakes up", epoll_wait(set, 8, -1));
    s.ret("mod is forbidden", epoll_ctl(set, MOD, s.fd, EPOLLIN, 1));
    s.ret("oneshot is forbidden", epoll_ctl(epoll_create(), ADD, s.fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
    s.recv("recv", 10, 0);
    show(s, "empty", epoll_wait(set, 8, 0));
}

fn rearm_by_mod(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.tell("send 10 1");
    s.arrived(10);
    s.ret("mod to nothing", epoll_ctl(set, MOD, s.fd, 0, 3));
    show(s, "nothing asked", epoll_wait(set, 8, 0));
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN, 4));
    show(s, "asked again", epoll_wait(set, 8, 0));
}

fn edge_mod(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLET);
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "an edge", epoll_wait(set, 8, 1000));
    show(s, "no edge", epoll_wait(set, 8, 0));
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN | EPOLLET, 5));
    show(s, "mod looks again", epoll_wait(set, 8, 0));
    show(s, "once", epoll_wait(set, 8, 0));
}

fn remove(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.tell("send 10 1");
    s.arrived(10);
    s.ret("del", epoll_ctl(set, DEL, s.fd, 0, 0));
    show(s, "gone", epoll_wait(set, 8, 20));
    s.ret("add", epoll_ctl(set, ADD, s.fd, EPOLLIN, 6));
    show(s, "back", epoll_wait(set, 8, 0));
}

fn control_errors(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.ret("add twice", epoll_ctl(set, ADD, s.fd, EPOLLIN, 1));
    s.ret("del", epoll_ctl(set, DEL, s.fd, 0, 0));
    s.ret("del twice", epoll_ctl(set, DEL, s.fd, 0, 0));
    s.ret("mod missing", epoll_ctl(set, MOD, s.fd, EPOLLIN, 1));
    s.ret("no such operation", epoll_ctl(set, 77, s.fd, EPOLLIN, 1));
    s.ret("closed", epoll_ctl(set, ADD, 900, EPOLLIN, 1));
    s.ret("no set", epoll_ctl(s.fd, ADD, set, EPOLLIN, 1));
    s.ret("itself", epoll_ctl(set, ADD, set, EPOLLIN, 1));
    show(s, "no room", epoll_wait(set, 0, 0));
    show(s, "not a set", epoll_wait(s.fd, 8, 0));
    show(s, "closed", epoll_wait(900, 8, 0));
}

fn data_is_kept(s: &mut Session) {
    let set = epoll_create();
    s.ret("add", epoll_ctl(set, ADD, s.fd, EPOLLIN | EPOLLOUT, u64::MAX - 5));
    show(s, "wait", epoll_wait(set, 1, 0));
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN | EPOLLOUT, 0x1234_5678_9abc_def0));
    show(s, "wait", epoll_wait(set, 1, 0));
}

fn two_sets(s: &mut Session) {
    let (level, edge) = (set_with(s, EPOLLIN), set_with(s, EPOLLIN | EPOLLET));
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "edge", epoll_wait(edge, 8, 1000));
    show(s, "level", epoll_wait(level, 8, 1000));
    show(s, "edge again", epoll_wait(edge, 8, 0));
    show(s, "level again", epoll_wait(level, 8, 0));
    s.recv("recv", 10, 0);
    show(s, "level empty", epoll_wait(level, 8, 0));
}

fn times_out(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.timed("wait", 40, || show(s, "wait", epoll_wait(set, 8, 40)));
    let empty = epoll_create();
    s.timed("an empty set", 20, || show(s, "wait", epoll_wait(empty, 8, 20)));
}

fn wakes_up(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLRDHUP);
    for timeout in [-1, 5000] {
        s.later("send 10 1");
        show(s, "wait", epoll_wait(set, 8, timeout));
        s.recv("recv", 10, 0);
    }
    s.later("shut 1");
    show(s, "end", epoll_wait(set, 8, -1));
}

fn set_in_poll(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.say("empty", format!("{:?}", poll(&[(set, libc::POLLIN)], 0)));
    s.later("send 10 1");
    s.say("wakes up", format!("{:?}", poll(&[(set, libc::POLLIN)], 5000)));
    show(s, "wait", epoll_wait(set, 8, 0));
    s.recv("recv", 10, 0);
    s.say("empty", format!("{:?}", poll(&[(set, libc::POLLIN)], 0)));
}

fn nested(s: &mut Session) {
    let inner = set_with(s, EPOLLIN);
    let outer = epoll_create();
    s.ret("add the set", epoll_ctl(outer, ADD, inner, EPOLLIN, 7));
    show(s, "empty", epoll_wait(outer, 8, 0));
    s.later("send 10 1");
    show(s, "outer wakes up", epoll_wait(outer, 8, 5000));
    show(s, "inner", epoll_wait(inner, 8, 0));
    s.recv("recv", 10, 0);
    show(s, "outer is empty", epoll_wait(outer, 8, 0));
}

fn with_pipe(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    let [out, into] = fds::pipe(0);
    s.ret("add pipe", epoll_ctl(set, ADD, out, EPOLLIN, 2));
    s.timed("neither", 30, || show(s, "wait", epoll_wait(set, 8, 30)));
    io::write(into, b"x");
    show(s, "pipe", epoll_wait(set, 8, 5000));
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "both", epoll_wait(set, 8, 5000));
    io::read(out, &mut [0]);
    show(s, "socket", epoll_wait(set, 8, 5000));
    s.recv("recv", 10, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            io::write(into, b"y");
        });
        show(s, "pipe wakes up", epoll_wait(set, 8, -1));
    });
}

fn with_timerfd(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    let timer = fds::timerfd(30);
    s.ret("add timer", epoll_ctl(set, ADD, timer, EPOLLIN, 2));
    s.timed("timer", 20, || show(s, "wait", epoll_wait(set, 8, -1)));
}

fn peer_shuts(s: &mut Session) {
    let (plain, asked) = (set_with(s, EPOLLIN), set_with(s, EPOLLIN | EPOLLRDHUP | EPOLLOUT));
    s.later("shut 1");
    s.await_events(libc::POLLRDHUP);
    show(s, "asked for", epoll_wait(asked, 8, 1000));
    show(s, "not asked for", epoll_wait(plain, 8, 1000));
    s.recv("recv", 10, 0);
    show(s, "still", epoll_wait(plain, 8, 1000));
}

fn both_shut(s: &mut Session) {
    let set = set_with(s, 0);
    s.ret("shutdown", sock::shutdown(s.fd, libc::SHUT_WR));
    s.tell("drain");
    show(s, "ours shut", epoll_wait(set, 8, 20));
    s.tell("shut 1");
    s.await_events(libc::POLLHUP);
    show(s, "both shut", epoll_wait(set, 8, 5000));
}

fn peer_resets(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLPRI);
    s.later("reset");
    show(s, "reset", epoll_wait(set, 8, -1));
    show(s, "still", epoll_wait(set, 8, 0));
    s.recv("recv", 10, 0);
    show(s, "told", epoll_wait(set, 8, 0));
}

fn closed_leaves(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLOUT);
    show(s, "open", epoll_wait(set, 8, 0));
    s.ret("close", fds::close(s.fd));
    show(s, "closed", epoll_wait(set, 8, 20));
    s.tell("drain");
}

fn duplicate_stays(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    let other = fds::dup(s.fd);
    s.ret("add the duplicate", epoll_ctl(set, ADD, other, EPOLLIN, 2));
    s.tell("send 10 1");
    s.arrived(10);
    show(s, "both", epoll_wait(set, 8, 1000));
    let old = std::mem::replace(&mut s.fd, other);
    s.ret("close the first", fds::close(old));
    show(s, "its registration stays", epoll_wait(set, 8, 1000));
    s.recv("recv", 10, 0);
    show(s, "empty", epoll_wait(set, 8, 0));
}

fn added_while_waiting(s: &mut Session) {
    let set = epoll_create();
    s.tell("send 10 1");
    s.arrived(10);
    let fd = s.fd;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(30));
            epoll_ctl(set, ADD, fd, EPOLLIN, 3);
        });
        show(s, "another thread adds", epoll_wait(set, 8, -1));
    });
    s.recv("recv", 10, 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(30));
            epoll_ctl(set, MOD, fd, EPOLLOUT, 4);
        });
        show(s, "another thread asks for more", epoll_wait(set, 8, -1));
    });
}

fn pwait(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.timed("pwait", 40, || show(s, "pwait", epoll_pwait(set, 8, 40, Some(libc::SIGUSR1))));
    s.later("send 10 1");
    show(s, "wakes up", epoll_pwait(set, 8, -1, None));
}

fn full_then_writable(s: &mut Session) {
    let set = set_with(s, EPOLLOUT | EPOLLET);
    show(s, "writable", epoll_wait(set, 8, 1000));
    let mut sent = 0;
    loop {
        let got = io::send(s.fd, &[7; 50_000], libc::MSG_DONTWAIT);
        if got > 0 {
            sent += got;
        } else if epoll_wait(set, 8, 300).0 == 0 {
            break;
        }
    }
    show(s, "full", epoll_wait(set, 8, 0));
    s.ask(&format!("recv {sent}"));
    show(s, "an edge when there is room", epoll_wait(set, 8, 5000));
}

fn nonblocking_loop(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLET);
    s.ret("nonblocking", fds::fcntl(s.fd, libc::F_SETFL, libc::O_NONBLOCK));
    s.begin("send 500000 4");
    let (mut total, mut buffer) = (0, vec![0; 4096]);
    while total < 500_000 && epoll_wait(set, 8, 5000).0 == 1 {
        loop {
            match io::recv(s.fd, &mut buffer, 0) {
                got if got > 0 => total += got,
                _ => break,
            }
        }
    }
    s.say("received", total);
    s.answer();
}
