//! Images that contradict themselves: `stack/tests/tcp_hostile`, with inputs that libFuzzer makes up from what they reach.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../stack/tests/tcp_hostile/forge.rs"]
mod forge;
#[path = "../../stack/tests/tcp_hostile/images.rs"]
mod images;
#[path = "../../stack/tests/shm_hostile/input.rs"]
mod input;
#[path = "../../stack/tests/tcp_hostile/invariants.rs"]
mod invariants;
#[path = "../../stack/tests/tcp_hostile/peer.rs"]
mod peer;
#[path = "../../stack/tests/tcp_hostile/segments.rs"]
mod segments;

fuzz_target!(|input: &[u8]| {
    images::play(input);
});
