//! Which living daemon an interface belongs to.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

/// An abstract Unix name, which lives in the network namespace as the interface does and goes with its holder, however that ends
/// (unix(7)).
#[derive(Debug)]
pub struct Claim {
    _held: OwnedFd,
}

impl Claim {
    /// Claims an interface of the calling thread's namespace. `None`: another daemon has it.
    pub fn take(ifindex: u32) -> io::Result<Option<Self>> {
        let held = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let name = format!("underpass-daemon/{ifindex}");
        match bind(held.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?) {
            Ok(()) => Ok(Some(Self { _held: held })),
            Err(Errno::EADDRINUSE) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let ifindex = u32::MAX - std::process::id();
        let held = Claim::take(ifindex).unwrap().unwrap();
        assert!(Claim::take(ifindex).unwrap().is_none());
        drop(held);
        assert!(Claim::take(ifindex).unwrap().is_some());
    }
}
