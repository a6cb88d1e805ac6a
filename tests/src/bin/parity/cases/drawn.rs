//! Sequences of calls that nobody thought of: drawn by chance, the same for the same seed. Whatever may depend on time is waited for before
//! it is shown, and no call waits for what does not come.

use std::os::fd::AsRawFd;

use libc::{
    MSG_DONTWAIT, MSG_ERRQUEUE, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SOL_SOCKET, c_int,
};

use crate::session::{Session, digest, pattern};
use crate::sys::{fds, io, ready, shown, sock};

/// What a drawn case's name begins with; its seed follows.
pub const NAME: &str = "drawn-";
/// Calls of a case.
const STEPS: usize = 60;
/// Bytes that wait in either direction at most: so few that no buffer is ever full.
const MOST: usize = 40_000;
const SIZES: [usize; 7] = [1, 7, 100, 1448, 1449, 5000, 20_000];

/// Numbers that look like chance (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A connection and what is known of it.
struct Drawn<'a> {
    s: &'a mut Session,
    draw: Draw,
    /// Data so far: all of it differs.
    pieces: usize,
    /// Bytes that can be read here, and there.
    unread: usize,
    outstanding: usize,
    /// SO_RCVLOWAT.
    low: usize,
    nonblocking: bool,
    /// The peer has ended its direction; this end its own.
    peer_ended: bool,
    ended: bool,
}

/// Runs the case of a seed.
pub fn run(s: &mut Session, seed: u64) {
    let draw = Draw(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut drawn = Drawn {
        s,
        draw,
        pieces: 0,
        unread: 0,
        outstanding: 0,
        low: 1,
        nonblocking: false,
        peer_ended: false,
        ended: false,
    };
    for _ in 0..STEPS {
        drawn.step();
    }
    drawn.finish();
}

impl Drawn<'_> {
    fn step(&mut self) {
        match self.draw.below(20) {
            0..4 => self.comes(),
            4..10 => self.takes(),
            10..13 => self.goes(),
            13 => self.is_taken(),
            14..16 => self.looks(),
            16 => self.sets(),
            17 => self.leaves(),
            18 => self.renames(),
            _ => self.ends(),
        }
    }

    /// Data of its own for each call.
    fn data(&mut self, len: usize) -> Vec<u8> {
        self.pieces += 1;
        pattern(self.pieces, len)
    }

    fn comes(&mut self) {
        let len = self.draw.of(&SIZES);
        if self.peer_ended || self.unread + len > MOST {
            return;
        }
        self.pieces += 1;
        let how = self.draw.of(&["send", "send", "send", "file"]);
        self.s.tell(&format!("{how} {len} {}", self.pieces));
        self.unread += len;
        self.s.arrived(self.unread as i32);
    }

    fn takes(&mut self) {
        let near = self.unread + self.draw.below(3) - self.unread.min(1);
        let room = self.draw.of(&[0, 1, 10, 100, 1448, self.unread / 2, near, MOST]);
        let flags =
            self.draw.of(&[0, 0, 0, MSG_PEEK, MSG_WAITALL, MSG_TRUNC, MSG_PEEK | MSG_WAITALL, MSG_PEEK | MSG_TRUNC]);
        let flags = flags | self.draw.of(&[0, MSG_DONTWAIT]);
        let want = if flags & MSG_WAITALL != 0 { room } else { room.min(self.low) }.max(1);
        let is_short = self.unread < want && !self.peer_ended;
        let waits = flags & MSG_DONTWAIT == 0 && !self.nonblocking;
        if !(is_short && waits) {
            return self.take(room, flags);
        }
        // What a sleeper under a mark is woken by depends on time.
        if self.low > 1 || room == 0 || self.unread + want > MOST {
            return self.take(room, flags | MSG_DONTWAIT);
        }
        self.pieces += 1;
        let missing = want - self.unread;
        self.s.later(&format!("send {missing} {}", self.pieces));
        self.unread = want;
        self.take(room, flags);
        if flags & MSG_PEEK != 0 {
            self.s.arrived(self.unread as i32);
        }
    }

    fn take(&mut self, room: usize, flags: c_int) {
        let fd = self.s.fd;
        let label = format!("room {room}, flags {flags:#x}, {} waiting", self.unread);
        let mut buffer = vec![0; room];
        let (how, got, bytes) = match self.draw.below(5) {
            0 if flags == 0 => ("read", io::read(fd, &mut buffer), buffer),
            1 if flags == 0 => {
                let (got, bytes) = io::readv(fd, &[room / 3, 0, room - room / 3], None);
                ("readv", got, bytes)
            }
            2 => {
                let message = io::recvmsg(fd, &[room / 2, room - room / 2], flags);
                self.s.say("flags", message.flags);
                ("recvmsg", message.got, message.bytes)
            }
            3 => {
                let (got, name) = io::recvfrom(fd, &mut buffer, flags);
                self.s.say("name", if got < 0 { 0 } else { name });
                ("recvfrom", got, buffer)
            }
            4 if flags & MSG_TRUNC != 0 => ("recv nowhere", io::recv_nowhere(fd, room, flags), buffer),
            _ => ("recv", io::recv(fd, &mut buffer, flags), buffer),
        };
        let shown_bytes =
            if flags & MSG_TRUNC != 0 { String::new() } else { digest(&bytes[..got.clamp(0, room as i64) as usize]) };
        self.s.say(how, format!("{label}: {} {shown_bytes}", shown(got)));
        if flags & MSG_PEEK == 0 {
            self.unread -= self.unread.min(got.max(0) as usize);
        }
    }

    fn goes(&mut self) {
        let len = self.draw.of(&SIZES);
        if self.outstanding + 2 * len > MOST {
            return;
        }
        let data = self.data(len);
        let (fd, (one, two)) = (self.s.fd, data.split_at(len / 3));
        let mut sent = 0;
        let mut flags = self.draw.of(&[0, MSG_DONTWAIT]) | MSG_NOSIGNAL;
        if self.draw.below(4) == 0 {
            sent += self.s.ret("send more", io::send(fd, one, flags | MSG_MORE)).max(0);
            flags = MSG_NOSIGNAL;
        }
        let outcome = match self.draw.below(6) {
            0 => io::write(fd, &data),
            1 => io::writev(fd, &[one, &[], two], None),
            2 => io::sendmsg(fd, &[one, two], flags, false),
            3 => io::sendto(fd, &data, flags),
            4 => match fds::file_of(&data) {
                Ok(file) => io::sendfile(fd, file.as_raw_fd(), len),
                Err(error) => panic!("{error}"),
            },
            _ => io::send(fd, &data, flags),
        };
        sent += self.s.ret("send", outcome).max(0);
        self.outstanding += sent as usize;
        if !self.ended {
            self.s.acknowledged();
        }
    }

    fn is_taken(&mut self) {
        let len = self.draw.of(&[1, 100, self.outstanding / 2, self.outstanding]).min(self.outstanding);
        self.s.tell(&format!("recv {len}"));
        self.outstanding -= len;
    }

    fn looks(&mut self) {
        let fd = self.s.fd;
        // Where bytes are on two ways, SO_RCVLOWAT is not waited for.
        let is_below = (1..self.low).contains(&self.unread) && !self.peer_ended;
        match self.draw.below(5) {
            0 => self.s.say("FIONREAD", format!("{:?}", fds::ioctl(fd, libc::FIONREAD, -1))),
            1 => self.s.say("SO_ERROR", shown(sock::get_int(fd, SOL_SOCKET, libc::SO_ERROR))),
            // How soon a FIN is acknowledged depends on time.
            2 if !self.ended => self.s.say("state", shown(sock::tcp_state(fd))),
            3 if !is_below => {
                let set = ready::epoll_create();
                ready::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP, 7);
                self.s.say("epoll", format!("{:x?}", ready::epoll_wait(set, 4, 0)));
                fds::close(set);
            }
            _ if is_below => (),
            _ => self.s.poll("poll", libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP | libc::POLLPRI),
        }
    }

    fn sets(&mut self) {
        let fd = self.s.fd;
        match self.draw.below(4) {
            0 => {
                self.low = self.draw.of(&[1, 1, 10, 150, 3000]);
                self.s.ret("SO_RCVLOWAT", sock::set_int(fd, SOL_SOCKET, libc::SO_RCVLOWAT, self.low as c_int));
            }
            1 => {
                self.nonblocking = !self.nonblocking;
                self.s.ret("FIONBIO", fds::ioctl(fd, libc::FIONBIO, self.nonblocking.into()).0);
            }
            2 => {
                let on = self.draw.below(2) as c_int;
                self.s.ret("TCP_NODELAY", sock::set_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, on));
            }
            _ => {
                self.s.ret("get SO_RCVLOWAT", sock::get_int(fd, SOL_SOCKET, libc::SO_RCVLOWAT));
            }
        }
    }

    /// What no lane carries: the connection may go to the kernel, and come back.
    fn leaves(&mut self) {
        let fd = self.s.fd;
        match self.draw.below(4) {
            0 => drop(self.s.recv("no urgent data", 1, MSG_OOB | MSG_DONTWAIT)),
            1 => drop(self.s.recv("no errors", 1, MSG_ERRQUEUE)),
            2 => self.s.tell("errors"),
            _ => {
                for on in [1, 0] {
                    self.s.ret("SO_TIMESTAMP", sock::set_int(fd, SOL_SOCKET, libc::SO_TIMESTAMP, on));
                }
            }
        }
    }

    /// The same connection by another descriptor.
    fn renames(&mut self) {
        let other = fds::dup(self.s.fd);
        if self.draw.below(2) == 0 {
            fds::close(std::mem::replace(&mut self.s.fd, other));
        } else {
            fds::close(other);
        }
    }

    /// Seldom, a direction ends.
    fn ends(&mut self) {
        match self.draw.below(6) {
            0 if !self.peer_ended => {
                self.s.tell("shut 1");
                self.peer_ended = true;
                self.s.await_events(libc::POLLRDHUP);
            }
            1 if !self.ended => {
                self.s.ret("shutdown", sock::shutdown(self.s.fd, libc::SHUT_WR));
                self.ended = true;
                self.s.tell(&format!("recv {}", self.outstanding));
                self.outstanding = 0;
                self.s.tell("wait");
            }
            _ => self.looks(),
        }
    }

    /// Everything that is left, in both directions.
    fn finish(&mut self) {
        let left = self.outstanding;
        self.s.tell(&format!("recv {left}"));
        self.take(self.unread, MSG_DONTWAIT);
        self.s.recv("nothing more", 10, MSG_DONTWAIT);
    }
}
