//! How much may be in flight? One file an algorithm.

pub(crate) mod newreno;
