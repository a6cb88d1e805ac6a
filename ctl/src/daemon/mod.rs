//! The daemon: the privileged half of Underpass.

pub mod repair;
pub mod restore;
pub mod sockopt;

#[cfg(test)]
mod repair_tests;
