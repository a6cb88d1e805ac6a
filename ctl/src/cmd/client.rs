//! Asks the daemon: one question, one answer, over its control socket.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use underpass_stack::config::Config;
use underpass_stack::control::{self, DecodeError, MAX_MESSAGE, Message, Refused};
use underpass_stack::lane::Reason;

/// How long the daemon may take to answer.
const PATIENCE_SECONDS: i64 = 5;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens on the socket.
    NoDaemon(PathBuf),
    /// The socket does not admit us.
    Denied(PathBuf),
    /// The daemon said no.
    Refused(Reason, u32),
    /// It did not understand us, or we it.
    Protocol(DecodeError),
    /// Something else went wrong.
    Io(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDaemon(path) => {
                write!(f, "no daemon listens on {} (start one with: underpass daemon)", path.display())
            }
            Self::Denied(path) => {
                write!(f, "{} does not admit this user (become root or join group underpass)", path.display())
            }
            Self::Refused(reason, 0) => write!(f, "the daemon refused: {}", reason.text()),
            Self::Refused(reason, errno) => {
                write!(f, "the daemon refused: {} ({})", reason.text(), io::Error::from_raw_os_error(*errno as i32))
            }
            Self::Protocol(error) => write!(f, "the daemon speaks another protocol: {error}"),
            Self::Io(error) => write!(f, "the daemon does not answer: {error}"),
        }
    }
}

impl From<nix::Error> for AskError {
    fn from(error: nix::Error) -> Self {
        Self::Io(error.into())
    }
}

/// The daemon's socket: the one given, or that of `UNDERPASS_SOCKET`, or the usual one.
pub fn socket_path(given: Option<&Path>) -> PathBuf {
    match given {
        Some(path) => path.to_owned(),
        None => Config::from_vars(|name| std::env::var_os(name)).0.socket,
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let patience = TimeVal::seconds(PATIENCE_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
            Ok(()) => Ok(Self { socket }),
            Err(nix::Error::ENOENT | nix::Error::ECONNREFUSED) => Err(AskError::NoDaemon(path.to_owned())),
            Err(nix::Error::EACCES) => Err(AskError::Denied(path.to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks and waits for the answer.
    pub fn ask<Q: Message, A: Message>(&self, question: &Q) -> Result<A, AskError> {
        send(self.socket.as_raw_fd(), &question.encode(), MsgFlags::MSG_NOSIGNAL)?;
        let mut buffer = [0; MAX_MESSAGE];
        let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_CMSG_CLOEXEC)?;
        let datagram = &buffer[..len];
        if let Ok(refused) = control::decode::<Refused>(datagram) {
            return Err(AskError::Refused(Reason::from_raw(refused.reason), refused.errno));
        }
        control::decode(datagram).map_err(AskError::Protocol)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::socket::{Backlog, accept, bind, listen};
    use underpass_stack::control::{AskDemote, Done, Status, StatusReply};

    use super::*;

    /// A daemon that gives one raw answer to one question.
    fn answering(name: &str, answer: Vec<u8>) -> (PathBuf, thread::JoinHandle<Vec<u8>>) {
        let path = std::env::temp_dir().join(format!("underpass-client-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let thread = thread::spawn(move || {
            let client = accept(listener.as_raw_fd()).unwrap();
            let mut question = vec![0; MAX_MESSAGE];
            let len = recv(client, &mut question, MsgFlags::empty()).unwrap();
            send(client, &answer, MsgFlags::empty()).unwrap();
            nix::unistd::close(client).unwrap();
            question.truncate(len);
            question
        });
        (path, thread)
    }

    #[test]
    fn the_answer_is_decoded_and_the_question_arrives_whole() {
        let (path, daemon) = answering("done", Done { count: 3 }.encode());
        let question = AskDemote { pid: 7, slot: u32::MAX };
        let done: Done = Client::connect(&path).unwrap().ask(&question).unwrap();
        assert_eq!(done.count, 3);
        assert_eq!(daemon.join().unwrap(), question.encode());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn refusals_and_strange_answers_are_told_apart() {
        let refusal = Refused { reason: Reason::AccessDenied as u16, pad: 0, errno: 13 };
        for (name, answer, expected) in [
            ("refused", refusal.encode(), "does not admit this user"),
            ("wrong", Done { count: 1 }.encode(), "another protocol"),
            ("garbage", b"hello".to_vec(), "another protocol"),
        ] {
            let (path, daemon) = answering(name, answer);
            let result = Client::connect(&path).unwrap().ask::<_, StatusReply>(&Status { pad: 0 });
            assert!(result.unwrap_err().to_string().contains(expected), "{name}");
            daemon.join().unwrap();
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_missing_daemon_is_named() {
        let path = Path::new("/nonexistent/underpass.sock");
        assert!(Client::connect(path).unwrap_err().to_string().contains("no daemon listens on /nonexistent"));
    }
}
