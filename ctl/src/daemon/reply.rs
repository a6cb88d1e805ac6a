//! What the daemon answers.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use underpass_stack::control::{Done, Message, Refused};
use underpass_stack::lane::Reason;

/// A positive answer with its descriptors.
#[derive(Debug)]
pub struct Reply {
    /// The datagram.
    pub bytes: Vec<u8>,
    /// Descriptors beside it.
    pub fds: Vec<OwnedFd>,
}

impl Reply {
    /// A message without descriptors.
    pub fn of(message: &impl Message) -> Self {
        Self::with(message, Vec::new())
    }

    /// A message with descriptors.
    pub fn with(message: &impl Message, fds: Vec<OwnedFd>) -> Self {
        Self { bytes: message.encode(), fds }
    }

    /// [`Done`].
    pub fn done(count: u32) -> Self {
        Self::of(&Done { count })
    }
}

/// A negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The errno behind it, or 0.
    pub errno: i32,
}

impl Refusal {
    /// The message.
    pub fn reply(self) -> Reply {
        Reply::of(&Refused { reason: self.reason as u16, pad: 0, errno: self.errno as u32 })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.name())?;
        match self.errno {
            0 => Ok(()),
            errno => write!(f, " ({})", io::Error::from_raw_os_error(errno)),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, errno: 0 }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let reason = if errno == libc::EPERM { Reason::NoPrivilege } else { Reason::Failed };
        Self { reason, errno }
    }
}

impl From<nix::Error> for Refusal {
    fn from(error: nix::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<crate::bpf::Error> for Refusal {
    fn from(error: crate::bpf::Error) -> Self {
        tracing::warn!("{error}");
        Reason::Failed.into()
    }
}

/// Every request ends in one of both.
pub type Answer = Result<Reply, Refusal>;
