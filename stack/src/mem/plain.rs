//! The marker for what may lie in memory that several processes map.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Fixed layout, no pointers, no padding, every bit pattern valid.
///
/// What another process wrote is only a claim: any value of a `Plain` type may turn up, and it is
/// checked where it is used.
pub trait Plain: FromBytes + IntoBytes + KnownLayout + Immutable + Copy + 'static {}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Copy + 'static> Plain for T {}
