//! What is wrong with a variable.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::options::{OPTIONS, OptionSpec};

/// Variables of the surrounding tools that share the prefix and mean nothing to the library.
const TOOL_VARIABLES: &[&str] = &["UNDERPASS_TARGET_DIR"];

/// Those of `names` that look like options and are none.
pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<Problem> {
    names
        .filter(|name| name.as_bytes().starts_with(b"UNDERPASS_"))
        .filter(|name| OPTIONS.iter().all(|o| name != o.name) && TOOL_VARIABLES.iter().all(|t| name != t))
        .map(|name| Problem::Unknown { nearest: nearest(&name), name })
        .collect()
}

/// What is wrong with a variable.
#[derive(Clone, Debug)]
pub enum Problem {
    /// A value that the option does not take; the default is used.
    Value {
        /// The option.
        option: &'static OptionSpec,
        /// The variable that held the value: the option's name or its alias.
        given: &'static str,
        /// The value.
        value: OsString,
    },
    /// No such option; it is ignored.
    Unknown {
        /// The variable's name.
        name: OsString,
        /// An option of nearly the same name.
        nearest: Option<&'static str>,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { option, given, value } => write!(
                f,
                "{given}={value:?} is not valid: accepted are {}; using the default ({})",
                option.accepts,
                option.shown_default()
            ),
            Self::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "{} is not an option and is ignored; did you mean {nearest}?", name.to_string_lossy())
            }
            Self::Unknown { name, nearest: None } => {
                write!(f, "{} is not an option and is ignored; see underpass run --help", name.to_string_lossy())
            }
        }
    }
}

/// The option whose name is at most three edits away.
fn nearest(name: &OsStr) -> Option<&'static str> {
    let best = OPTIONS.iter().map(|o| (edits(name.as_bytes(), o.name.as_bytes()), o.name)).min()?;
    (best.0 <= 3).then_some(best.1)
}

/// Levenshtein distance, one row at a time; names longer than any option are simply far away.
fn edits(a: &[u8], b: &[u8]) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
