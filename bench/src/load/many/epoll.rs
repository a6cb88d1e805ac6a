//! epoll(7), level-triggered. One of the files with `unsafe`: std has not got it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events taken with one call.
const CAPACITY: usize = 256;

/// An epoll set.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just returned to us and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; CAPACITY] })
    }

    /// Reports from now on when there is something to read. A descriptor leaves the set when it is closed.
    pub fn add(&self, member: &impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        let member = member.as_fd().as_raw_fd();
        // SAFETY: the kernel reads one event, which is ours.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, member, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits, without end or for `limit`; the tokens of those that can be read, none if the time is over.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<impl Iterator<Item = u64> + use<'_>> {
        let millis = limit.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
        let (fd, room) = (self.fd.as_raw_fd(), self.events.len() as i32);
        let ready = loop {
            // SAFETY: the kernel writes at most `room` events, and there is room for them.
            let ready = unsafe { libc::epoll_wait(fd, self.events.as_mut_ptr(), room, millis) };
            match usize::try_from(ready) {
                Ok(ready) => break ready,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        Ok(self.events[..ready].iter().map(|event| event.u64))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_what_can_be_read_is_reported() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut epoll = Epoll::new().unwrap();
        epoll.add(&one, 7).unwrap();
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap().count(), 0);
        other.write_all(b"x").unwrap();
        assert_eq!(epoll.wait(None).unwrap().collect::<Vec<_>>(), [7]);
    }
}
