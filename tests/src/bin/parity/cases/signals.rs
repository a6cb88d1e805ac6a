//! Calls that a signal interrupts.

use std::time::{Duration, Instant};

use libc::{POLLIN, SIGALRM, SIGUSR1};

use super::group;
use crate::session::{Session, digest, pattern};
use crate::sys::ready::{READ, epoll_create, epoll_ctl, epoll_pwait, epoll_wait, poll, ppoll, pselect, select};
use crate::sys::{fds, io, process, sock};

group!("signals":
    recv recv_restarted read_restarted recv_with_timeout recv_waitall send send_restarted poll_interrupted
    ppoll_interrupted select_interrupted pselect_interrupted epoll_interrupted mask_of_ppoll mask_of_epoll
    soon_after_the_call mixed_handlers what_was_installed many_while_receiving sigio;
    first_recv first_recv_restarted
);

/// SIGALRM in 30 ms: by then the call sleeps.
fn alarm(restart: bool) {
    process::catch(SIGALRM, restart);
    process::alarm(30, 0);
}

fn recv(s: &mut Session) {
    alarm(false);
    s.recv("recv", 10, 0);
    s.say("caught", process::caught());
    alarm(false);
    s.ret("read", io::read(s.fd, &mut [0; 10]));
    alarm(false);
    s.ret("readv", io::readv(s.fd, &[10], None).0);
    alarm(false);
    s.ret("recvmsg", io::recvmsg(s.fd, &[10], 0).got);
    s.say("caught", process::caught());
    s.later("send 10 1");
    s.recv("recv", 10, 0);
}

fn recv_restarted(s: &mut Session) {
    alarm(true);
    s.later("sync");
    s.later("sync");
    s.later("send 10 1");
    s.recv("recv", 10, 0);
    s.say("caught", process::caught());
}

fn read_restarted(s: &mut Session) {
    alarm(true);
    s.later("sync");
    s.later("sync");
    s.later("send 10 1");
    s.ret("read", io::read(s.fd, &mut [0; 10]));
    s.say("caught", process::caught());
}

fn recv_with_timeout(s: &mut Session) {
    s.ret("timeout", sock::set_timeout(s.fd, libc::SO_RCVTIMEO, 5000));
    alarm(true);
    s.recv("a timed recv is not restarted", 10, 0);
    s.say("caught", process::caught());
}

fn recv_waitall(s: &mut Session) {
    s.tell("send 5 1");
    s.arrived(5);
    alarm(false);
    s.recv("what there was", 10, libc::MSG_WAITALL);
    s.say("caught", process::caught());
}

fn fill(s: &Session) {
    let chunk = vec![7; 20_000];
    loop {
        if io::send(s.fd, &chunk, libc::MSG_DONTWAIT) < 0 && poll(&[(s.fd, libc::POLLOUT)], 300).0 == 0 {
            return;
        }
    }
}

/// Repeats a sending call, which is interrupted every 30 ms, until one is that moved nothing; tells how that one ended, and notes
/// what the others moved. How much that is nobody promises; there is an end to it, as the other end does not read.
fn until_nothing_moves(s: &Session, label: &str, sent: &mut Vec<u8>, call: impl Fn(&[u8]) -> i64) {
    // More than all buffers on the way hold.
    let bytes = pattern(sent.len(), 16 << 20);
    let deadline = Instant::now() + Duration::from_secs(8);
    process::caught();
    process::alarm(30, 30);
    let outcome = loop {
        match call(&bytes[..]) {
            got if got > 0 && Instant::now() < deadline => sent.extend_from_slice(&bytes[..got as usize]),
            other => break other,
        }
    };
    process::alarm(0, 0);
    s.ret(label, outcome);
    s.say("caught", process::caught() > 0);
}

fn send(s: &mut Session) {
    process::catch(SIGALRM, false);
    process::alarm(30, 30);
    let bytes = pattern(0, 16 << 20);
    let got = io::send(s.fd, &bytes, 0);
    process::alarm(0, 0);
    s.say("a part, and no error", (1..16 << 20).contains(&got));
    s.say("caught", process::caught() > 0);
    let mut sent = bytes[..got.max(0) as usize].to_vec();
    until_nothing_moves(s, "send", &mut sent, |bytes| io::send(s.fd, bytes, 0));
    until_nothing_moves(s, "write", &mut sent, |bytes| io::write(s.fd, bytes));
    until_nothing_moves(s, "writev", &mut sent, |bytes| io::writev(s.fd, &[&bytes[..1000], &bytes[1000..]], None));
    until_nothing_moves(s, "sendmsg", &mut sent, |bytes| io::sendmsg(s.fd, &[bytes], 0, false));
    process::catch(SIGALRM, true);
    s.ret("timeout", sock::set_timeout(s.fd, libc::SO_SNDTIMEO, 5000));
    until_nothing_moves(s, "a timed send is not restarted", &mut sent, |bytes| io::send(s.fd, bytes, 0));
    let received = s.ask(&format!("recv {}", sent.len()));
    s.say("what was told, and not a byte else", received == digest(&sent));
    s.tell("try");
    s.ret("send", io::send(s.fd, &pattern(1, 10), 0));
    s.tell("recv 10");
}

fn send_restarted(s: &mut Session) {
    fill(s);
    alarm(true);
    // The other end begins to read when the signal has been handled.
    s.later("sync");
    s.later("sync");
    s.later("drain");
    s.ret("send", io::send(s.fd, &[7; 100_000], 0));
    s.say("caught", process::caught());
    s.ret("shutdown", sock::shutdown(s.fd, libc::SHUT_WR));
}

fn poll_interrupted(s: &mut Session) {
    for restart in [false, true] {
        alarm(restart);
        s.ret("poll", poll(&[(s.fd, POLLIN)], 5000).0);
        alarm(restart);
        s.ret("poll for ever", poll(&[(s.fd, POLLIN)], -1).0);
        s.say("caught", process::caught());
    }
}

fn ppoll_interrupted(s: &mut Session) {
    alarm(true);
    s.ret("ppoll", ppoll(&[(s.fd, POLLIN)], 5000, None).0);
    s.say("caught", process::caught());
}

fn select_interrupted(s: &mut Session) {
    for restart in [false, true] {
        alarm(restart);
        s.ret("select", select(&[(s.fd, READ)], 5000).0);
        s.say("caught", process::caught());
    }
}

fn pselect_interrupted(s: &mut Session) {
    alarm(true);
    s.ret("pselect", pselect(&[(s.fd, READ)], 5000, None).0);
    s.say("caught", process::caught());
}

fn epoll_interrupted(s: &mut Session) {
    let set = epoll_create();
    epoll_ctl(set, libc::EPOLL_CTL_ADD, s.fd, libc::EPOLLIN, 1);
    for restart in [false, true] {
        alarm(restart);
        s.ret("epoll_wait", epoll_wait(set, 8, 5000).0);
        alarm(restart);
        s.ret("epoll_wait for ever", epoll_wait(set, 8, -1).0);
        s.say("caught", process::caught());
    }
}

fn mask_of_ppoll(s: &mut Session) {
    process::catch(SIGALRM, true);
    process::block(SIGALRM, true);
    process::alarm(20, 0);
    s.timed("blocked meanwhile", 60, || s.ret("ppoll", ppoll(&[(s.fd, POLLIN)], 60, Some(SIGALRM)).0));
    s.say("caught", process::caught());
    s.ret("let in for the call, at once", ppoll(&[(s.fd, POLLIN)], 5000, None).0);
    s.say("caught", process::caught());
    process::alarm(20, 0);
    s.ret("let in while it waits", pselect(&[(s.fd, READ)], 5000, None).0);
    s.say("caught", process::caught());
}

fn mask_of_epoll(s: &mut Session) {
    let set = epoll_create();
    epoll_ctl(set, libc::EPOLL_CTL_ADD, s.fd, libc::EPOLLIN, 1);
    process::catch(SIGALRM, true);
    process::block(SIGALRM, true);
    process::alarm(20, 0);
    s.timed("blocked meanwhile", 60, || s.ret("epoll_pwait", epoll_pwait(set, 8, 60, Some(SIGALRM)).0));
    s.say("caught", process::caught());
    s.ret("let in for the call, at once", epoll_pwait(set, 8, 5000, None).0);
    s.say("caught", process::caught());
}

/// Receives so many bytes. With `may_end` EINTR is no surprise; returns how often it came.
fn recv_all(s: &Session, label: &str, len: usize, flags: i32, may_end: bool) -> usize {
    let deadline = Instant::now() + Duration::from_secs(8);
    let (mut bytes, mut total, mut ended) = (vec![0; len], 0, 0);
    while total < len {
        match io::recv(s.fd, &mut bytes[total..], flags) {
            got if got > 0 => total += got as usize,
            error if may_end && error == -i64::from(libc::EINTR) && Instant::now() < deadline => ended += 1,
            other => {
                s.ret(label, other);
                break;
            }
        }
    }
    s.say(label, digest(&bytes[..total]));
    ended
}

fn many_while_receiving(s: &mut Session) {
    process::catch(SIGALRM, true);
    process::alarm(1, 1);
    process::caught();
    // Restarted again and again, and nobody notices: one call receives it all.
    for round in 0..5 {
        s.later(&format!("send 1000 {round}"));
        s.recv("asleep", 1000, if round % 2 == 0 { libc::MSG_WAITALL } else { 0 });
    }
    s.say("many were caught", process::caught() >= 20);
    // A call that has a part ends with the part, never with EINTR.
    for flags in [libc::MSG_WAITALL, 0] {
        s.begin("send 3000000 8");
        recv_all(s, "received", 3_000_000, flags, false);
        s.answer();
    }
    process::catch(SIGALRM, false);
    for flags in [libc::MSG_WAITALL, 0] {
        s.later("send 3000000 9");
        let interrupted = recv_all(s, "received, with interruptions", 3_000_000, flags, true);
        s.say("interrupted", interrupted > 0);
    }
    process::alarm(0, 0);
    s.recv("nothing left", 10, libc::MSG_DONTWAIT);
}

fn soon_after_the_call(s: &mut Session) {
    process::catch(SIGALRM, false);
    for micros in (20..400).step_by(20) {
        // Should the first come before the call, the next one ends it.
        process::alarm_after(micros, 20_000);
        s.recv("recv", 10, 0);
        process::alarm(0, 0);
        s.say("caught", process::caught() > 0);
    }
    s.later("send 10 1");
    s.recv("recv", 10, 0);
}

fn mixed_handlers(s: &mut Session) {
    process::catch(SIGUSR1, false);
    alarm(true);
    s.later("sync");
    s.later("sync");
    s.later("send 10 1");
    s.recv("the handler with SA_RESTART ran", 10, 0);
    s.say("caught", process::caught());
    process::catch(SIGUSR1, true);
    alarm(false);
    s.recv("the handler without ran", 10, 0);
    s.say("caught", process::caught());
}

fn what_was_installed(s: &mut Session) {
    for (restart, siginfo) in [(false, false), (true, false), (false, true), (true, true)] {
        s.say("told of it", process::is_told_of_handler(SIGUSR1, restart, siginfo));
    }
    s.say("ignored", process::is_told_of(SIGUSR1, libc::SIG_IGN));
    s.say("default", process::is_told_of(SIGUSR1, libc::SIG_DFL));
    s.say("no such signal", process::refused(0) && process::refused(65) && process::refused(libc::SIGKILL));
    s.say("signal(2) restarts", process::signal_restarts(SIGUSR1, false));
    s.say("after siginterrupt(3) it does not", process::signal_restarts(SIGUSR1, true));
    process::catch(SIGUSR1, false);
    process::raise(SIGUSR1);
    s.say("caught", process::caught());
}

fn sigio(s: &mut Session) {
    process::catch(libc::SIGIO, true);
    s.ret("owner", process::own(s.fd));
    s.ret("O_ASYNC", fds::fcntl(s.fd, libc::F_SETFL, libc::O_ASYNC));
    process::caught();
    s.tell("send 10 1");
    s.say("SIGIO came", process::await_signal(5000));
    s.recv("recv", 10, 0);
}

fn first_recv(s: &mut Session) {
    process::catch(SIGALRM, false);
    // Again and again: the first may come before the call sleeps.
    process::alarm(100, 100);
    s.recv("recv", 10, 0);
    process::alarm(0, 0);
    s.say("caught", process::caught() > 0);
    s.later("send 10 1");
    s.recv("recv", 10, 0);
}

fn first_recv_restarted(s: &mut Session) {
    alarm(true);
    s.later("sync");
    s.later("sync");
    s.later("send 10 1");
    s.recv("recv", 10, 0);
    s.say("caught", process::caught());
}
