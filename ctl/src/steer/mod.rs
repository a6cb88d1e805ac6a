//! Steering: which flows leave the kernel's path, and how frames get back onto it.

pub mod counters;
pub mod inject;
pub mod program;

#[cfg(test)]
mod tests;

pub use inject::Injector;
pub use program::Steer;

/// The compiled `bpf/steer.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));
