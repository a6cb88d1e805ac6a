//! The benchmark: kernel, underpass and the raw floor, in turns.

fn main() {}
