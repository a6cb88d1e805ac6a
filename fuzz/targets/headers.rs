//! Any bytes as options and as frames: `stack/tests/tcp_hostile`, with inputs that libFuzzer makes up from what they reach.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../stack/tests/tcp_hostile/forge.rs"]
mod forge;
#[path = "../../stack/tests/tcp_hostile/headers.rs"]
mod headers;
#[path = "../../stack/tests/shm_hostile/input.rs"]
mod input;

fuzz_target!(|input: &[u8]| {
    headers::play(input);
});
