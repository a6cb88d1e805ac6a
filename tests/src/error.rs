//! What can go wrong in a lab, in words: a lab failure is read by people.

use std::fmt;

/// What failed and why.
#[derive(Debug)]
pub struct LabError(String);

impl LabError {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LabError {}

/// Adds to a foreign error what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, LabError>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, LabError> {
        self.map_err(|error| LabError(format!("{what}: {error}")))
    }
}
