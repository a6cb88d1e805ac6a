//! The connection under test, and the line to the other end.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::sys::{fds, io as calls, ready, shown, sock, tier};

/// How long anything may take that happens at once on an idle machine.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the two ends may take to find each other on the shm lane.
const JOINED_WITHIN: Duration = Duration::from_secs(2);

/// One end under test.
pub struct Session {
    /// The TCP socket.
    pub fd: RawFd,
    control: BufReader<UnixStream>,
}

impl Session {
    /// Connects both ends: the control line first, then the connection under test.
    pub fn meet(accepts: bool, address: &str, path: &str) -> io::Result<Self> {
        let control = UnixListener::bind(path)?.accept()?.0;
        control.set_read_timeout(Some(LIMIT))?;
        let socket = connection(accepts, address, &control)?;
        Ok(Self { fd: socket.into_raw_fd(), control: BufReader::new(control) })
    }

    /// Bytes both ways: a preloaded end that promotes eagerly is on its lane afterwards.
    pub fn warm_up(&mut self) {
        self.round();
        if !tier::can_join() {
            return;
        }
        // On the shm lane the two ends meet behind the program's back.
        let deadline = Instant::now() + JOINED_WITHIN;
        while !(tier::of(self.fd) == tier::SHM && self.ask("tier") == tier::SHM.to_string()) {
            if Instant::now() > deadline {
                return;
            }
            self.round();
        }
        // From here on both directions are in their rings.
        self.round();
    }

    /// Waits until both ends are on the shm lane, if they can be; no byte is read or written for that.
    pub fn await_lane(&mut self) {
        let deadline = Instant::now() + JOINED_WITHIN;
        let have_joined = |s: &mut Self| tier::of(s.fd) == tier::SHM && s.ask("tier") == tier::SHM.to_string();
        while tier::can_join() && Instant::now() < deadline && !have_joined(self) {
            ready::poll(&[(self.fd, libc::POLLIN)], 1);
        }
    }

    /// A few bytes there and back.
    fn round(&mut self) {
        self.ask("echo 4");
        let mut back = [0; 4];
        assert_eq!(calls::send(self.fd, b"warm", 0), 4, "the first send");
        assert_eq!(calls::recv(self.fd, &mut back, libc::MSG_WAITALL), 4, "the first recv");
        assert_eq!(&back, b"warm");
        self.ask("sync");
    }

    /// Prints a line of the transcript.
    pub fn say(&self, label: &str, value: impl Display) {
        println!("{label}: {value}");
    }

    /// Prints a call's outcome, and returns it.
    pub fn ret(&self, label: &str, outcome: i64) -> i64 {
        self.say(label, shown(outcome));
        outcome
    }

    /// recv(2) with everything it said.
    pub fn recv(&self, label: &str, room: usize, flags: i32) -> i64 {
        let mut buffer = vec![0; room];
        let got = calls::recv(self.fd, &mut buffer, flags);
        self.say(label, format!("{} {}", shown(got), digest(&buffer[..got.clamp(0, room as i64) as usize])));
        got
    }

    /// Has the other end do something, waits until it has, and prints what it says.
    pub fn tell(&mut self, command: &str) {
        let answer = self.ask(command);
        println!("peer {command}: {answer}");
    }

    /// As [`Session::tell`], without printing.
    pub fn ask(&mut self, command: &str) -> String {
        self.write(command);
        self.answer()
    }

    /// Some bytes there and others back: the connection still works.
    pub fn exchange(&mut self) {
        self.ret("send", calls::send(self.fd, b"exchange", 0));
        self.tell("recv 8");
        self.later("send 10 3");
        self.recv("recv", 10, libc::MSG_WAITALL);
    }

    /// Sets an option, reads it back.
    pub fn round_trip(&self, label: &str, level: i32, name: i32, value: i32) {
        let set = shown(sock::set_int(self.fd, level, name, value));
        self.say(label, format!("set {value}: {set}, get: {}", shown(sock::get_int(self.fd, level, name))));
    }

    /// Has the other end do something about 30 ms from now, while this end is in a call.
    pub fn later(&mut self, command: &str) {
        let answer = self.ask(&format!("later {command}"));
        assert_eq!(answer, "later");
    }

    /// Has the other end begin something long; [`Session::answer`] gives its end.
    pub fn begin(&mut self, command: &str) {
        self.write(command);
    }

    fn write(&mut self, command: &str) {
        self.control.get_mut().write_all(format!("{command}\n").as_bytes()).expect("the control line");
    }

    /// The other end's next answer.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).expect("an answer on the control line");
        line.trim_end().to_owned()
    }

    /// Waits until so many bytes can be read: all that were sent, where a case shows how many are left.
    pub fn arrived(&self, bytes: i32) {
        until(&format!("{bytes} bytes to arrive"), || fds::ioctl(self.fd, libc::FIONREAD, 0).1 >= bytes);
    }

    /// Waits until all that was sent is acknowledged.
    pub fn acknowledged(&self) {
        until("acknowledgements", || fds::ioctl(self.fd, libc::TIOCOUTQ, 0).1 == 0);
    }

    /// Waits until poll(2) reports one of these events, and prints all that it reports.
    pub fn await_events(&self, events: i16) {
        let wanted = events | libc::POLLHUP | libc::POLLERR;
        until(&format!("events {events:#x}"), || ready::poll(&[(self.fd, events)], 100).1[0] & wanted != 0);
        self.poll("then", events);
    }

    /// poll(2) without waiting.
    pub fn poll(&self, label: &str, events: i16) {
        let (got, revents) = ready::poll(&[(self.fd, events)], 0);
        self.say(label, format!("poll {} {}", shown(got), named(revents[0])));
    }

    /// Prints whether `call` took at least so long and not absurdly longer.
    pub fn timed<T>(&self, label: &str, at_least: u64, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = call();
        let took = start.elapsed();
        // Kernel timeouts count clock ticks; a tick is at most 10 ms.
        let (low, high) = (took >= Duration::from_millis(at_least.saturating_sub(1)), took < Duration::from_secs(4));
        self.say(label, format!("took its time: {low}, no more: {high}"));
        value
    }

    /// Ends both ends.
    pub fn end(&mut self) {
        self.ask("bye");
        println!("end");
    }
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The other end's socket and control line.
pub fn meet_as_peer(accepts: bool, address: &str, path: &str) -> io::Result<(RawFd, UnixStream)> {
    let deadline = Instant::now() + LIMIT;
    let control = loop {
        match UnixStream::connect(path) {
            Ok(control) => break control,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let socket = connection(accepts, address, &control)?;
    Ok((socket.into_raw_fd(), control))
}

/// The accepting side tells its port over the control line.
fn connection(accepts: bool, address: &str, mut control: &UnixStream) -> io::Result<TcpStream> {
    let mut port = [0; 2];
    let socket = if accepts {
        let listener = TcpListener::bind((address, 0))?;
        control.write_all(&listener.local_addr()?.port().to_ne_bytes())?;
        listener.accept()?.0
    } else {
        control.read_exact(&mut port)?;
        TcpStream::connect((address, u16::from_ne_bytes(port)))?
    };
    Ok(socket)
}

/// Bytes that depend on their place.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + seed).wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// Length and FNV-1a of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("[{} {:08x}]", bytes.len(), hash as u32)
}

/// Poll events by name.
pub fn named(events: i16) -> String {
    const NAMES: [(i16, &str); 10] = [
        (libc::POLLIN, "IN"),
        (libc::POLLPRI, "PRI"),
        (libc::POLLOUT, "OUT"),
        (libc::POLLERR, "ERR"),
        (libc::POLLHUP, "HUP"),
        (libc::POLLNVAL, "NVAL"),
        (libc::POLLRDNORM, "RDNORM"),
        (libc::POLLWRNORM, "WRNORM"),
        (libc::POLLRDHUP, "RDHUP"),
        (0x7000, "untouched"),
    ];
    let words: Vec<&str> = NAMES.iter().filter(|(bits, _)| events & bits == *bits).map(|&(_, name)| name).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join("|") }
}
