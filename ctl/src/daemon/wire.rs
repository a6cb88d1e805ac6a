//! Datagrams with descriptors over the control socket (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use underpass_stack::control::{MAX_FDS, MAX_MESSAGE};
use underpass_stack::mem::region::is_sealed;

use super::sockopt::{Datagram, receive_with_fds};

/// May this memfd of a stranger's be mapped? Sealed, so that it cannot be made shorter, and of ordinary pages: a hole among huge
/// pages can fail to be filled, and then kills who touches it.
pub fn is_safe_to_map(memfd: BorrowedFd<'_>) -> bool {
    is_sealed(memfd) && fstatfs(memfd).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

/// What a client sent.
#[derive(Debug)]
pub struct Received {
    /// The datagram.
    pub bytes: Vec<u8>,
    /// Descriptors beside it.
    pub fds: Vec<OwnedFd>,
    /// Some did not come, and those that did are closed: this process may have no more.
    pub lacks_fds: bool,
}

/// The next datagram. `None` when the peer has hung up; `WouldBlock` when there is none. Where this process has no room for the descriptors
/// beside it, it comes without any: whoever needs them refuses it.
///
/// # Errors
/// `EMSGSIZE` for a datagram longer than any message or with more descriptors than any message carries.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let Datagram { len, fds, is_cut, lacks_fds } = receive_with_fds(socket, &mut bytes)?;
    if is_cut || fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    if len == 0 {
        return Ok(None);
    }
    bytes.truncate(len);
    if lacks_fds {
        tracing::error!("descriptors that a client sent did not come: is there room for more? (RLIMIT_NOFILE)");
    }
    Ok(Some(Received { bytes, fds: if lacks_fds { Vec::new() } else { fds }, lacks_fds }))
}

/// Sends a datagram; never waits: a client that does not fetch its answers has only itself to blame.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let controls: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], controls, flags, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn descriptors_of_a_message_with_too_many_are_closed() {
        let (from, to) = UnixDatagram::pair().unwrap();
        for (count, taken) in [(MAX_FDS, true), (MAX_FDS + 1, false), (250, false)] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let fds: Vec<OwnedFd> = (0..count).map(|_| writer.as_fd().try_clone_to_owned().unwrap()).collect();
            send(from.as_fd(), b"hello", &fds).unwrap();
            drop((fds, writer));
            let received = receive(to.as_fd());
            assert_eq!(
                received.as_ref().is_ok_and(|got| got.as_ref().is_some_and(|got| got.fds.len() == count)),
                taken
            );
            drop(received);
            // The end comes when nobody has the other side open.
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(receive(to.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
