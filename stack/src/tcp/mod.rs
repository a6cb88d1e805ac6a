//! The TCP engine, sans-IO: time is an argument, packets come in and go out as values.

pub mod image;
pub mod tcb;
