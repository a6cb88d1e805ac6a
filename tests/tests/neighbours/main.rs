//! Well-known programs that talk to each other over the loopback interface of one host, both ends preloaded: their connections
//! are seen on the shm lane while they work, and what comes of it is what comes of it without the library.
//!
//! Everything runs in a namespace of its own, in which there is neither a daemon nor another interface. What the programs do
//! that has no program of its own is in `programs/`.

mod caches;
mod databases;
mod documents;
mod programs;
mod run;
mod runtimes;
mod streams;
mod watch;
mod web;

/// `UNDERPASS_PROMOTE`: a connection that has shown some traffic goes to the lane.
const AUTO: &str = "auto";
/// `UNDERPASS_PROMOTE`: it does so at the first data call.
const EAGER: &str = "eager";
/// Where everybody listens.
const HERE: &str = "127.0.0.1";
