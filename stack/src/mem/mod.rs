//! Memory that several processes map: regions, plain records, byte rings.
//!
//! With `xsk`, the only place of this crate with `unsafe`.

pub mod buddy;
pub mod owned;
pub mod plain;
pub mod region;
pub mod ring;
pub mod shared;
pub(crate) mod sum;

pub use owned::{Apart, Owned};
pub use plain::Plain;
pub use region::{Access, Region};
pub use shared::{Bytes, Shared};
