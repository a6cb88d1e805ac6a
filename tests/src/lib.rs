//! The lab: two hosts in network namespaces, joined by a veth pair, for tests and benchmarks. A [`Neighbourhood`] is one host
//! by itself, for what goes on over its loopback interface.
//!
//! ```no_run
//! use underpass_lab::{Lab, Side};
//! let lab = Lab::new()?;
//! let mut command = lab.command(Side::Server, "redis-server")?;
//! command.args(["--bind", &lab.host(Side::Server).v4.to_string()]);
//! let server = lab.spawn("redis", &mut command)?; // stopped when dropped
//! # Ok::<(), underpass_lab::LabError>(())
//! ```
//!
//! Needs root and ip(8); says so where they are missing. Everything that a lab makes is removed when it is dropped, and
//! what a killed run has left is removed by the next one.

mod artifact;
pub mod badlink;
mod child;
mod daemon;
mod error;
mod failure;
mod ground;
mod lab;
mod namespace;
mod neighbourhood;
mod priority;
mod process;
mod router;
mod standstill;
mod talk;
mod tally;
mod turn;
mod view;
mod wait;

pub use artifact::{Artifacts, Profile};
pub use badlink::{BadLink, Lateness, LinkReport};
pub use child::{CommandExt, is_root, reset_signals};
pub use daemon::Daemon;
pub use error::LabError;
pub use lab::{Host, Lab, LabOptions, Over, Side};
pub use namespace::Namespace;
pub use neighbourhood::Neighbourhood;
pub use priority::run_idle;
pub use process::Process;
pub use router::Router;
pub use standstill::Standstills;
pub use talk::{Kind, Preload, Talk};
pub use tally::Tally;
pub use view::{Connection, Counters, SocketView};
pub use wait::wait_for;
