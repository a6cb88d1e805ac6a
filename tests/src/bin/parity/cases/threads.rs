//! Several threads on one connection.

use std::sync::Mutex;
use std::time::Duration;

use super::group;
use crate::session::{Session, digest, pattern};
use crate::sys::cancel::{self, Sleep};
use crate::sys::ready::{epoll_create, epoll_ctl, epoll_wait, poll};
use crate::sys::{fds, io, shown, sock};

group!("threads":
    reader_and_writer several_readers several_writers closed_while_reading shut_while_reading shut_while_polling
    shut_while_in_epoll two_pollers two_in_one_set cancelled_in_recv cancelled_in_read cancelled_in_poll
    cancelled_on_a_pipe writer_waits_for_reader;
    two_readers_at_first
);

const PAUSE: Duration = Duration::from_millis(30);

fn reader_and_writer(s: &mut Session) {
    s.ask("echo 2000000");
    let (bytes, fd) = (pattern(3, 2_000_000), s.fd);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| io::send(fd, &bytes, 0));
        s.recv("recv", 2_000_000, libc::MSG_WAITALL);
        s.ret("send", writer.join().unwrap_or(-1));
    });
    s.tell("sync");
}

fn several_readers(s: &mut Session) {
    let (fd, all) = (s.fd, Mutex::new((0, 0u64)));
    s.begin("send 400000 5");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut buffer = vec![0; 10_000];
                loop {
                    let got = io::recv(fd, &mut buffer, 0);
                    if got <= 0 {
                        return;
                    }
                    let sum: u64 = buffer[..got as usize].iter().map(|&byte| u64::from(byte)).sum();
                    let mut all = all.lock().unwrap();
                    *all = (all.0 + got, all.1 + sum);
                }
            });
        }
        s.answer();
        s.ask("shut 1");
    });
    s.say("bytes and their sum", format!("{:?}", all.lock().unwrap()));
}

fn several_writers(s: &mut Session) {
    let fd = s.fd;
    s.begin("recv 200000");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // All alike: in which order they come is nobody's promise.
            scope.spawn(|| (0..50).map(|_| io::send(fd, &[7; 1000], 0)).sum::<i64>());
        }
    });
    let answer = s.answer();
    s.say("received", answer);
}

fn closed_while_reading(s: &mut Session) {
    let fd = s.fd;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut buffer = vec![0; 100];
            let got = io::recv(fd, &mut buffer, 0);
            format!("{} {}", shown(got), digest(&buffer[..got.clamp(0, 100) as usize]))
        });
        std::thread::sleep(PAUSE);
        s.ret("close", fds::close(fd));
        s.tell("send 10 1");
        s.say("the reader", reader.join().unwrap_or_default());
    });
    s.ret("recv", io::recv(fd, &mut [0], 0));
    s.tell("wait");
    s.tell("drain");
}

fn shut_while_reading(s: &mut Session) {
    let fd = s.fd;
    for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || io::recv(fd, &mut [0; 10], 0));
            std::thread::sleep(PAUSE);
            s.ret("shutdown", sock::shutdown(fd, how));
            s.ret("the reader", reader.join().unwrap_or(-1));
        });
    }
}

fn shut_while_polling(s: &mut Session) {
    let fd = s.fd;
    std::thread::scope(|scope| {
        let poller = scope.spawn(move || poll(&[(fd, libc::POLLIN | libc::POLLRDHUP)], 5000));
        std::thread::sleep(PAUSE);
        s.ret("shutdown", sock::shutdown(fd, libc::SHUT_RD));
        s.say("the poller", format!("{:?}", poller.join().unwrap_or_default()));
    });
}

fn shut_while_in_epoll(s: &mut Session) {
    let (fd, set) = (s.fd, epoll_create());
    s.ret("add", epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET, 1));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || epoll_wait(set, 8, 5000));
        std::thread::sleep(PAUSE);
        s.ret("shutdown", sock::shutdown(fd, libc::SHUT_RD));
        s.say("the waiter", format!("{:?}", waiter.join().unwrap_or_default()));
    });
}

fn two_pollers(s: &mut Session) {
    let fd = s.fd;
    std::thread::scope(|scope| {
        let pollers = [0, 1].map(|_| scope.spawn(move || poll(&[(fd, libc::POLLIN)], 5000)));
        std::thread::sleep(PAUSE);
        s.tell("send 10 1");
        for poller in pollers {
            s.say("poller", format!("{:?}", poller.join().unwrap_or_default()));
        }
    });
    s.recv("recv", 10, 0);
}

fn two_in_one_set(s: &mut Session) {
    let (fd, set) = (s.fd, epoll_create());
    s.ret("add", epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLET, 1));
    std::thread::scope(|scope| {
        // An edge wakes one of them.
        let waiters = [0, 1].map(|_| scope.spawn(move || epoll_wait(set, 8, 300).0));
        std::thread::sleep(PAUSE);
        s.tell("send 10 1");
        let mut got = waiters.map(|waiter| waiter.join().unwrap_or(-1));
        got.sort_unstable();
        s.say("waiters", format!("{got:?}"));
    });
    s.recv("recv", 10, 0);
}

fn cancelled_in_recv(s: &mut Session) {
    s.say("cancelled", cancel::cancel(s.fd, Sleep::Recv));
    go_on(s);
}

fn cancelled_in_read(s: &mut Session) {
    s.say("cancelled", cancel::cancel(s.fd, Sleep::Read));
    go_on(s);
}

fn cancelled_in_poll(s: &mut Session) {
    s.say("cancelled", cancel::cancel(s.fd, Sleep::Poll));
    go_on(s);
}

fn cancelled_on_a_pipe(s: &mut Session) {
    let [out, _into] = fds::pipe(0);
    s.say("cancelled", cancel::cancel(out, Sleep::Read));
    go_on(s);
}

/// No lock is left behind.
fn go_on(s: &mut Session) {
    s.later("send 10 1");
    s.recv("recv", 10, 0);
    s.ret("send", io::send(s.fd, b"go on", 0));
    s.tell("recv 5");
}

fn writer_waits_for_reader(s: &mut Session) {
    let (fd, bytes) = (s.fd, pattern(4, 6_000_000));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| io::send(fd, &bytes, 0));
        std::thread::sleep(PAUSE);
        // It sleeps in a full buffer; meanwhile the other direction works.
        s.tell("send 10 1");
        s.recv("recv", 10, libc::MSG_WAITALL);
        s.tell("recv 6000000");
        s.ret("the writer", writer.join().unwrap_or(-1));
    });
}

fn two_readers_at_first(s: &mut Session) {
    let fd = s.fd;
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| scope.spawn(move || io::recv(fd, &mut [0; 10], libc::MSG_WAITALL)));
        std::thread::sleep(PAUSE);
        s.tell("send 20 1");
        let mut total = 0;
        for reader in readers {
            total += reader.join().unwrap_or(-1);
        }
        s.say("both readers", total);
    });
}
