//! Headers as typed views, and their checksums. A view judges nothing: what is acceptable is decided in `ip` and `tcp`.
#![deny(unsafe_code)]

pub mod checksum;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
