//! What the loop waits for.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Events taken at once.
const BATCH: usize = 32;

/// What became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The control socket.
    Listener,
    /// SIGTERM or SIGINT.
    Signals,
    /// A client's request, or its hang-up.
    Session(u32),
    /// A client's death.
    Death(u32),
    /// Something changed in the namespace of this cookie.
    Namespace(u64),
}

impl Token {
    /// The kind in the lowest three bits. Cookies are small numbers, counted up by the kernel.
    fn encode(self) -> u64 {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Session(id) => (2, u64::from(id)),
            Self::Death(id) => (3, u64::from(id)),
            Self::Namespace(cookie) => (4, cookie),
        };
        id << 3 | kind
    }

    fn decode(data: u64) -> Option<Self> {
        let id = data >> 3;
        match data & 7 {
            0 => Some(Self::Listener),
            1 => Some(Self::Signals),
            2 => u32::try_from(id).ok().map(Self::Session),
            3 => u32::try_from(id).ok().map(Self::Death),
            4 => Some(Self::Namespace(id)),
            _ => None,
        }
    }
}

/// An epoll(7) set.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Waits for `fd` to become readable, until it is closed or removed.
    pub fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.encode()))?)
    }

    /// Stops waiting for `fd`. A descriptor that others hold too would go on reporting after our close.
    pub fn remove(&self, fd: impl AsFd) {
        // Not there is as good as removed.
        let _ = self.epoll.delete(fd);
    }

    /// What is readable, after at most `timeout` (`None`: no limit).
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let mut events = [EpollEvent::empty(); BATCH];
        let timeout = match timeout {
            // Rounded up, or the loop would spin through the last millisecond.
            Some(time) => EpollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(EpollTimeout::NONE),
            None => EpollTimeout::NONE,
        };
        match self.epoll.wait(&mut events, timeout) {
            Ok(count) => Ok(events[..count].iter().filter_map(|event| Token::decode(event.data())).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back() {
        let tokens =
            [Token::Listener, Token::Signals, Token::Session(7), Token::Death(u32::MAX), Token::Namespace(1 << 40)];
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(7), None);
        assert_eq!(Token::decode(u64::MAX - 5), None, "a session number of more than 32 bits");
    }
}
