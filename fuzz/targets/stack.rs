//! A whole stack and all that can happen to it: `stack/tests/stack_hostile`, with inputs that libFuzzer makes up from what they reach.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../stack/tests/stack_hostile/arrivals.rs"]
mod arrivals;
#[path = "../../stack/tests/stack_hostile/checks.rs"]
mod checks;
#[path = "../../stack/tests/stack_hostile/departures.rs"]
mod departures;
#[path = "../../stack/tests/stack_hostile/ends.rs"]
mod ends;
#[path = "../../stack/tests/tcp_hostile/forge.rs"]
mod forge;
#[path = "../../stack/tests/stack_hostile/hands.rs"]
mod hands;
#[path = "../../stack/tests/shm_hostile/input.rs"]
mod input;
#[path = "../../stack/tests/stack_hostile/kernel.rs"]
mod kernel;
#[path = "../../stack/tests/stack_hostile/player.rs"]
mod player;
#[path = "../../stack/tests/stack_hostile/program.rs"]
mod program;
#[path = "../../stack/tests/stack_hostile/queues.rs"]
mod queues;
#[path = "../../stack/tests/stack_hostile/setup.rs"]
mod setup;
#[path = "../../stack/tests/stack_hostile/stream.rs"]
mod stream;

fuzz_target!(|input: &[u8]| {
    player::play(input);
});
