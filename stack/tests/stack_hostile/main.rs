//! Whatever arrives, in whatever order, in bursts and while connections change hands: a whole stack delivers both streams of each connection,
//! loses no frame and uses none twice. The inputs under `corpus` are replayed here; `fuzz` has libFuzzer look for more.

mod arrivals;
mod checks;
mod departures;
mod ends;
#[path = "../tcp_hostile/forge.rs"]
mod forge;
mod hands;
#[path = "../shm_hostile/input.rs"]
mod input;
mod kernel;
mod player;
mod program;
mod queues;
mod setup;
mod stream;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use input::Random;

/// Longest input of a made-up run, and how many of them.
const LONGEST: usize = 1500;
const RUNS: usize = 1500;

/// What [`player::Player::reached`] can say.
const PLACES: [&str; 17] = [
    "a burst of one flow",
    "a burst of several flows",
    "a receive ring that grew",
    "a send ring that grew",
    "rings that grew with data out of order",
    "frames held for a frozen connection",
    "frames that came early",
    "frames for the kernel",
    "damaged frames",
    "a segment sent again",
    "no frame to send in",
    "no frame to receive into",
    "a connection that changed hands",
    "an orphan that was buried",
    "packet too big, believed",
    "a kernel that lies",
    "a flow that was steered elsewhere",
];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/stack")
}

fn inputs() -> Vec<Vec<u8>> {
    let entries = fs::read_dir(corpus()).expect("the corpus").flatten();
    entries.map(|entry| fs::read(entry.path()).expect("a readable input")).collect()
}

#[test]
fn made_up_inputs_do_no_harm() {
    let mut random = Random(0x5eed);
    for run in 0..RUNS {
        let input = random.input(LONGEST);
        if catch_unwind(|| player::play(&input)).is_err() {
            panic!("input {run}");
        }
    }
}

/// The corpus still leads to what its inputs were made for.
#[test]
fn inputs_of_the_corpus_do_no_harm_and_reach_every_place() {
    let mut missing: BTreeSet<&str> = PLACES.into_iter().collect();
    for input in inputs() {
        let mut player = player::Player::new(&input);
        player.run();
        player.reached().iter().for_each(|place| {
            missing.remove(place);
        });
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Makes up inputs for `UNDERPASS_SOAK_SECONDS`, new ones and changed ones of the corpus; puts what fails into the corpus.
#[test]
#[ignore = "runs for as long as one likes"]
fn soak() {
    let seconds = std::env::var("UNDERPASS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let (time, start) = (Duration::from_secs(seconds.unwrap_or(60)), Instant::now());
    let (seeds, mut random) = (inputs(), Random(std::process::id().into()));
    let (mut runs, mut steps) = (0u64, 0u64);
    while start.elapsed() < time {
        let input = if runs % 2 == 0 { random.input(LONGEST) } else { random.change(&seeds) };
        match catch_unwind(AssertUnwindSafe(|| player::play(&input))) {
            Ok(played) => steps += played,
            Err(panic) => {
                let find = format!("find-{runs}-{}", std::process::id());
                fs::write(corpus().join(find), &input).expect("the find is kept");
                std::panic::resume_unwind(panic);
            }
        }
        runs += 1;
    }
    println!("stack: {runs} inputs, {steps} steps, no finding");
}
