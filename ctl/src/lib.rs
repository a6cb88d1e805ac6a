//! The privileged half of Underpass: the daemon and what it needs of XDP and netlink.

pub mod bpf;
pub mod daemon;
pub mod net;
pub mod steer;
