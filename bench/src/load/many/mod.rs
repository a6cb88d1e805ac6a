//! Very many connections in one thread on each side, all of them in use, one after the other.

mod client;
mod descriptors;
mod epoll;
mod server;

pub use self::client::Run;
pub use self::server::Serve;

/// Bytes of a message.
const MESSAGE: usize = 64;
