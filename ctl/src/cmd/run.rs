//! `underpass run`: a program with the library preloaded.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use underpass_stack::config::OPTIONS;

use super::failure::Failure;
use super::profile;

/// The library's file name.
const LIBRARY: &str = "libunderpass.so";
/// Where packages put it.
const PACKAGED: &str = "/usr/lib/underpass";

/// Run a program with its sockets accelerated.
#[derive(Debug, clap::Args)]
#[command(after_help = "The same as LD_PRELOAD=.../libunderpass.so CMD. Programs that are statically linked, setuid, or that make\n\
                        system calls without libc (Go) cannot be preloaded and run as always.\n\n\
                        Examples:\n  underpass run -- redis-server --port 6379\n  \
                        underpass run --profile latency -- ./trader\n  \
                        UNDERPASS_LOG=info underpass run -- curl http://10.0.0.7/\n\n\
                        Profiles: latency, throughput, safe, and files NAME.env in /etc/underpass/profiles.",
          after_long_help = options_help())]
pub struct Args {
    /// A named set of options; variables that are already set win over it.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the subcommand: replaces this process by the program. Exit codes then are the program's own; 127 and 126 if it
/// is not found or cannot be run, as of a shell.
pub fn main(args: Args) -> Result<(), Failure> {
    let library = find_library().ok_or_else(|| {
        Failure::Failed(format!("{LIBRARY} is neither beside this command, nor in ../lib, nor in {PACKAGED}"))
    })?;
    let preload = preload(&library, std::env::var_os("LD_PRELOAD").as_deref())?;
    let mut words = args.command.into_iter();
    let program = words.next().ok_or_else(|| Failure::Usage("no program given".to_owned()))?;
    let mut command = Command::new(&program);
    command.args(words).env("LD_PRELOAD", preload);
    for (name, value) in args.profile.as_deref().map(profile::load).transpose()?.unwrap_or_default() {
        if std::env::var_os(&name).is_none_or(|set| set.is_empty()) {
            command.env(name, value);
        }
    }
    let error = command.exec();
    eprintln!("underpass: cannot run {}: {error}", program.to_string_lossy());
    std::process::exit(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
}

/// The library beside this executable, in `../lib`, or where packages put it.
pub fn find_library() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let directory = executable.parent()?;
    let places = [directory.to_owned(), directory.join("../lib"), PathBuf::from(PACKAGED)];
    places.iter().find_map(|place| place.join(LIBRARY).canonicalize().ok())
}

/// The value of LD_PRELOAD with the library first, unless it is there already. ld.so(8) splits at blanks and colons.
fn preload(library: &Path, before: Option<&OsStr>) -> Result<OsString, Failure> {
    if library.as_os_str().as_bytes().iter().any(is_separator) {
        let library = library.display();
        return Err(Failure::Failed(format!("{library}: ld.so cannot preload from a path with a blank or a colon")));
    }
    let before = before.unwrap_or_default();
    let is_there = before.as_bytes().split(is_separator).any(|entry| entry == library.as_os_str().as_bytes());
    let mut value = OsString::new();
    if !is_there {
        value.push(library);
        value.push(if before.is_empty() { "" } else { ":" });
    }
    value.push(before);
    Ok(value)
}

fn is_separator(byte: &u8) -> bool {
    matches!(byte, b' ' | b':')
}

/// The option table as text, for `--help`.
fn options_help() -> String {
    let mut text = String::from(
        "The same as LD_PRELOAD=.../libunderpass.so CMD. Programs that are statically linked, setuid, or that make\n\
         system calls without libc (Go) cannot be preloaded and run as always.\n\n\
         Options are environment variables; profiles (latency, throughput, safe, and files NAME.env in\n\
         /etc/underpass/profiles) set several at once. OpenOnload's names are taken where given.\n",
    );
    for option in OPTIONS {
        let alias = option.alias.map(|alias| format!(", or {alias}")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {}{alias}\n      {}\n", option.name, option.text);
        let _ = writeln!(text, "      Values: {}. Default: {}.", option.accepts, option.shown_default());
    }
    text.push_str(
        "\nExamples:\n  underpass run -- redis-server --port 6379\n  underpass run --profile latency -- ./trader\n  \
         UNDERPASS_LOG=info underpass run -- curl http://10.0.0.7/",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_comes_first_and_once() {
        let library = Path::new("/opt/libunderpass.so");
        let joined = |before: &str| preload(library, Some(OsStr::new(before))).unwrap();
        assert_eq!(preload(library, None).unwrap(), "/opt/libunderpass.so");
        assert_eq!(joined(""), "/opt/libunderpass.so");
        assert_eq!(joined("/a.so /b.so"), "/opt/libunderpass.so:/a.so /b.so");
        assert_eq!(joined("/a.so:/opt/libunderpass.so"), "/a.so:/opt/libunderpass.so");
    }

    #[test]
    fn a_path_that_the_loader_would_split_is_refused() {
        assert!(preload(Path::new("/my libs/libunderpass.so"), None).is_err());
        assert!(preload(Path::new("/a:b/libunderpass.so"), None).is_err());
    }

    #[test]
    fn the_long_help_explains_every_option() {
        let help = options_help();
        for option in OPTIONS {
            assert!(help.contains(option.name) && help.contains(option.text), "{}", option.name);
        }
    }
}
