//! IP: addresses, flows, paths, packets in and out.

pub mod flow;
pub mod input;
pub mod late;
pub mod output;
pub mod path;
pub mod template;
