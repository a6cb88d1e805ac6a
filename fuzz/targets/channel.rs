//! The steps of `stack/tests/shm_hostile`, with inputs that libFuzzer makes up from what they reach.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../stack/tests/shm_hostile/buffer.rs"]
mod buffer;
#[path = "../../stack/tests/shm_hostile/input.rs"]
mod input;
#[path = "../../stack/tests/shm_hostile/pages.rs"]
mod pages;
#[path = "../../stack/tests/shm_hostile/peer.rs"]
mod peer;
#[path = "../../stack/tests/shm_hostile/player.rs"]
mod player;
#[path = "../../stack/tests/shm_hostile/watch.rs"]
mod watch;

fuzz_target!(|input: &[u8]| {
    let (pages, peer) = pages::Pages::create();
    player::Player::new(&pages, &peer).play(input);
});
