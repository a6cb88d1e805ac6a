//! Well-known programs, preloaded as server, as client and both: their connections are seen on the lane while they work, and
//! what comes of it is what comes of it without the library.

mod documents;
mod python;
mod redis;
mod streams;
mod web;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use underpass_lab::{Lab, LabOptions, Over, Preload, Process, Profile, Side, SocketView, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const AUTO: &str = "auto";
const EAGER: &str = "eager";
/// Lines of a library's log that a failure shows.
const LOG_LINES: usize = 40;

fn lab() -> Lab {
    lab_over(Over::V4)
}

fn lab_over(over: Over) -> Lab {
    Lab::with_daemon(LabOptions { profile: Profile::Release, over, ..LabOptions::default() }).unwrap()
}

/// One run of a server and its clients.
struct Run<'a> {
    lab: &'a Lab,
    preload: Preload,
    /// `UNDERPASS_PROMOTE`.
    promote: &'static str,
}

/// However it is preloaded, the outcome is the one without the library.
fn same_outcome<T: Debug + PartialEq>(lab: &Lab, promote: &'static str, outcome: impl Fn(&Run<'_>) -> T) {
    let plain = outcome(&Run { lab, preload: Preload::Neither, promote });
    for preload in [Preload::Server, Preload::Client, Preload::Both] {
        let run = Run { lab, preload, promote };
        let preloaded = outcome(&run);
        assert_eq!(preloaded, plain, "left: {preload:?} preloaded, right: neither\n{}", run.logs());
    }
}

impl Run<'_> {
    /// Where clients find the server.
    fn address(&self) -> String {
        self.lab.address().to_string()
    }

    /// Where the server listens.
    fn listening(&self) -> String {
        self.lab.listening().to_string()
    }

    /// The address and a port, as URLs and configurations have them.
    fn at(&self, address: &str, port: u16) -> String {
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// Starts a program, with the library where it belongs.
    fn spawn(&self, side: Side, words: &[&str]) -> Process {
        let program = words[0];
        let made = match self.preload.covers(side) {
            true => self.lab.preloaded(side, program),
            false => self.lab.command(side, program),
        };
        let mut command = made.unwrap();
        command.args(&words[1..]).env("UNDERPASS_PROMOTE", self.promote).env("UNDERPASS_LOG", "info");
        // Beside what the program says on stderr, which is part of its outcome.
        command.env("UNDERPASS_LOG_FILE", self.log(side)).env("no_proxy", "*");
        let name = if side == Side::Server { "server" } else { "client" };
        let started = self.lab.spawn(name, &mut command);
        started.unwrap_or_else(|error| panic!("{error}: install {program} (scripts/setup.sh)"))
    }

    /// Starts a server and waits until something listens on the port.
    fn serve(&self, words: &[&str], port: u16) -> Process {
        let mut server = self.spawn(Side::Server, words);
        let namespace = &self.lab.host(Side::Server).namespace;
        let listens = || !namespace.run("ss", &["-Htln", &format!("sport = {port}")]).unwrap().is_empty();
        let waited = wait_for("it to listen", LIMIT, || server.exited().is_some() || listens());
        let ended = server.exited();
        if waited.is_err() || ended.is_some() {
            self.fail(&format!("{}: {waited:?}, {ended:?}\n{}{}", words[0], server.stdout(), server.stderr()));
        }
        server
    }

    /// Runs a client to its end; its stdout.
    fn ask(&self, words: &[&str]) -> String {
        self.finish(&mut self.spawn(Side::Client, words))
    }

    /// Waits for a client to end well; its stdout.
    fn finish(&self, client: &mut Process) -> String {
        client.finish(LIMIT).unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    /// Sees, while the client is at work, in each preloaded program (the server's process is `server`) sockets as wanted.
    fn watch(&self, server: u32, client: &mut Process, wanted: impl Fn(Side, &[SocketView]) -> bool) {
        let mut unseen = self.preload.sides();
        let mut last = BTreeMap::new();
        let waited = wait_for("connections on the lane", LIMIT, || {
            let at_work = client.exited().is_none();
            unseen.retain(|&side| {
                let sockets = self.lab.sockets(if side == Side::Server { server } else { client.pid() });
                let seen = sockets.as_ref().is_ok_and(|sockets| wanted(side, sockets));
                if at_work {
                    last.insert(format!("{side:?}"), sockets);
                }
                !seen
            });
            unseen.is_empty() || !at_work
        });
        if !unseen.is_empty() {
            let said = format!("client's stdout: {}\nclient's stderr: {}", client.stdout(), client.stderr());
            self.fail(&format!("not seen on the {unseen:?} ({waited:?}); while it worked: {last:#?}\n{said}"));
        }
    }

    fn log(&self, side: Side) -> PathBuf {
        self.lab.dir().join(format!("{:?}-{side:?}.log", self.preload))
    }

    /// What the library has said at last, on both sides. The lab itself shows what the daemon has said.
    fn logs(&self) -> String {
        let last = |side: Side| {
            let text = std::fs::read_to_string(self.log(side)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{side:?}'s log:\n{}\n", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        last(Side::Server) + &last(Side::Client)
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{:?} preloaded, {}: {what}\n{}", self.preload, self.promote, self.logs());
    }
}

/// A connection is on the lane now.
fn on_lane(_: Side, sockets: &[SocketView]) -> bool {
    sockets.iter().any(|socket| socket.tier == "xdp" && socket.state == "ESTAB")
}
