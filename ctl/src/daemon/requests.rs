//! From datagram to answer.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use underpass_stack::arena::{ARENA_LEN, ArenaHeader, MAGIC, VERSION};
use underpass_stack::control::{
    self, AdoptConn, AdoptPort, AskDemote, Attach, DecodeError, Demote, DemoteForeign, Detach, Hello, Inject, Message,
    Promote, Status, StatusReply, Welcome,
};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;

use super::reply::{Answer, Refusal, Reply};
use super::state::Daemon;
use super::wire::{Received, is_safe_to_map};

impl Daemon {
    /// The answer to a request; `None` if it will come later, or never because the session was closed.
    pub fn answer(&mut self, id: u32, request: Received) -> Option<Answer> {
        match self.dispatch(id, request) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!("session {id} closed: {error}");
                self.hung_up(id);
                None
            }
        }
    }

    fn dispatch(&mut self, id: u32, request: Received) -> Result<Option<Answer>, DecodeError> {
        let Received { bytes, fds, lacks_fds } = request;
        if lacks_fds {
            return Ok(Some(Err(Refusal { reason: Reason::Failed, errno: libc::EMFILE })));
        }
        let answer = match control::kind_of(&bytes)? {
            Hello::KIND => self.hello(id, &control::decode(&bytes)?, fds),
            Promote::KIND => self.promote(id, &control::decode(&bytes)?, fds),
            Attach::KIND => self.attach(id, &control::decode(&bytes)?, fds),
            Detach::KIND => self.detach(id, &control::decode(&bytes)?),
            Demote::KIND => self.demote(id, &control::decode(&bytes)?),
            Inject::KIND => self.inject(id, &control::decode(&bytes)?),
            DemoteForeign::KIND => {
                control::decode::<DemoteForeign>(&bytes)?;
                return Ok(self.demote_foreign(id, fds));
            }
            AdoptPort::KIND => self.adopt_port(id, &control::decode(&bytes)?, fds),
            AdoptConn::KIND => self.adopt_conn(id, &control::decode(&bytes)?, fds),
            AskDemote::KIND => self.ask_demote(id, &control::decode(&bytes)?),
            Status::KIND => {
                control::decode::<Status>(&bytes)?;
                Ok(Reply::of(&self.status()))
            }
            other => return Err(DecodeError::Body(other)),
        };
        Ok(Some(answer))
    }

    fn hello(&mut self, id: u32, hello: &Hello, fds: Vec<OwnedFd>) -> Answer {
        let [memfd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Refusal::from(Reason::ProtocolError))?;
        let session = self.session(id)?;
        if session.arena.is_some() || !is_safe_to_map(memfd.as_fd()) {
            return Err(Reason::ProtocolError.into());
        }
        let arena = Region::open_reader(memfd)?;
        let header = arena.read::<ArenaHeader>(0).ok_or(Reason::ProtocolError)?;
        let ours = header.magic == MAGIC && header.version == VERSION && header.len == ARENA_LEN as u64;
        if !ours || arena.len() != ARENA_LEN {
            return Err(Reason::ProtocolError.into());
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (events, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        session.arena = Some(arena);
        session.events = Some(events);
        let pid = session.peer.pid;
        self.had_client = true;
        self.notice_return(pid);
        let name = String::from_utf8_lossy(&hello.name).trim_end_matches('\0').to_owned();
        tracing::info!("session {id}: {name:?}");
        Ok(Reply::with(&Welcome { daemon_pid: std::process::id(), session: id }, vec![theirs]))
    }

    fn status(&self) -> StatusReply {
        StatusReply {
            pid: std::process::id(),
            sessions: self.sessions.values().filter(|session| session.arena.is_some()).count() as u32,
            connections: self.connections() as u32,
            interfaces: self.namespaces.values().map(|namespace| namespace.interfaces.len() as u32).sum(),
            promoted: self.totals.promoted,
            demoted: self.totals.demoted,
            refused: self.totals.refused,
            injected: self.totals.injected,
            reaped: self.totals.reaped,
        }
    }
}
