//! What the daemon's BPF programs have in common: how they fail; and what those do that do not steer.

pub mod algorithm;
mod btf;
mod instructions;
pub mod scoreboard;
mod sys;

pub use algorithm::Algorithm;
pub use scoreboard::Scoreboard;

/// What the kernel refused, and why.
#[derive(Debug)]
pub struct Error {
    /// What was tried.
    pub what: &'static str,
    /// The library's or the kernel's words.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// An error of `what`.
    pub fn of<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { what, source: source.into() }
    }

    /// The system call's number for it, if it was one that failed.
    fn errno(&self) -> Option<i32> {
        self.source.downcast_ref::<std::io::Error>()?.raw_os_error()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Some of the library's errors repeat their cause, some do not.
        let mut text = format!("{}: {}", self.what, self.source);
        let mut cause = self.source.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.ends_with(&words) {
                text = format!("{text}: {words}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl std::error::Error for Error {}
