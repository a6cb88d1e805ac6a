//! Looks into preloaded processes from outside, without their cooperation: works on a hung, stopped or hostile one.
//!
//! A process is found by the name of its arena under `/proc/PID/fd`. What the arena says is a claim: it is bounds-checked,
//! shown, and never trusted. The arena is read with pread(2) rather than mapped: a file that shrinks under us ends in a
//! short read instead of SIGBUS, and looking at untouched pages does not make the process pay for them.

pub mod arena_file;
mod channel;
pub mod kernel_tcp;
pub mod lane;
pub mod process;
pub mod procfs;
pub mod sockets;

#[cfg(test)]
mod tests;

pub use process::{Found, Process, find};
