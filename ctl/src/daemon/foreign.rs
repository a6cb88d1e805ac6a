//! Sockets that another process's stack carries: the one who needs them waits until the owner has given them back.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use underpass_stack::control::{AskDemote, DemoteAsk};
use underpass_stack::lane::Reason;

use super::eligible::is_tcp;
use super::reply::{Answer, Refusal, Reply};
use super::sockopt;
use super::state::Daemon;

/// How long an owner may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that waits for a demotion.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Whose answer is due.
    pub session: u32,
    /// SO_COOKIE of the socket.
    pub cookie: u64,
    /// When the answer is no.
    pub deadline: Instant,
}

impl Daemon {
    /// Answers [`underpass_stack::control::DemoteForeign`], now or later (`None`).
    pub fn demote_foreign(&mut self, session: u32, fds: Vec<OwnedFd>) -> Option<Answer> {
        match self.find_owner(&fds) {
            Err(refusal) => Some(Err(refusal)),
            // Nobody's: the kernel socket is live.
            Ok(None) => Some(Ok(Reply::done(0))),
            Ok(Some((owner, slot, cookie))) => {
                self.tell(owner, &DemoteAsk { slot, reason: Reason::Shared as u16, pad: 0 });
                self.waiting.push(Waiting { session, cookie, deadline: Instant::now() + PATIENCE });
                None
            }
        }
    }

    fn find_owner(&self, fds: &[OwnedFd]) -> Result<Option<(u32, u32, u64)>, Refusal> {
        let [fd] = fds else { return Err(Reason::ProtocolError.into()) };
        is_tcp(fd.as_fd())?;
        let (cookie, _) = sockopt::get::<u64>(fd.as_fd(), libc::SOL_SOCKET, libc::SO_COOKIE)?;
        let owner = self.sessions.values().find_map(|session| {
            let slot = session.conns.iter().find(|(_, conn)| conn.cookie == cookie).map(|(slot, _)| *slot)?;
            Some((session.id, slot, cookie))
        });
        Ok(owner)
    }

    /// The socket of this cookie is the kernel's again: whoever waits for that goes on.
    pub fn answer_waiting(&mut self, cookie: u64) {
        let (due, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiting| waiting.cookie == cookie);
        self.waiting = rest;
        for waiting in due {
            self.deliver(waiting.session, Ok(Reply::done(1)));
        }
    }

    /// Tells those who have waited too long.
    pub fn expire_waiting(&mut self, now: Instant) {
        let (due, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiting| waiting.deadline <= now);
        self.waiting = rest;
        for waiting in due {
            tracing::warn!("session {}: the owner of a shared connection does not give it back", waiting.session);
            self.deliver(waiting.session, Err(Refusal { reason: Reason::Failed, errno: libc::ETIMEDOUT }));
        }
    }

    /// Answers [`AskDemote`].
    pub fn ask_demote(&mut self, session: u32, ask: &AskDemote) -> Answer {
        let peer = self.session(session)?.peer;
        let asked: Vec<u32> = self
            .sessions
            .values()
            .filter(|s| s.events.is_some() && (ask.pid == 0 || s.peer.pid as u32 == ask.pid))
            .filter(|s| peer.uid == 0 || peer.uid == s.peer.uid)
            .map(|s| s.id)
            .collect();
        let hidden = ask.pid != 0 && self.sessions.values().any(|s| s.events.is_some() && s.peer.pid as u32 == ask.pid);
        if asked.is_empty() && hidden {
            return Err(Refusal { reason: Reason::AccessDenied, errno: libc::EPERM });
        }
        for &id in &asked {
            self.tell(id, &DemoteAsk { slot: ask.slot, reason: Reason::Asked as u16, pad: 0 });
        }
        Ok(Reply::done(asked.len() as u32))
    }
}
