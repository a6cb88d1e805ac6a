//! Two engines, a virtual clock and a bad link between them. Everything follows from a seed.
//!
//! Segments travel as whole frames, so that headers and checksums are part of every simulation.
#![deny(unsafe_code)]

pub mod bounds;
pub mod crowd;
pub mod host;
pub mod link;
pub mod pair;
pub mod random;
pub mod shared;
pub mod traffic;
pub mod wire;

pub use crowd::Crowd;
pub use host::{Host, Setup};
pub use link::{Link, LinkSpec};
pub use pair::{A, B, Pair};
pub use shared::{Flow, Shared, fairness};
pub use wire::Wire;
