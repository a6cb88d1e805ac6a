//! A peer that stores anything anywhere in the shared pages: no call of ours panics, fails to return, copies past a ring or a
//! buffer, or stores where it has no business.

mod buffer;
mod input;
mod pages;
mod peer;
mod player;
mod watch;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use input::Random;
use pages::Pages;
use player::Player;
use proptest::prelude::*;

/// Longest input of a made-up run.
const LONGEST: usize = 2000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/channel")
}

/// How long the tests that run for a time do so: `UNDERPASS_SOAK_SECONDS`.
fn soak_time(default: Duration) -> Duration {
    let seconds = std::env::var("UNDERPASS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    seconds.map_or(default, Duration::from_secs)
}

proptest! {
    #[test]
    fn nothing_that_a_peer_stores_does_harm(input in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
        let (pages, peer) = Pages::create();
        Player::new(&pages, &peer).play(&input);
    }
}

#[test]
fn inputs_of_the_corpus_do_no_harm() {
    let mut count = 0;
    for entry in fs::read_dir(corpus()).expect("the corpus").flatten() {
        let (pages, peer) = Pages::create();
        let mut player = Player::new(&pages, &peer);
        player.play(&fs::read(entry.path()).expect("a readable input"));
        count += 1;
    }
    assert!(count > 0, "the corpus was not found");
}

/// The peer stores while our calls run: also between a check and the use of what was checked.
#[test]
fn a_peer_that_never_stops_storing_does_no_harm() {
    let (pages, peer) = Pages::create();
    let (stop, mut random) = (AtomicBool::new(false), Random(99));
    let played = std::thread::scope(|scope| {
        scope.spawn(|| peer::scribble(&peer, &stop));
        let mut player = Player::new(&pages, &peer).racing();
        let (end, mut played) = (Instant::now() + soak_time(Duration::from_secs(1)), 0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            while Instant::now() < end {
                played += player.play(&random.input(LONGEST));
            }
        }));
        stop.store(true, Relaxed);
        result.map(|()| played)
    });
    assert!(played.expect("no panic") > 1000);
    pages.check_guards();
}

/// Makes up inputs for `UNDERPASS_SOAK_SECONDS`, new ones and changed ones of the corpus; puts what fails into the corpus.
#[test]
#[ignore = "runs for as long as one likes"]
fn soak() {
    let seeds: Vec<_> =
        fs::read_dir(corpus()).unwrap().flatten().map(|entry| fs::read(entry.path()).unwrap()).collect();
    let (start, time) = (Instant::now(), soak_time(Duration::from_secs(60)));
    let mut random = Random(std::process::id().into());
    let (mut runs, mut steps) = (0u64, 0u64);
    while start.elapsed() < time {
        let input = if runs % 2 == 0 { random.input(LONGEST) } else { random.change(&seeds) };
        let (pages, peer) = Pages::create();
        match catch_unwind(AssertUnwindSafe(|| Player::new(&pages, &peer).play(&input))) {
            Ok(played) => steps += played,
            Err(panic) => {
                fs::write(corpus().join(format!("find-{runs}-{}", std::process::id())), &input).unwrap();
                std::panic::resume_unwind(panic);
            }
        }
        runs += 1;
    }
    println!("{runs} inputs, {steps} steps, no finding");
}
