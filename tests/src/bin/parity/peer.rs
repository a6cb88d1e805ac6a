//! The other end: it does what it is told, a command a line.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::session::{digest, named, pattern};
use crate::sys::{fds, io as calls, ready, shown, sock, tier};

/// Serves until told to end, or until the control line is hung up.
pub fn serve(fd: RawFd, control: UnixStream) -> io::Result<()> {
    let mut answers = control.try_clone()?;
    for line in BufReader::new(control).lines() {
        let line = line?;
        if let Some(command) = line.strip_prefix("later ") {
            answers.write_all(b"later\n")?;
            // So that the end under test is probably asleep in its call. If it is not, the outcome is the same.
            std::thread::sleep(Duration::from_millis(30));
            obey(fd, command);
        } else if let Some(count) = line.strip_prefix("echo ") {
            answers.write_all(b"ok\n")?;
            echo(fd, count.parse().unwrap_or(0));
        } else {
            let answer = obey(fd, &line);
            answers.write_all(format!("{answer}\n").as_bytes())?;
        }
        if line == "bye" {
            break;
        }
    }
    Ok(())
}

fn obey(fd: RawFd, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok()).unwrap_or(0);
    match words.first().copied().unwrap_or_default() {
        "sync" | "bye" => "ok".to_owned(),
        "send" => send(fd, &pattern(number(2) as usize, number(1) as usize)),
        "text" => send(fd, format!("{}\n", words[1..].join(" ")).as_bytes()),
        "file" => send_file(fd, &pattern(number(2) as usize, number(1) as usize)),
        "urgent" => shown(calls::send(fd, b"!", libc::MSG_OOB)),
        "recv" => recv(fd, number(1) as usize),
        "try" => attempt(fd),
        "drain" => drain(fd),
        "wait" => named(ready::poll(&[(fd, libc::POLLIN | libc::POLLRDHUP)], 5000).1[0]),
        "delivered" => delivered(fd),
        "shut" => shown(sock::shutdown(fd, number(1) as i32)),
        "nodelay" => shown(sock::set_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)),
        "close" => shown(fds::close(fd)),
        "reset" => {
            sock::set_linger(fd, true, 0);
            shown(fds::close(fd))
        }
        "restart" => restart(fd),
        "outcome" => named(ready::poll(&[(fd, libc::POLLOUT)], 5000).1[0]) + " " + &obey(fd, "error"),
        "errors" => shown(calls::recv(fd, &mut [0], libc::MSG_ERRQUEUE)),
        "error" => shown(sock::get_int(fd, libc::SOL_SOCKET, libc::SO_ERROR)),
        "state" => shown(sock::tcp_state(fd)),
        "tier" => tier::of(fd).to_string(),
        unknown => format!("no such command: {unknown}"),
    }
}

/// As a host that has lost its power: the connection is gone without a word, and from the same port a new one begins.
fn restart(fd: RawFd) -> String {
    let ends = sock::ends(fd);
    let repair = sock::set_int(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
    let closed = fds::close(fd);
    let new = sock::connect_between(&ends);
    if new >= 0 && new != i64::from(fd) {
        fds::dup2(new as RawFd, fd);
        fds::close(new as RawFd);
    }
    format!("{} {} {}", shown(repair), shown(closed), shown(new.min(0)))
}

fn send(fd: RawFd, bytes: &[u8]) -> String {
    let mut sent = 0;
    while sent < bytes.len() {
        match calls::send(fd, &bytes[sent..], libc::MSG_NOSIGNAL) {
            got if got < 0 => return format!("{sent} then {}", shown(got)),
            got => sent += got as usize,
        }
    }
    sent.to_string()
}

/// By sendfile(2), which no lane carries.
fn send_file(fd: RawFd, bytes: &[u8]) -> String {
    match fds::file_of(bytes) {
        Ok(file) => shown(calls::sendfile(fd, file.as_raw_fd(), bytes.len())),
        Err(error) => error.to_string(),
    }
}

fn recv(fd: RawFd, len: usize) -> String {
    let mut bytes = vec![0; len];
    let mut got = 0;
    while got < len {
        match calls::recv(fd, &mut bytes[got..], 0) {
            0 => return format!("{} then end", digest(&bytes[..got])),
            error if error < 0 => return format!("{} then {}", digest(&bytes[..got]), shown(error)),
            more => got += more as usize,
        }
    }
    digest(&bytes)
}

/// One recv that does not wait.
fn attempt(fd: RawFd) -> String {
    let mut bytes = vec![0; 64 << 10];
    let got = calls::recv(fd, &mut bytes, libc::MSG_DONTWAIT);
    format!("{} {}", shown(got), digest(&bytes[..got.max(0) as usize]))
}

/// Waits until the end under test has acknowledged everything.
fn delivered(fd: RawFd) -> String {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fds::ioctl(fd, libc::TIOCOUTQ, -1) {
            (0, 0) => return "ok".to_owned(),
            (0, left) if Instant::now() > deadline => return format!("{left} bytes are not"),
            (0, _) => std::thread::sleep(Duration::from_millis(1)),
            (error, _) => return shown(error),
        }
    }
}

/// Everything until the end or an error.
fn drain(fd: RawFd) -> String {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match calls::recv(fd, &mut buffer, 0) {
            0 => return format!("{} then end", digest(&bytes)),
            error if error < 0 => return format!("{} then {}", digest(&bytes), shown(error)),
            got => bytes.extend_from_slice(&buffer[..got as usize]),
        }
    }
}

/// Sends back what comes, until so many bytes have come.
fn echo(fd: RawFd, count: usize) {
    let mut buffer = vec![0; 64 << 10];
    let mut done = 0;
    while done < count {
        let got = calls::recv(fd, &mut buffer, 0);
        if got <= 0 {
            return;
        }
        send(fd, &buffer[..got as usize]);
        done += got as usize;
    }
}
