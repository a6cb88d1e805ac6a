//! The stack of Underpass: everything between a socket call and an AF_XDP ring, without any of both.
//!
//! The rooms, in the order in which data flows: `mem` (shared memory), `wire` (headers), `ip`, `tcp`, `xsk` (AF_XDP
//! rings), `lane` (what carries a socket), `arena` (where everything lies), `control` (messages to the daemon).

pub mod arena;
pub mod config;
pub mod control;
pub mod ip;
pub mod lane;
pub mod mem;
pub mod stack;
pub mod stats;
pub mod tcp;
pub mod testkit;
pub mod wire;
pub mod xsk;
