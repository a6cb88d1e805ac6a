//! IP: addresses, flows, paths, packets in and out.

pub mod flow;
pub mod path;
