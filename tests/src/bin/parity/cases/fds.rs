//! Duplicates, and processes that share the connection.

use std::os::fd::RawFd;
use std::process::{Command, Stdio};

use super::group;
use crate::session::{Session, digest, pattern};
use crate::sys::{fds, io, process, shown, sock};

group!("fds":
    duplicate duplicate_onto duplicate_with_flags duplicate_by_fcntl duplicates_share_flags last_close_counts onto_the_connection
    child_reads child_writes parent_closes both_in_turns child_exits child_exits_cleanly child_shuts two_children forks_twice
    executes spawns_a_reader spawns_a_shell passes_to_child passes_and_closes passes_to_itself descriptor_flags;
    child_goes_first passed_untouched executes_untouched
);

fn duplicate(s: &mut Session) {
    let other = fds::dup(s.fd);
    s.ret("send by the duplicate", io::send(other, b"duplicate", 0));
    s.tell("recv 9");
    s.ret("close the first", fds::close(s.fd));
    s.recv("recv by the closed", 10, 0);
    s.fd = other;
    s.later("send 10 1");
    s.recv("recv by the duplicate", 10, 0);
    s.ret("send by the duplicate", io::send(s.fd, b"duplicate", 0));
    s.tell("recv 9");
}

fn duplicate_onto(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    s.ret("dup2 to itself", i64::from(fds::dup2(s.fd, s.fd) == i64::from(s.fd)));
    s.ret("dup2 onto a pipe", i64::from(fds::dup2(s.fd, out) == i64::from(out)));
    s.ret("send", io::send(out, b"over the pipe's number", 0));
    s.tell("recv 22");
    s.tell("send 10 1");
    s.ret("recv", io::recv(out, &mut [0; 10], libc::MSG_WAITALL));
    process::catch(libc::SIGPIPE, false);
    s.ret("the pipe has no reader", io::write(into, b"x"));
    s.ret("dup2 of a closed one", fds::dup2(900, out));
    s.ret("send", io::send(out, b"still", 0));
    s.tell("recv 5");
}

fn duplicate_with_flags(s: &mut Session) {
    s.ret("dup3", i64::from(fds::dup3(s.fd, 200, libc::O_CLOEXEC) == 200));
    s.ret("flags", fds::fcntl(200, libc::F_GETFD, 0));
    s.ret("dup3 to itself", fds::dup3(s.fd, s.fd, 0));
    s.ret("bad flags", fds::dup3(s.fd, 201, 1));
    s.ret("send", io::send(200, b"dup3", 0));
    s.tell("recv 4");
}

fn duplicate_by_fcntl(s: &mut Session) {
    let (plain, cloexec) = (fds::fcntl(s.fd, libc::F_DUPFD, 300), fds::fcntl(s.fd, libc::F_DUPFD_CLOEXEC, 300));
    s.say("numbers", format!("{} {}", shown(plain), shown(cloexec)));
    s.ret("flags", fds::fcntl(plain as RawFd, libc::F_GETFD, 0));
    s.ret("flags", fds::fcntl(cloexec as RawFd, libc::F_GETFD, 0));
    fds::close(s.fd);
    fds::close(plain as RawFd);
    s.fd = cloexec as RawFd;
    s.ret("send", io::send(s.fd, b"F_DUPFD", 0));
    s.tell("recv 7");
    s.later("send 10 1");
    s.recv("recv", 10, 0);
}

fn duplicates_share_flags(s: &mut Session) {
    let other = fds::dup(s.fd);
    s.ret("set on the duplicate", fds::fcntl(other, libc::F_SETFL, libc::O_NONBLOCK));
    s.ret("seen on the first", fds::fcntl(s.fd, libc::F_GETFL, 0));
    s.recv("recv", 10, 0);
    s.ret("cleared on the first", fds::fcntl(s.fd, libc::F_SETFL, 0));
    s.ret("seen on the duplicate", fds::fcntl(other, libc::F_GETFL, 0));
}

fn last_close_counts(s: &mut Session) {
    let others: Vec<RawFd> = (0..5).map(|_| fds::dup(s.fd)).collect();
    s.ret("close", fds::close(s.fd));
    for &other in &others {
        s.tell("try");
        s.ret("close", fds::close(other));
    }
    s.tell("drain");
}

fn onto_the_connection(s: &mut Session) {
    let [out, _into] = fds::pipe(0);
    s.ret("dup2 of a pipe onto it", i64::from(fds::dup2(out, s.fd) == i64::from(s.fd)));
    s.tell("drain");
    s.recv("not a socket", 10, 0);
}

fn child_reads(s: &mut Session) {
    let child = process::fork(|| {
        s.recv("child", 10, libc::MSG_WAITALL);
        s.recv("child", 10, libc::MSG_WAITALL);
    });
    // Told without printing: the child prints meanwhile.
    s.ask("send 20 1");
    s.ret("child's end", process::wait(child));
    s.tell("send 10 2");
    s.recv("parent", 10, libc::MSG_WAITALL);
}

fn child_writes(s: &mut Session) {
    let child = process::fork(|| {
        s.ret("child", io::send(s.fd, &pattern(1, 100), 0));
    });
    s.ret("child's end", process::wait(child));
    s.tell("recv 100");
    s.ret("parent", io::send(s.fd, &pattern(2, 100), 0));
    s.tell("recv 100");
}

fn parent_closes(s: &mut Session) {
    let [out, into] = fds::pipe(0);
    let child = process::fork(|| {
        io::read(out, &mut [0]);
        s.ret("child", io::send(s.fd, &pattern(1, 100_000), 0));
        s.recv("child", 10, libc::MSG_WAITALL);
    });
    s.ret("close", fds::close(s.fd));
    s.tell("try");
    io::write(into, b"x");
    let received = s.ask("recv 100000");
    s.ask("send 10 2");
    s.ret("child's end", process::wait(child));
    s.say("received", received);
    s.tell("drain");
}

fn both_in_turns(s: &mut Session) {
    let ([ours, theirs], fd) = (fds::socketpair(), s.fd);
    let child = process::fork(|| {
        for _ in 0..3 {
            io::read(theirs, &mut [0]);
            io::send(fd, b"child", 0);
            s.recv("child", 5, libc::MSG_WAITALL);
            io::write(theirs, b"x");
        }
    });
    for round in 0..3 {
        s.ret("parent", io::send(fd, b"paren", 0));
        s.tell("recv 5");
        s.tell(&format!("send 5 {round}"));
        io::write(ours, b"x");
        // The child takes its turn, and prints.
        io::read(ours, &mut [0]);
        s.tell("recv 5");
        s.tell(&format!("send 5 {round}"));
        s.recv("parent", 5, libc::MSG_WAITALL);
    }
    s.ret("child's end", process::wait(child));
}

fn child_exits(s: &mut Session) {
    let child = process::fork(|| {});
    s.ret("child's end", process::wait(child));
    exchange(s);
}

fn child_exits_cleanly(s: &mut Session) {
    let child = process::fork_and_exit(|| {});
    s.ret("child's end", process::wait(child));
    exchange(s);
    let child = process::fork_and_exit(|| {
        fds::close(s.fd);
    });
    s.ret("child's end", process::wait(child));
    exchange(s);
}

fn child_shuts(s: &mut Session) {
    let child = process::fork(|| {
        s.ret("child", sock::shutdown(s.fd, libc::SHUT_WR));
    });
    s.ret("child's end", process::wait(child));
    s.tell("drain");
    s.ret("parent", io::send(s.fd, b"x", libc::MSG_NOSIGNAL));
    s.tell("send 10 1");
    s.recv("parent", 10, libc::MSG_WAITALL);
}

fn two_children(s: &mut Session) {
    for seed in 0..2 {
        let child = process::fork(|| {
            s.ret("child", io::send(s.fd, &pattern(seed, 1000), 0));
        });
        s.ret("child's end", process::wait(child));
        s.tell("recv 1000");
    }
    exchange(s);
}

fn forks_twice(s: &mut Session) {
    let child = process::fork(|| {
        let grandchild = process::fork(|| {
            s.ret("grandchild", io::send(s.fd, &pattern(1, 100), 0));
        });
        s.ret("grandchild's end", process::wait(grandchild));
        s.ret("child", io::send(s.fd, &pattern(2, 100), 0));
    });
    s.ret("child's end", process::wait(child));
    s.tell("recv 200");
    exchange(s);
}

fn exchange(s: &mut Session) {
    s.ret("send", io::send(s.fd, b"exchange", 0));
    s.tell("recv 8");
    s.later("send 10 3");
    s.recv("recv", 10, libc::MSG_WAITALL);
}

/// What `executes` executes.
pub fn inherited(fd: RawFd) {
    let mut buffer = vec![0; 10];
    let got = io::recv(fd, &mut buffer, libc::MSG_WAITALL);
    println!("executed: recv {} {}", shown(got), digest(&buffer));
    println!("executed: send {}", shown(io::send(fd, b"executed", 0)));
}

fn execute(s: &mut Session) {
    s.ret("survives exec", fds::fcntl(s.fd, libc::F_SETFD, 0));
    let child = process::fork(|| {
        s.ret("exec", process::exec_self(&["inherited".to_owned(), s.fd.to_string()]));
    });
    s.ask("send 10 1");
    s.ret("child's end", process::wait(child));
    s.tell("recv 8");
    exchange(s);
}

fn executes(s: &mut Session) {
    execute(s);
}

fn executes_untouched(s: &mut Session) {
    execute(s);
}

fn spawns_a_reader(s: &mut Session) {
    let input = fds::owned(fds::dup(s.fd));
    s.tell("text to be read by cat");
    s.tell("shut 1");
    let output = Command::new("cat").stdin(input).output();
    s.say("cat", output.map_or_else(|error| error.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned()));
    s.ret("send", io::send(s.fd, b"parent", 0));
    s.tell("recv 6");
}

fn spawns_a_shell(s: &mut Session) {
    let output = Stdio::from(fds::owned(fds::dup(s.fd)));
    let status = Command::new("sh").args(["-c", "echo from the shell"]).stdout(output).status();
    s.say("shell", status.map_or_else(|error| error.to_string(), |status| status.to_string()));
    s.tell("recv 15");
    exchange(s);
}

fn pass_to_child(s: &mut Session) {
    let [ours, theirs] = fds::socketpair();
    let fd = s.fd;
    let child = process::fork(|| {
        fds::close(fd);
        let got = fds::take(theirs);
        let mut buffer = [0; 10];
        let received = io::recv(got, &mut buffer, libc::MSG_WAITALL);
        s.say("child", format!("{} {}", shown(received), digest(&buffer)));
        s.ret("child", io::send(got, b"passed", 0));
    });
    s.ret("pass", fds::pass(ours, fd));
    s.ask("send 10 1");
    s.ret("child's end", process::wait(child));
    s.tell("recv 6");
}

fn passes_to_child(s: &mut Session) {
    pass_to_child(s);
    exchange(s);
}

fn passed_untouched(s: &mut Session) {
    pass_to_child(s);
    exchange(s);
}

fn passes_and_closes(s: &mut Session) {
    let [ours, theirs] = fds::socketpair();
    let fd = s.fd;
    s.ret("pass", fds::pass(ours, fd));
    s.ret("close", fds::close(fd));
    s.tell("try");
    s.fd = fds::take(theirs);
    exchange(s);
}

fn passes_to_itself(s: &mut Session) {
    let [ours, theirs] = fds::socketpair();
    s.ret("pass", fds::pass(ours, s.fd));
    let other = fds::take(theirs);
    s.ret("send", io::send(other, b"by another number", 0));
    s.tell("recv 17");
    exchange(s);
    s.ret("close", fds::close(other));
    exchange(s);
}

fn descriptor_flags(s: &mut Session) {
    s.ret("flags", fds::fcntl(s.fd, libc::F_GETFD, 0));
    s.ret("set", fds::fcntl(s.fd, libc::F_SETFD, 0));
    s.ret("flags", fds::fcntl(s.fd, libc::F_GETFD, 0));
    s.say("a socket", fds::file_type(s.fd) == i64::from(libc::S_IFSOCK));
}

fn child_goes_first(s: &mut Session) {
    let child = process::fork(|| {
        s.ret("child", io::send(s.fd, &pattern(1, 100), 0));
        s.recv("child", 10, libc::MSG_WAITALL);
    });
    s.ask("recv 100");
    s.ask("send 10 1");
    s.ret("child's end", process::wait(child));
    exchange(s);
}
