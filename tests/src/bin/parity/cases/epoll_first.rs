//! epoll(7) where the connection is in a set before there is traffic: a set that the kernel alone served until then.

use libc::EPOLL_CTL_MOD as MOD;
use libc::{EPOLLET, EPOLLIN, EPOLLONESHOT, EPOLLOUT};

use super::epoll::{set_with, show};
use super::group;
use crate::session::Session;
use crate::sys::io;
use crate::sys::ready::{epoll_ctl, epoll_wait};

group!("epoll":
    ;
    registered_first registered_first_edge registered_first_oneshot waits_first
);

fn registered_first(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    exchange(s);
    show(s, "empty", epoll_wait(set, 8, 0));
    s.later("send 10 1");
    show(s, "wakes up", epoll_wait(set, 8, -1));
    s.recv("recv", 10, 0);
}

fn registered_first_edge(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLOUT | EPOLLET);
    show(s, "writable", epoll_wait(set, 8, 1000));
    exchange(s);
    show(s, "the exchange left an edge", epoll_wait(set, 8, 1000));
    s.later("send 10 1");
    show(s, "wakes up", epoll_wait(set, 8, -1));
    s.recv("recv", 10, 0);
}

fn registered_first_oneshot(s: &mut Session) {
    let set = set_with(s, EPOLLIN | EPOLLONESHOT);
    s.later("send 10 1");
    show(s, "wakes up", epoll_wait(set, 8, -1));
    s.recv("recv", 10, 0);
    exchange(s);
    s.tell("send 10 2");
    s.arrived(10);
    show(s, "stays disarmed", epoll_wait(set, 8, 20));
    s.ret("mod", epoll_ctl(set, MOD, s.fd, EPOLLIN | EPOLLONESHOT, 8));
    show(s, "armed again", epoll_wait(set, 8, 1000));
}

fn waits_first(s: &mut Session) {
    let set = set_with(s, EPOLLIN);
    s.later("send 10 1");
    show(s, "wait", epoll_wait(set, 8, -1));
    s.recv("recv", 10, 0);
    show(s, "empty", epoll_wait(set, 8, 0));
    s.later("send 10 2");
    show(s, "wait", epoll_wait(set, 8, -1));
    s.recv("recv", 10, 0);
}

/// Traffic: an eager end is on its lane afterwards.
fn exchange(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"0123456789", 0));
    s.tell("recv 10");
    s.tell("send 10 6");
    s.recv("recv", 10, libc::MSG_WAITALL);
}
