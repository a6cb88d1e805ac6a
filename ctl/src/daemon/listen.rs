//! The control socket: one daemon listens on it, and a new one takes a dead one's place.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use nix::unistd::{Group, chown};

use super::Error;
use super::settings::Access;
use super::sockopt::adopt_fd;

/// Sessions that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The listening socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Held as long as we listen: of two daemons that start at once, one gets it.
    _lock: Flock<File>,
}

impl Listener {
    /// Listens on `path`. A socket file that nobody answers on is replaced.
    pub fn bind(path: &Path, access: &Access) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Listen(path.to_owned(), error);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let lock = lock(path)?;
        // Bound under another name first, so that nobody meets the socket before its mode is set.
        let nascent = beside(path, "new");
        let _ = fs::remove_file(&nascent);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let open = || -> nix::Result<OwnedFd> {
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
            bind(fd.as_raw_fd(), &UnixAddr::new(&nascent)?)?;
            listen(&fd, Backlog::new(BACKLOG)?)?;
            Ok(fd)
        };
        let fd = open().map_err(|errno| failed(errno.into()))?;
        admit(&nascent, access).map_err(failed)?;
        fs::rename(&nascent, path).map_err(failed)?;
        Ok(Self { fd, path: path.to_owned(), _lock: lock })
    }

    /// The next client, if one waits.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept4(self.fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            Ok(raw) => Ok(Some(adopt_fd(raw))),
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Already gone is as good as removed.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let failed = |error: io::Error| Error::Listen(path.to_owned(), error);
    let file = File::create(beside(path, "lock")).map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::AlreadyRunning(path.to_owned())),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

fn admit(path: &Path, access: &Access) -> io::Result<()> {
    match Group::from_name(&access.group)? {
        Some(group) => chown(path, None, Some(group.gid))?,
        None => tracing::info!("group {} does not exist: only root may use the control socket", access.group),
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_and_a_stale_file_is_replaced() {
        let path = std::env::temp_dir().join(format!("underpass-listen-{}.sock", std::process::id()));
        let access = Access { group: "no-such-group".into(), mode: 0o600 };
        fs::write(&path, b"stale").unwrap();
        let first = Listener::bind(&path, &access).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Listener::bind(&path, &access), Err(Error::AlreadyRunning(_))));
        assert!(first.accept().unwrap().is_none());
        drop(first);
        assert!(!path.exists());
        drop(Listener::bind(&path, &access).unwrap());
        fs::remove_file(beside(&path, "lock")).unwrap();
    }
}
