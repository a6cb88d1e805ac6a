//! Is this connection fit for a lane, and is that the other end of it?

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use underpass_stack::lane::Reason;

use super::super::address::Ends;
use super::super::{diag, history};
use super::Outcome;
use crate::call::told;
use crate::errno::Errno;
use crate::fd::{Own, Ref};
use crate::socket::Socket;
use crate::{carry, holders, sys};

/// A duplicate of our end, if it may go to a lane as far as this side can tell.
pub(super) fn our_end(socket: &Ref<Socket>) -> Outcome<Own> {
    let mine = socket.duplicate().map_err(|_| Reason::NotConnected)?;
    is_fit(socket, mine.as_raw_fd())?;
    Ok(mine)
}

fn is_fit(socket: &Ref<Socket>, raw: RawFd) -> Outcome<()> {
    if holders::is_shared(socket) {
        return Err(Reason::Shared);
    }
    if sys::status_flags(raw).is_ok_and(|flags| flags & libc::O_ASYNC != 0) {
        return Err(Reason::SocketOption);
    }
    if told::is_asked(raw) {
        return Err(Reason::SocketOption);
    }
    if sys::sockopt_bytes(raw, libc::IPPROTO_TCP, libc::TCP_ULP, &mut [0; 16]).is_ok_and(|len| len > 0) {
        return Err(Reason::Upper);
    }
    if carry::kernel::ready(raw, libc::POLLPRI) & libc::POLLPRI != 0 {
        return Err(Reason::Urgent);
    }
    if history::is_countable(raw) { Ok(()) } else { Err(Reason::HalfClosed) }
}

/// Is the process at the meeting place run by the user that owns the other end of the connection, or by root?
pub(super) fn is_owner(place: &OwnedFd, ends: Ends) -> Outcome<()> {
    let user = sys::peer_user(place.as_fd()).map_err(|_| Reason::PeerSilent)?;
    let owner = diag::owner(ends.remote, ends.local).unwrap_or_else(sys::user);
    if user == owner || user == 0 { Ok(()) } else { Err(Reason::AnotherUser) }
}

/// Is this the other end of our connection?
pub(super) fn is_mirror(theirs: &OwnedFd, ours: RawFd, ends: Ends) -> Outcome<()> {
    let theirs = theirs.as_raw_fd();
    let same = |name| {
        let cookie = |fd| sys::sockopt_of::<u64>(fd, libc::SOL_SOCKET, name);
        Ok::<bool, Errno>(cookie(theirs)? == cookie(ours)?)
    };
    let mirror = sys::sockopt(theirs, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Ok(libc::IPPROTO_TCP)
        && Ends::of(theirs) == Ok(ends.mirrored())
        && same(SO_NETNS_COOKIE) == Ok(true)
        && same(libc::SO_COOKIE) == Ok(false);
    if mirror { Ok(()) } else { Err(Reason::NotThePeer) }
}

/// SO_NETNS_COOKIE, <asm-generic/socket.h>.
const SO_NETNS_COOKIE: i32 = 71;
