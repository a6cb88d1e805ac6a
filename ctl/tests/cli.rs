//! The command as people and scripts meet it: output, exit codes, what a program started by `run` gets.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

fn run(program: impl AsRef<Path>, args: &[&str]) -> Output {
    let mut command = Command::new(program.as_ref());
    command.args(args).env_remove("LD_PRELOAD").env("UNDERPASS_SOCKET", "/nonexistent/underpass.sock");
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory of its own with the command in it, and beside it an (empty) library; removed when dropped.
struct Installed(PathBuf);

impl Installed {
    fn new(name: &str, with_library: bool) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        // Not a copy: a file that was just written cannot be run while another test's fork still has it open.
        fs::hard_link(UNDERPASS, directory.join("underpass")).unwrap();
        if with_library {
            fs::write(directory.join("libunderpass.so"), []).unwrap();
        }
        Self(directory)
    }

    fn command(&self) -> PathBuf {
        self.0.join("underpass")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for args in [&["no-such-command"][..], &["demote"], &["run"], &["stats", "--watch", "0"], &["demote", "-p", "x"]] {
        assert_eq!(code(&run(UNDERPASS, args)), 2, "{args:?}");
    }
    assert_eq!(code(&run(UNDERPASS, &["doctor", "no-such-if"])), 2);
    for args in [&["ss", "-p", "4194305"][..], &["stats", "-p", "4194305"], &["demote", "-p", "4194305"]] {
        let output = run(UNDERPASS, args);
        assert_eq!((code(&output), stderr(&output).as_str()), (1, "underpass: there is no process 4194305\n"));
    }
    let me = std::process::id().to_string();
    let output = run(UNDERPASS, &["ss", "-p", &me]);
    assert!(code(&output) == 1 && stderr(&output).contains("does not run under underpass"), "{output:?}");
}

#[test]
fn help_is_complete_and_without_failure() {
    for sub in ["run", "ps", "ss", "stats", "demote", "daemon", "doctor"] {
        let output = run(UNDERPASS, &[sub, "--help"]);
        assert_eq!(code(&output), 0, "{sub}");
        assert!(stdout(&run(UNDERPASS, &["--help"])).contains(sub), "{sub}");
    }
    assert!(stdout(&run(UNDERPASS, &["run", "--help"])).contains("UNDERPASS_SPIN_USEC, or EF_POLL_USEC"));
}

#[test]
fn json_is_json() {
    for (args, is_array) in [(&["ps", "--json"], true), (&["ss", "--json"], true), (&["stats", "--json"], true)] {
        let value: serde_json::Value = serde_json::from_slice(&run(UNDERPASS, args).stdout).unwrap();
        assert_eq!(value.is_array(), is_array, "{args:?}");
    }
    let doctor: serde_json::Value =
        serde_json::from_slice(&run(UNDERPASS, &["doctor", "--json", "lo"]).stdout).unwrap();
    assert_eq!(doctor["works"], false);
    assert_eq!(doctor["interfaces"][0]["name"], "lo");
    assert!(doctor["host"].as_array().unwrap().iter().any(|check| check["name"] == "daemon"));
}

#[test]
fn without_the_library_nothing_is_run() {
    let installed = Installed::new("none", false);
    let output = run(installed.command(), &["run", "--", "echo", "ran"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(stderr(&output).contains("libunderpass.so is neither"), "{output:?}");
}

#[test]
fn a_program_gets_the_library_first_and_the_profile_where_nothing_was_set() {
    let installed = Installed::new("env", true);
    let mut command = Command::new(installed.command());
    command.args(["run", "--profile", "latency", "--", "env"]);
    command.env("LD_PRELOAD", "other.so").env("UNDERPASS_SPIN_USEC", "7");
    let output = command.output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let lines = stdout(&output);
    let library = installed.0.canonicalize().unwrap().join("libunderpass.so");
    assert!(lines.contains(&format!("LD_PRELOAD={}:other.so\n", library.display())), "{lines}");
    assert!(lines.contains("UNDERPASS_SPIN_USEC=7\n") && lines.contains("UNDERPASS_PROMOTE=eager\n"), "{lines}");
}

#[test]
fn the_programs_end_is_the_commands_end() {
    let installed = Installed::new("end", true);
    assert_eq!(code(&run(installed.command(), &["run", "sh", "-c", "exit 42"])), 42);
    assert_eq!(run(installed.command(), &["run", "sh", "-c", "kill -9 $$"]).status.signal(), Some(9));
    assert_eq!(code(&run(installed.command(), &["run", "/no/such/program"])), 127);
    assert_eq!(code(&run(installed.command(), &["run", "/etc/passwd"])), 126);
}

#[test]
fn a_malformed_profile_is_a_usage_error_that_names_the_line() {
    let installed = Installed::new("profile", true);
    let profile = installed.0.join("bad.env");
    fs::write(&profile, "# comment\nUNDERPASS_RING=banana\n").unwrap();
    let output = run(installed.command(), &["run", "--profile", profile.to_str().unwrap(), "true"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("line 2: UNDERPASS_RING=\"banana\" is not valid"), "{output:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(UNDERPASS).arg("man").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn manual_and_completions_are_generated() {
    assert!(stdout(&run(UNDERPASS, &["man"])).starts_with(".TH UNDERPASS 1"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(UNDERPASS, &["completions", shell])).contains("demote"), "{shell}");
    }
}
