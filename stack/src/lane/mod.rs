//! What a lane is: a faster carrier for a socket's bytes, and why a socket is or is not on one.

pub mod reason;
pub mod shm;

pub use reason::Reason;

/// Where a socket's bytes travel now. Stored as a byte in the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tier {
    /// In the kernel's own TCP.
    Kernel = 0,
    /// In this process's stack, over AF_XDP.
    Xdp = 1,
    /// In shared memory with a process of this host.
    Shm = 2,
}

impl Tier {
    /// Decodes a board byte; anything unknown counts as `Kernel`.
    pub fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Xdp,
            2 => Self::Shm,
            _ => Self::Kernel,
        }
    }

    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Xdp => "xdp",
            Self::Shm => "shm",
        }
    }
}
