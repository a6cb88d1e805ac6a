//! Datagrams with descriptors over the control socket (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use underpass_stack::control::{MAX_FDS, MAX_MESSAGE};
use underpass_stack::mem::region::is_sealed;

use super::sockopt::adopt_fd;

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
}

/// The next datagram. `None` when the peer has hung up; `WouldBlock` when there is none.
///
/// # Errors
/// `EMSGSIZE` for a datagram longer than any message or with more descriptors than any message carries.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut room = nix::cmsg_space!([RawFd; MAX_FDS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags) {
        Ok(message) => message,
        Err(Errno::ECONNRESET) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut fds = Vec::new();
    if let Ok(controls) = message.cmsgs() {
        for control in controls {
            if let ControlMessageOwned::ScmRights(raw) = control {
                fds.extend(raw.into_iter().map(adopt_fd));
            }
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let len = message.bytes;
    if len == 0 {
        return Ok(None);
    }
    bytes.truncate(len);
    Ok(Some(Received { bytes, fds }))
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
