//! What the library says: nothing, unless asked.

use std::fmt::Arguments;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use underpass_stack::config::LogLevel;

use crate::{fork, options, sys};

enum Target {
    Stderr,
    File(parking_lot::Mutex<std::fs::File>),
}

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> &'static Target {
    TARGET.get_or_init(|| {
        let Some(path) = &options::get().log_file else { return Target::Stderr };
        match std::fs::File::options().append(true).create(true).open(path) {
            Ok(file) => {
                let file: std::fs::File = sys::out_of_the_way(file.into()).into();
                crate::fd::set_own(file.as_raw_fd());
                Target::File(parking_lot::Mutex::new(file))
            }
            Err(error) => {
                complain(format_args!("underpass: UNDERPASS_LOG_FILE {}: {error}", path.display()));
                Target::Stderr
            }
        }
    })
}

/// After fork(2), in the child: another thread may have been writing. The file stays open, also where the library's other descriptors
/// are closed.
pub fn renew() -> Option<RawFd> {
    let Some(Target::File(file)) = TARGET.get() else { return None };
    fork::renew(file);
    Some(file.lock().as_raw_fd())
}

/// Says something on stderr whatever the log level: a wrong option.
pub fn complain(what: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn write(level: LogLevel, name: &str, what: Arguments<'_>) {
    if options::get().log < level {
        return;
    }
    let line = format!("underpass[{}]: {name}: {what}\n", sys::getpid());
    let _ = match target() {
        Target::Stderr => std::io::stderr().write_all(line.as_bytes()),
        Target::File(file) => file.lock().write_all(line.as_bytes()),
    };
}

/// A bug, or something lost.
pub fn error(what: Arguments<'_>) {
    write(LogLevel::Error, "error", what);
}

/// Something did not work and was gone around.
pub fn warn(what: Arguments<'_>) {
    write(LogLevel::Warn, "warn", what);
}

/// A tier change.
pub fn info(what: Arguments<'_>) {
    write(LogLevel::Info, "info", what);
}
