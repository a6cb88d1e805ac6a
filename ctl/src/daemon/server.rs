//! The loop: sessions come and go, requests are answered, signals end it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};

use super::listen::Listener;
use super::poller::Token;
use super::reply::{Answer, Refusal};
use super::session::{Peer, Recent, Session};
use super::settings::Settings;
use super::state::Daemon;
use super::{Config, Error, sockopt as options, wire};

/// SO_PEERPIDFD, asm-generic/socket.h.
const SO_PEERPIDFD: i32 = 77;
/// Requests of one client in a row.
const REQUESTS: usize = 16;
/// A daemon that was started for one client gives up if none comes.
const FIRST_CLIENT: Duration = Duration::from_secs(10);

/// Runs the daemon until a signal ends it, or, on demand, until its last client has gone.
pub fn run(config: Config) -> Result<(), Error> {
    start_log(&config);
    let settings = Settings::load(config.config_file.as_deref())?;
    let listener = Listener::bind(&config.socket, &settings.socket)?;
    raise_limits();
    let mut daemon = Daemon::new(settings)?;
    let signals = signals().map_err(|error| Error::Io("signals", error.into()))?;
    let watch = |fd: BorrowedFd<'_>, token| daemon.poller.add(fd, token).map_err(|error| Error::Io("epoll", error));
    watch(listener.as_fd(), Token::Listener)?;
    watch(signals.as_fd(), Token::Signals)?;
    daemon.find_left_behind();
    tracing::info!("listening on {}", config.socket.display());
    serve(&mut daemon, &listener, config.on_demand)?;
    drop(listener);
    drain(&mut daemon)?;
    daemon.finish();
    tracing::info!("ended: {:?}", daemon.totals);
    Ok(())
}

/// Until a signal comes or nobody needs us.
fn serve(daemon: &mut Daemon, listener: &Listener, on_demand: bool) -> Result<(), Error> {
    let first_client = Instant::now() + FIRST_CLIENT;
    loop {
        let wake = (on_demand && !daemon.had_client).then_some(first_client);
        let wake = [wake, daemon.next_deadline()].into_iter().flatten().min();
        let ready = wait(daemon, wake)?;
        if ready.contains(&Token::Signals) {
            return Ok(());
        }
        for token in ready {
            match token {
                Token::Listener => accept_all(daemon, listener),
                other => daemon.handle(other),
            }
        }
        let now = Instant::now();
        daemon.on_time(now);
        let clients = daemon.sessions.values().any(|session| session.arena.is_some());
        if on_demand && !clients && (daemon.had_client || first_client <= now) {
            tracing::info!("the last client has gone");
            return Ok(());
        }
    }
}

/// Lets the clients demote.
fn drain(daemon: &mut Daemon) -> Result<(), Error> {
    let patience = daemon.begin_shutdown();
    while daemon.connections() > 0 && Instant::now() < patience {
        for token in wait(daemon, Some(patience))? {
            if !matches!(token, Token::Listener | Token::Signals) {
                daemon.handle(token);
            }
        }
        daemon.expire_waiting(Instant::now());
    }
    Ok(())
}

fn wait(daemon: &Daemon, deadline: Option<Instant>) -> Result<Vec<Token>, Error> {
    let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    daemon.poller.wait(timeout).map_err(|error| Error::Io("epoll", error))
}

fn accept_all(daemon: &mut Daemon, listener: &Listener) {
    loop {
        match listener.accept() {
            Ok(Some(socket)) => daemon.open_session(socket),
            Ok(None) => return,
            Err(error) => {
                // Out of descriptors: the client waits in the backlog until a session ends.
                tracing::warn!("accept: {error}");
                return;
            }
        }
    }
}

impl Daemon {
    fn open_session(&mut self, socket: OwnedFd) {
        let Ok(credentials) = getsockopt(&socket, sockopt::PeerCredentials) else { return };
        let id = self.number();
        let pidfd = options::get_int(socket.as_fd(), libc::SOL_SOCKET, SO_PEERPIDFD).ok().map(options::adopt_fd);
        let added = self.poller.add(&socket, Token::Session(id));
        if let Err(error) = added {
            tracing::warn!("session {id}: {error}");
            return;
        }
        if let Some(pidfd) = &pidfd
            && let Err(error) = self.poller.add(pidfd, Token::Death(id))
        {
            tracing::warn!("session {id}: its death will show by its socket only: {error}");
        }
        let session = Session {
            id,
            socket,
            pidfd,
            events: None,
            peer: Peer { pid: credentials.pid(), uid: credentials.uid() },
            arena: None,
            ports: Default::default(),
            conns: Default::default(),
            recent: Recent::default(),
            absent_since: None,
        };
        self.sessions.insert(id, session);
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Session(id) => self.read_requests(id),
            Token::Death(id) => self.end_session(id),
            Token::Namespace(cookie) => self.network_changed(cookie),
            Token::Listener | Token::Signals => {}
        }
    }

    fn read_requests(&mut self, id: u32) {
        // What a busy client has beyond that waits for the next round, so that others have their turn.
        for _ in 0..REQUESTS {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            match wire::receive(session.socket.as_fd()) {
                // Nobody waits for the answer, and who lives goes on without it.
                Ok(Some(_)) if session.has_hung_up() => {}
                Ok(Some(request)) => {
                    session.drop_kept();
                    if let Some(answer) = self.answer(id, request) {
                        self.deliver(id, answer);
                    }
                }
                Ok(None) => return self.hung_up(id),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!("session {id} closed: {error}");
                    return self.hung_up(id);
                }
            }
        }
    }

    /// Sends an answer. A client that cannot take it is treated as dead.
    pub fn deliver(&mut self, id: u32, answer: Answer) {
        let Some(session) = self.sessions.get(&id) else { return };
        let reply = answer.unwrap_or_else(Refusal::reply);
        if let Err(error) = wire::send(session.socket.as_fd(), &reply.bytes, &reply.fds) {
            tracing::warn!("session {id}: answer not delivered: {error}");
            // Its hang-up, if that is the cause, is reported by the loop; a full socket is a client gone astray.
            let _ = nix::sys::socket::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&session.socket),
                nix::sys::socket::Shutdown::Both,
            );
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline);
        let due = [self.grace, self.neighbours_due(), self.rest_due(), self.absent_due()];
        waiting.chain(due.into_iter().flatten()).min()
    }

    fn on_time(&mut self, now: Instant) {
        self.expire_waiting(now);
        self.touch_neighbours(now);
        self.rest_idle(now);
        self.look_after_absent(now);
        if self.grace.is_some_and(|end| end <= now) {
            self.end_grace();
        }
    }
}

/// SIGTERM and SIGINT as a descriptor.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Every connection on a lane holds a descriptor here, and UMEM pages are locked memory.
fn raise_limits() {
    for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_MEMLOCK] {
        let raised = getrlimit(resource).and_then(|(_, hard)| setrlimit(resource, hard, hard));
        if let Err(errno) = raised {
            tracing::debug!("{resource:?}: {errno}");
        }
    }
}

/// Logs to stderr, filtered by `UNDERPASS_LOG`.
fn start_log(config: &Config) {
    use tracing_subscriber::EnvFilter;
    let usual = if config.foreground { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("UNDERPASS_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    // A second subscriber in one process (tests) changes nothing.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
}
