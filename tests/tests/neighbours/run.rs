//! One run of the programs of a case, all of them plain or all of them preloaded.

use std::fmt::Debug;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use underpass_lab::{Neighbourhood, Process, Profile, wait_for};

use crate::watch::{Leg, Watch};

/// How long a program may take to start, to end, or to be seen on the lane.
pub const LIMIT: Duration = Duration::from_secs(20);
/// Lines of a library's log that a failure shows.
const LOG_LINES: usize = 20;
/// Characters of an outcome that it shows.
const EXCERPT: usize = 600;

/// Where and how the programs run.
pub struct Run<'a> {
    place: &'a Neighbourhood,
    /// `UNDERPASS_PROMOTE` of the preloaded programs; none if they are plain.
    promote: Option<&'static str>,
}

/// Preloaded, the outcome is the one without the library.
pub fn same_outcome<T: Debug + PartialEq>(promote: &'static str, outcome: impl Fn(&Run<'_>) -> T) {
    let place = Neighbourhood::new(Profile::Release).unwrap();
    let plain = outcome(&Run { place: &place, promote: None });
    let run = Run { place: &place, promote: Some(promote) };
    let preloaded = outcome(&run);
    run.check_same("without the library", &plain, "with it", &preloaded);
}

impl Run<'_> {
    /// For files of this run.
    pub fn dir(&self) -> PathBuf {
        let dir = self.place.dir().join(if self.promote.is_some() { "preloaded" } else { "plain" });
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A program with its arguments, and with the library if this run has it.
    pub fn command(&self, words: &[&str]) -> Command {
        let made = match self.promote {
            Some(_) => self.place.preloaded(words[0]),
            None => self.place.command(words[0]),
        };
        let mut command = made.unwrap();
        command.args(&words[1..]).current_dir(self.dir()).env("no_proxy", "*");
        if let Some(promote) = self.promote {
            command.env("UNDERPASS_PROMOTE", promote).env("UNDERPASS_LOG", "info");
        }
        command
    }

    /// Starts a program. Its output goes to files of that name.
    pub fn start(&self, name: &str, words: &[&str]) -> Process {
        self.spawn(name, self.command(words))
    }

    /// Starts a command. Its output goes to files of that name.
    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        if self.promote.is_some() {
            // Beside what the program says on stderr, which is part of the outcome. It may become somebody else.
            let log = self.log(name);
            File::create(&log).and_then(|file| file.set_permissions(Permissions::from_mode(0o666))).unwrap();
            command.env("UNDERPASS_LOG_FILE", log);
        }
        let started = Process::spawn(name, &mut command, &self.dir());
        started.unwrap_or_else(|error| panic!("{error}: scripts/setup.sh installs what is missing"))
    }

    /// Starts a server and waits until something listens on the port.
    pub fn serve(&self, name: &str, words: &[&str], port: u16) -> Process {
        let mut server = self.start(name, words);
        self.await_listener(&mut server, port);
        server
    }

    /// Waits until something listens on the port.
    pub fn await_listener(&self, server: &mut Process, port: u16) {
        let listens = || {
            let found = self.place.namespace().run("ss", &["-Htln", &format!("sport = {port}")]);
            !found.unwrap().is_empty()
        };
        let waited = wait_for("it to listen", LIMIT, || server.exited().is_some() || listens());
        let ended = server.exited();
        if waited.is_err() || ended.is_some() {
            self.fail(&format!("port {port}: {waited:?}, {ended:?}\n{}{}", server.stdout(), server.stderr()));
        }
    }

    /// Runs a client to its good end; its stdout.
    pub fn ask(&self, name: &str, words: &[&str]) -> String {
        self.finish(&mut self.start(name, words))
    }

    /// Waits for a program to end well; its stdout.
    pub fn finish(&self, program: &mut Process) -> String {
        program.finish(LIMIT).unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    /// Where the stdout of the program of that name is.
    pub fn output(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.out"))
    }

    /// Does the work, which starts clients; in a preloaded run as often as it takes until both ends of every leg were seen on
    /// the lane. Its outcome, which is the same each time.
    pub fn until_seen<T: Debug + PartialEq>(&self, legs: &[Leg], work: impl Fn() -> T) -> T {
        if self.promote.is_none() {
            return work();
        }
        let deadline = Instant::now() + LIMIT;
        let watch = Watch::new(legs);
        let first = watch.during(self.place, &work);
        while !watch.is_over() && Instant::now() < deadline {
            let again = watch.during(self.place, &work);
            self.check_same("at first", &first, "when done again", &again);
        }
        if !watch.is_over() {
            self.fail(&watch.to_string());
        }
        first
    }

    /// Ends the test, and shows what there is to see.
    pub fn fail(&self, what: &str) -> ! {
        let how = self.promote.map_or("plain".to_owned(), |promote| format!("preloaded, promotion {promote}"));
        panic!("{how}: {what}\n{}", self.logs());
    }

    /// Fails if two outcomes differ, and shows where they begin to.
    fn check_same<T: Debug + PartialEq>(&self, where_one: &str, one: &T, where_other: &str, other: &T) {
        if one != other {
            let [one, other] = excerpts([format!("{one:?}"), format!("{other:?}")]);
            self.fail(&format!("the outcomes differ\n{where_one}: {one}\n{where_other}: {other}"));
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.log"))
    }

    /// What the library has said at last in each program.
    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.dir()).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs.iter().map(|path| last_lines(path)).collect()
    }
}

/// What there is around the first difference of two texts.
fn excerpts(texts: [String; 2]) -> [String; 2] {
    let same = texts[0].chars().zip(texts[1].chars()).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(EXCERPT / 3);
    texts.map(|text| text.chars().skip(from).take(EXCERPT).collect())
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}\n", path.display(), lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}
