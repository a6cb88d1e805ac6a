//! The process's side of the `shm` lane: connections to programs of this host, through memory that both have mapped.
//!
//! `meet` finds the process at the other end, `trunk` is what we share with it, `places` is where our threads hear from others,
//! `channel` holds one connection with its two directions `tx` and `rx`, `leave` gives one back to the kernel.

mod address;
mod bells;
mod channel;
mod diag;
pub mod exit;
pub mod history;
pub mod inherited;
pub mod leave;
pub mod meet;
pub mod places;
mod rx;
mod trunk;
mod tx;
mod view;

pub use address::{Locality, from_sockaddr};
pub use channel::{Channel, channel, channels, leave_all_to_parent, live};
pub use rx::Rx;
pub use trunk::forget_trunks;
pub use tx::{Tx, Way};

/// What the sockets of the meeting, the trunks and the general bell have to say; for the helper's sleep. -1: nothing yet.
pub fn news_fd() -> std::os::fd::RawFd {
    meet::news_fd()
}
