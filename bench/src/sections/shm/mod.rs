//! Programs of one host that talk over loopback, with and without the `shm` lane.

pub mod busy;
pub mod connect;
pub mod iperf;
pub mod many;
pub mod pingpong;
pub mod redis;

use crate::stand::Carriers;

/// What most sections compare.
const CARRIED: [(&str, Carriers); 2] = [("kernel", Carriers::KERNEL), ("underpass both", Carriers::BOTH)];
/// The column of ratios.
const TO_KERNEL: &[(&str, &str)] = &[("x kernel", "kernel")];
