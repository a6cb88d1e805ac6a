//! Two programs that talk over the wire, every byte checked (the `traffic` program), each preloaded or not.

use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::Doing;
use crate::{Lab, LabError, Process, Side, SocketView, wait_for};

/// How long something may take that takes milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Which programs run with the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preload {
    /// Neither: the kernel's own behaviour.
    Neither,
    /// The server.
    Server,
    /// The client.
    Client,
    /// Both.
    Both,
}

impl Preload {
    /// Does the program on this side run with the library?
    pub fn covers(self, side: Side) -> bool {
        match self {
            Self::Neither => false,
            Self::Server => side == Side::Server,
            Self::Client => side == Side::Client,
            Self::Both => true,
        }
    }

    /// The sides that do.
    pub fn sides(self) -> Vec<Side> {
        [Side::Server, Side::Client].into_iter().filter(|&side| self.covers(side)).collect()
    }
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Question and answer of so many bytes.
    PingPong(usize),
    /// Both directions at once, as fast as they go.
    Duplex,
    /// The client writes for ever, the server reads.
    Flood,
}

/// A conversation under way.
#[derive(Debug)]
pub struct Talk {
    server: Process,
    client: Process,
    progress: File,
    kind: Kind,
}

impl Talk {
    /// Starts it. `program` is the `traffic` program, `env` is set for the preloaded ones.
    pub fn start(
        lab: &Lab,
        program: &str,
        kind: Kind,
        preload: Preload,
        env: &[(&str, &str)],
    ) -> Result<Self, LabError> {
        Self::start_by(lab, &[], program, kind, preload, env)
    }

    /// As [`Talk::start`]; the preloaded programs are started by the command `before` (setpriv(1), say), if it is not empty.
    pub fn start_by(
        lab: &Lab,
        before: &[&str],
        program: &str,
        kind: Kind,
        preload: Preload,
        env: &[(&str, &str)],
    ) -> Result<Self, LabError> {
        let command = |side| -> Result<Command, LabError> {
            if !preload.covers(side) {
                return lab.command(side, program);
            }
            let mut command = lab.preloaded(side, before.first().copied().unwrap_or(program))?;
            command.args(before.iter().skip(1)).args(before.first().map(|_| program));
            command.env("UNDERPASS_LOG", "info").envs(env.iter().copied());
            Ok(command)
        };
        // Several conversations may go on in one lab.
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let (path, progress) = progress_file(&lab.dir().join(format!("progress{number}")))?;
        let (serve, ask) = match kind {
            Kind::PingPong(_) => ("echo", "pingpong"),
            Kind::Duplex => ("answer", "duplex"),
            Kind::Flood => ("drain", "flood"),
        };
        let listening = SocketAddr::new(lab.listening(), 0);
        let mut server =
            lab.spawn(&format!("server{number}"), command(Side::Server)?.args([serve, &listening.to_string()]))?;
        let port = server.expect_line("port:", LIMIT)?.parse().doing("read the port")?;
        let to = SocketAddr::new(lab.address(), port);
        let mut asking = command(Side::Client)?;
        asking.args([ask, &to.to_string(), &path]);
        if let Kind::PingPong(size) = kind {
            asking.arg(size.to_string());
        }
        let client = lab.spawn(&format!("client{number}"), &mut asking)?;
        Ok(Self { server, client, progress, kind })
    }

    /// The program on one side.
    pub fn program(&mut self, side: Side) -> &mut Process {
        match side {
            Side::Server => &mut self.server,
            Side::Client => &mut self.client,
        }
    }

    /// The connection of one side's program, as `underpass ss` shows it; `None` if the program cannot be looked into.
    pub fn connection(&mut self, lab: &Lab, side: Side) -> Option<SocketView> {
        let pid = self.program(side).pid();
        let established = lab.sockets(pid).ok()?.into_iter().filter(|socket| socket.state == "ESTAB");
        // A duplicate's entry is as old as its last use.
        established.max_by_key(|socket| socket.promoted + socket.demoted)
    }

    /// Waits until one side's connection is as wanted.
    pub fn await_connection(
        &mut self,
        lab: &Lab,
        side: Side,
        what: &str,
        mut wanted: impl FnMut(&SocketView) -> bool,
    ) -> Result<(), LabError> {
        let mut last = None;
        let waited = wait_for(&format!("{what} on the {side:?}"), LIMIT, || {
            last = self.connection(lab, side);
            last.as_ref().is_some_and(&mut wanted)
        });
        waited.map_err(|error| LabError::new(format!("{error}; last seen: {last:?}")))
    }

    /// Waits until one side's connection is on the xdp lane.
    pub fn await_lane(&mut self, lab: &Lab, side: Side) -> Result<(), LabError> {
        self.await_connection(lab, side, "lane xdp", |socket| socket.tier == "xdp")
    }

    /// What the client has done: rounds of a ping-pong, bytes written of the others.
    pub fn done(&self) -> Result<u64, LabError> {
        let mut bytes = [0; 8];
        self.progress.read_exact_at(&mut bytes, 0).doing("read the progress")?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Waits until so much more has been done. An error if a program ends instead.
    pub fn go_on(&mut self, more: u64) -> Result<(), LabError> {
        let goal = self.done()? + more;
        let mut ended = None;
        let waited = wait_for(&format!("the conversation to go on to {goal}"), LIMIT, || {
            ended = self.client.exited();
            ended.is_some() || self.done().is_ok_and(|done| done >= goal)
        });
        match (waited, ended) {
            (Ok(()), None) => Ok(()),
            (Err(error), _) => Err(LabError::new(format!("{error}; done: {}", self.done()?))),
            (Ok(()), Some(status)) => Err(self.complain(&format!("the client ended early: {status}"))),
        }
    }

    /// Ends it in an orderly way: both programs have found every byte right, and agree on their number.
    pub fn end(mut self) -> Result<(), LabError> {
        self.progress.write_all_at(&1u64.to_ne_bytes(), 8).doing("write to the progress")?;
        let client = self.client.finish(LIMIT)?;
        if let Kind::PingPong(_) = self.kind {
            return Ok(());
        }
        let server = self.server.finish(LIMIT)?;
        let (asked, answered) = (numbers(&client), numbers(&server));
        let agree = match self.kind {
            Kind::Duplex => {
                asked.len() == 2 && answered.len() == 3 && asked[0] == answered[2] && asked[1] == answered[1]
            }
            _ => asked.len() == 1 && answered.get(1) == asked.first(),
        };
        if agree { Ok(()) } else { Err(self.complain(&format!("the counts differ: {client}{server}"))) }
    }

    fn complain(&self, what: &str) -> LabError {
        let said = [&self.server, &self.client].map(|side| format!("{}{}", side.stdout(), side.stderr()));
        LabError::new(format!("{what}\n  server: {}\n  client: {}", said[0], said[1]))
    }
}

/// The numbers that a program has printed, in order; a server's first is its port.
fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn progress_file(path: &Path) -> Result<(String, File), LabError> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.doing("create the progress file")?;
    // The program may run as somebody else.
    file.set_permissions(Permissions::from_mode(0o666)).doing("share the progress file")?;
    file.write_all_at(&[0; 16], 0).doing("write to the progress file")?;
    Ok((path.display().to_string(), file))
}
