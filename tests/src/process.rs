//! A program that ends with its guard.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::child::{signal, wait_exit};
use crate::error::{Doing, LabError};
use crate::wait::wait_for;

/// How long a program may take to obey SIGTERM.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running program. Its output goes to two files. Stopped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `dir/name.out` and `dir/name.err`.
    pub fn spawn(name: &str, command: &mut Command, dir: &Path) -> Result<Self, LabError> {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let file = |path: &Path| File::create(path).doing(format_args!("create {}", path.display()));
        command.stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?);
        let child =
            command.spawn().doing(format_args!("start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { child, name: name.to_owned(), out, err })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Has it ended? With what?
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for it to end by itself. An error if it takes longer than `limit` (it is then still running).
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        if !wait_exit(self.pid(), limit).doing(format_args!("wait for {}", self.name))? {
            return Err(self.complain(&format!("did not end within {limit:?}")));
        }
        self.child.wait().doing(format_args!("wait for {}", self.name))
    }

    /// Waits for it to end well; its stdout.
    pub fn finish(&mut self, limit: Duration) -> Result<String, LabError> {
        let status = self.wait(limit)?;
        if !status.success() {
            return Err(self.complain(&format!("ended with {status}")));
        }
        Ok(self.stdout())
    }

    /// Waits until it has printed a whole line that starts with `prefix`; the rest of that line.
    pub fn expect_line(&mut self, prefix: &str, limit: Duration) -> Result<String, LabError> {
        let mut found = None;
        let mut ended = false;
        let result = wait_for(&format!("{} to print '{prefix}'", self.name), limit, || {
            ended = self.exited().is_some();
            let text = self.stdout();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            found = whole.lines().find_map(|line| line.strip_prefix(prefix)).map(|rest| rest.trim().to_owned());
            found.is_some() || ended
        });
        match (found, result) {
            (Some(line), _) => Ok(line),
            (None, Ok(())) => Err(self.complain("ended early")),
            (None, Err(error)) => Err(self.complain(&error.to_string())),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, number: libc::c_int) -> Result<(), LabError> {
        signal(self.pid(), number).doing(format_args!("signal {number} to {}", self.name))
    }

    /// Ends it at once, and leaves it no chance to clean up (SIGKILL).
    pub fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it in an orderly way (SIGTERM), by force if it does not obey within 3 s.
    pub fn stop(&mut self) {
        if self.exited().is_some() {
            return;
        }
        let asked = self.signal(libc::SIGTERM).is_ok();
        if !(asked && wait_exit(self.pid(), PATIENCE).unwrap_or(false)) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// CPU time used so far by the process, user and system, all threads.
    pub fn cpu_time(&self) -> Result<Duration, LabError> {
        let path = format!("/proc/{}/schedstat", self.pid());
        let mut total = 0;
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).doing(&path)?;
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).doing(&path)?;
            total += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    fn complain(&self, what: &str) -> LabError {
        let tail = |text: String| {
            text.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n  ")
        };
        let (out, err) = (tail(self.stdout()), tail(self.stderr()));
        LabError::new(format!("{} {what}\n  stdout: {out}\n  stderr: {err}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = self.exited().map_or_else(|| "was running".to_owned(), |status| format!("had ended: {status}"));
            eprintln!("{}", self.complain(&state));
        }
        self.stop();
    }
}
