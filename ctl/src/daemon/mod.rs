//! The daemon: the privileged half of Underpass.
//!
//! One thread, one epoll loop ([`server`]). Clients open sessions ([`session`]); what they ask for has one file each: [`promote`],
//! [`demote`], [`attach`], [`inject`], [`adopt`]. [`reap`] gives back what a dead client leaves, `absent` keeps what is a living one's that
//! has hung up. The privileged deeds themselves are in
//! [`eligible`] (may this socket be promoted?), [`settle`] (has the kernel processed what it was given?), [`repair`] and
//! [`restore`].

mod absent;
mod address;
mod adopt;
mod attach;
mod changes;
mod claim;
pub mod demote;
pub mod eligible;
mod error;
mod foreign;
pub mod gap;
pub mod handover;
mod inject;
pub mod interface;
mod leftbehind;
mod listen;
mod namespace;
mod neighbours;
mod path;
mod poller;
mod promote;
mod reap;
pub mod repair;
mod reply;
mod requests;
mod rest;
pub mod restore;
mod round_trip;
pub mod server;
mod session;
mod settings;
pub mod settle;
mod shutdown;
pub mod sockopt;
mod state;
mod unheard;
mod wire;

#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod repair_tests;

use std::path::PathBuf;

pub use error::Error;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub socket: PathBuf,
    /// Settings file (TOML).
    pub config_file: Option<PathBuf>,
    /// Started by a person or a supervisor: log at level `info` unless `UNDERPASS_LOG` says otherwise.
    pub foreground: bool,
    /// End when the last client has gone.
    pub on_demand: bool,
}
