//! The `shm` lane: what two processes of one host share when bytes of their TCP connection travel through memory.
//!
//! A *channel* carries one connection: a ring for each direction ([`ring`]), and for each direction the statement of its sender
//! whether its bytes are in the ring or in the kernel ([`turn`], [`copies`]). A *trunk* joins two processes that have channels: the places
//! where one tells the other that something has come ([`notice`]). [`layout`] says where everything lies, [`meeting`] how the two
//! find each other.
//!
//! Every word of these pages is a claim of a process that is not trusted. Each side believes its own copies of what it has
//! stored, and checks what the other says before it is used.

pub mod copies;
pub mod layout;
pub mod meeting;
pub mod notice;
pub mod ring;
pub mod turn;
mod word;

pub use copies::{Copies, Overtake};
pub use ring::{Receiver, Sender};
pub use turn::{Inbound, Outbound, Turn};
pub use word::{Word, full_fence};

/// The other side has stored what cannot be: its connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;
