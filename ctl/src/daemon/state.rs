//! Everything that the daemon holds.

use std::collections::{BTreeMap, HashMap};
use std::hash::RandomState;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use underpass_stack::control::Message;
use underpass_stack::lane::Reason;
use underpass_stack::tcp;

use super::foreign::Waiting;
use super::gap::Suspects;
use super::interface::Interface;
use super::namespace::{Namespace, cookie_of};
use super::poller::{Poller, Token};
use super::reply::Refusal;
use super::session::Session;
use super::settings::Settings;
use super::{Error, wire};
use crate::bpf::{Algorithm, Scoreboard};
use crate::net::netns::Netns;
use crate::steer::Injector;

/// How long a restarted daemon waits for the clients of its predecessor.
const GRACE: Duration = Duration::from_secs(10);

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections promoted.
    pub promoted: u64,
    /// Connections given back, those of dead owners included.
    pub demoted: u64,
    /// Promotions refused.
    pub refused: u64,
    /// Frames injected.
    pub injected: u64,
    /// Frames that were not injected: not the session's, malformed, or too long.
    pub not_injected: u64,
    /// Connections given back for owners that died.
    pub reaped: u64,
    /// Connections that could not be given back.
    pub lost: u64,
}

/// The daemon.
pub struct Daemon {
    /// Its own network namespace.
    pub home: Netns,
    /// The settings file.
    pub settings: Settings,
    /// Puts frames into the kernel.
    pub injector: Injector,
    /// Gives sockets their congestion window; not every kernel can.
    pub algorithm: Option<Algorithm>,
    /// Knows what became of what kernel sockets have sent; not every kernel can.
    pub scoreboard: Option<Scoreboard>,
    /// Namespaces by cookie.
    pub namespaces: HashMap<u64, Namespace>,
    /// Clients by number.
    pub sessions: BTreeMap<u32, Session>,
    /// Clients that wait for a demotion elsewhere.
    pub waiting: Vec<Waiting>,
    /// Counters.
    pub totals: Totals,
    /// What wakes the loop.
    pub poller: Poller,
    /// Until then, what an earlier daemon left stays untouched.
    pub grace: Option<Instant>,
    /// The orderly end has begun: nothing new goes to a lane.
    pub ending: bool,
    /// When the kernel was told last which next hops are in use.
    pub neighbours_touched: Option<Instant>,
    /// Has a client said hello yet?
    pub had_client: bool,
    /// When an attachment was closed last.
    pub closed_at: Option<Instant>,
    /// Sockets that may hold bytes beyond a gap.
    pub suspects: Suspects,
    /// Makes flow labels that nobody can guess.
    pub label_key: RandomState,
    next_session: u32,
}

impl Daemon {
    /// Loads the injection program; everything else comes with the clients.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            home: Netns::current().map_err(|error| Error::Io("opening the own network namespace", error))?,
            settings,
            injector: Injector::load().map_err(Error::Steering)?,
            algorithm: algorithm(),
            scoreboard: scoreboard(),
            namespaces: HashMap::new(),
            sessions: BTreeMap::new(),
            waiting: Vec::new(),
            totals: Totals::default(),
            poller: Poller::new().map_err(|error| Error::Io("epoll", error))?,
            grace: None,
            ending: false,
            neighbours_touched: None,
            had_client: false,
            closed_at: None,
            suspects: Suspects::default(),
            label_key: RandomState::new(),
            next_session: 1,
        })
    }

    /// A number for a new session.
    pub fn number(&mut self) -> u32 {
        let number = self.next_session;
        self.next_session = self.next_session.wrapping_add(1).max(1);
        number
    }

    /// The session of this number.
    pub fn session(&mut self, id: u32) -> Result<&mut Session, Refusal> {
        self.sessions.get_mut(&id).ok_or_else(|| Reason::ProtocolError.into())
    }

    /// An interface that carries our program.
    pub fn interface(&mut self, netns: u64, ifindex: u32) -> Option<&mut Interface> {
        self.namespaces.get_mut(&netns)?.interfaces.get_mut(&ifindex)
    }

    /// The cookie of the namespace that a client's socket lives in; the namespace is opened at the first sight of it.
    pub fn namespace_of(&mut self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        let cookie = cookie_of(socket)?;
        if !self.namespaces.contains_key(&cookie) {
            self.open_namespace(cookie, Netns::of(socket)?)?;
        }
        Ok(cookie)
    }

    /// Opens a namespace and starts to watch it.
    pub fn open_namespace(&mut self, cookie: u64, netns: Netns) -> io::Result<()> {
        let namespace = Namespace::open(netns, &self.home)?;
        self.poller.add(&namespace.watch, Token::Namespace(cookie))?;
        for fd in namespace.routers.iter().flat_map(|routers| routers.fds()) {
            self.poller.add(fd, Token::Namespace(cookie))?;
        }
        self.namespaces.insert(cookie, namespace);
        Ok(())
    }

    /// Takes programs off the interfaces that nobody uses, and lets go of namespaces that nobody is in. Not during the grace time.
    pub fn tidy(&mut self) {
        if self.grace.is_some() {
            return;
        }
        let sessions = &self.sessions;
        self.namespaces.retain(|cookie, namespace| {
            let idle = namespace.tidy();
            let used = sessions.values().any(|s| s.conns.values().any(|c| c.netns == *cookie));
            !idle || used
        });
    }

    /// Waits for the clients of an earlier daemon.
    pub fn begin_grace(&mut self) {
        self.grace = Some(Instant::now() + GRACE);
    }

    /// Sends an unasked message. A client that cannot take it is not waited for.
    pub fn tell(&self, session: u32, message: &impl Message) {
        let Some(events) = self.sessions.get(&session).and_then(|s| s.events.as_ref()) else { return };
        if let Err(error) = wire::send(std::os::fd::AsFd::as_fd(events), &message.encode(), &[]) {
            tracing::warn!("session {session}: event not delivered: {error}");
        }
    }
}

fn algorithm() -> Option<Algorithm> {
    let loaded = Algorithm::load();
    if let Err(error) = &loaded {
        tracing::warn!(
            "connections that come back from a lane begin with the kernel's initial congestion window: {error}"
        );
    }
    loaded.ok()
}

fn scoreboard() -> Option<Scoreboard> {
    let loaded = Scoreboard::load();
    if let Err(error) = &loaded {
        tracing::warn!("connections that go to a lane amid a recovery send again what has arrived: {error}");
    }
    loaded.ok()
}

/// CLOCK_MONOTONIC, as the stack counts it.
pub fn monotonic() -> tcp::Instant {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    tcp::Instant(now.as_nanos() as u64)
}
