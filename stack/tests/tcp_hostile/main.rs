//! Whatever a peer sends and whatever an image says: no panic, no endless loop, and what must hold of a connection holds.
//!
//! Three targets, each played from bytes: `segments` against a live engine, `headers` against the parsers, `images` against the import. The
//! inputs under `corpus` are replayed here; `fuzz` has libFuzzer look for more.

mod forge;
mod headers;
mod images;
#[path = "../shm_hostile/input.rs"]
mod input;
mod invariants;
mod peer;
mod segments;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use input::{Input, Random};
use proptest::prelude::*;

/// Longest input of a made-up run.
const LONGEST: usize = 2000;

/// What plays an input; it returns the number of steps.
type Target = (&'static str, fn(&[u8]) -> u64);

const TARGETS: [Target; 3] = [("segments", segments), ("headers", headers::play), ("images", images::play)];

/// What [`segments::Player::reached`] can say.
const MODES: [&str; 13] = [
    "cubic",
    "reno",
    "dctcp",
    "bbr",
    "IPv6",
    "marked packets",
    "echoed marks",
    "packet too big, believed",
    "packet too big, not believed",
    "a receive ring that grew",
    "a send ring that grew",
    "as many records as there may be",
    "as many pieces out of order as there may be",
];

fn segments(input: &[u8]) -> u64 {
    let mut input = Input(input);
    segments::Player::new(&mut input).play(input)
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

fn inputs(name: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(corpus(name)).expect("the corpus").flatten();
    entries.map(|entry| fs::read(entry.path()).expect("a readable input")).collect()
}

proptest! {
    #[test]
    fn no_segments_do_harm(input in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
        segments(&input);
    }

    #[test]
    fn no_headers_do_harm(input in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
        headers::play(&input);
    }

    #[test]
    fn no_images_do_harm(input in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
        images::play(&input);
    }
}

#[test]
fn inputs_of_the_corpora_do_no_harm() {
    for (name, play) in TARGETS {
        let inputs = inputs(name);
        let steps: u64 = inputs.iter().map(|input| play(input)).sum();
        assert!(steps > 0, "the corpus {name} was not found");
    }
}

/// The corpus of `segments` still leads to what its inputs were made for.
#[test]
fn the_corpus_reaches_every_mode() {
    let mut missing: BTreeSet<&str> = MODES.into_iter().collect();
    for input in inputs("segments") {
        let mut input = Input(&input);
        let mut player = segments::Player::new(&mut input);
        player.play(input);
        player.reached().iter().for_each(|mode| {
            missing.remove(mode);
        });
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Makes up inputs for `UNDERPASS_SOAK_SECONDS` a target, new ones and changed ones of the corpus; puts what fails into the corpus.
#[test]
#[ignore = "runs for as long as one likes"]
fn soak() {
    let seconds = std::env::var("UNDERPASS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(60));
    for (name, play) in TARGETS {
        let (seeds, start) = (inputs(name), Instant::now());
        let mut random = Random(std::process::id().into());
        let (mut runs, mut steps) = (0u64, 0u64);
        while start.elapsed() < time {
            let input = if runs % 2 == 0 { random.input(LONGEST) } else { random.change(&seeds) };
            match catch_unwind(AssertUnwindSafe(|| play(&input))) {
                Ok(played) => steps += played,
                Err(panic) => {
                    let find = format!("find-{runs}-{}", std::process::id());
                    fs::write(corpus(name).join(find), &input).expect("the find is kept");
                    std::panic::resume_unwind(panic);
                }
            }
            runs += 1;
        }
        println!("{name}: {runs} inputs, {steps} steps, no finding");
    }
}
