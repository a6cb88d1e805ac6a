//! Memory that several processes map: regions, plain records, byte rings.
//!
//! With `xsk`, the only place of this crate with `unsafe`.

pub mod buddy;
pub mod plain;
pub mod region;
pub mod ring;
pub mod shared;
pub(crate) mod sum;

pub use plain::Plain;
pub use region::{Access, Apart, Region};
pub use shared::{Bytes, Shared};
