//! What a segment costs in the engine, in instructions, compared with the committed figures in `data/engine_cost.txt`.
//!
//! `UNDERPASS_WRITE_ENGINE_COST=1 cargo test -p underpass-bench --test engine_cost` writes them anew. They are of one connection, counted by
//! valgrind's callgrind in the release build, and do not depend on what else the machine does: run after run they are the same. But they
//! are of one compiler, one libc (which copies data in its own way for each processor) and a processor with AVX2. For the first two there is
//! a margin; without AVX2 only those scenes are compared in which nothing is long enough for it.
#![cfg(target_arch = "x86_64")]

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use underpass_bench::engine::{Run, SCENES, Scene, Which, instructions};

/// Of the committed figure.
const MOST: f64 = 1.10;
/// With so many connections ...
const MANY: usize = 1_000;
/// ... of what it is with one. The table of flows is keyed at random, so that the count varies by a few instructions there.
const MOST_OF_MANY: f64 = 1.20;
/// The page rounds, and may be of another day than the file.
const PAGE: f64 = 0.02;
const ANEW: &str = "if that is as it should be, write it anew: UNDERPASS_WRITE_ENGINE_COST=1 cargo test -p underpass-bench --test \
                    engine_cost; and the figures in docs/engine-cost.md";

/// In bursts of so many a pass ...
const BURST: usize = 32;
/// ... of what smoltcp needs in such bursts.
const MOST_OF_SMOLTCP: f64 = 1.0 / 3.0;

const HEADING: &str = "# Instructions that the engine needs each time, with one connection, on a processor with AVX2: each alone in its pass, and in bursts.
# Written by engine_cost.rs, which says how. The tables in docs/engine-cost.md have the same figures.
";

/// What is counted, with its name in the file.
fn runs() -> impl Iterator<Item = (String, Run)> {
    let named = |burst: usize| {
        move |scene: Scene| {
            let name = if burst == 1 { scene.name().to_owned() } else { format!("{}, {burst} a pass", scene.name()) };
            (name, Run { scene, connections: 1, burst, verify: true })
        }
    };
    SCENES.into_iter().map(named(1)).chain(SCENES.into_iter().map(named(BURST)))
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/engine_cost.txt")
}

/// The figure of a run in `name: value` lines.
fn committed(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.split_once(": ").filter(|(known, _)| *known == name));
    let value = found.and_then(|(_, value)| value.parse().ok());
    value.unwrap_or_else(|| panic!("no figure of {name}: {ANEW}"))
}

/// The release build of `underpass-engine` as the sources are now; `make test` has just built it. The features are the workspace's, as there.
fn engine() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--workspace", "--locked", "--bin", "underpass-engine"]);
    command.arg("--message-format=json").current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "the release build fails");
    let text = String::from_utf8(output.stdout).expect("text");
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.find(|path| path.ends_with("underpass-engine")).expect("cargo says where the program is")
}

fn count(engine: &Path, which: Which, run: Run) -> f64 {
    instructions(engine, which, run).unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("valgrind is missing: apt-get install valgrind, or scripts/setup.sh"),
        _ => panic!("valgrind: {error}"),
    })
}

/// Is something in the scene long enough for AVX2 to make a difference?
fn is_long(scene: Scene) -> bool {
    matches!(scene, Scene::Receive | Scene::Send)
}

#[test]
fn no_segment_costs_more_than_it_did() {
    let engine = engine();
    let counted: Vec<_> = runs().map(|(name, run)| (name, run.scene, count(&engine, Which::Underpass, run))).collect();
    if std::env::var_os("UNDERPASS_WRITE_ENGINE_COST").is_some() {
        assert!(std::arch::is_x86_feature_detected!("avx2"), "the figures are of processors with AVX2");
        let mut text = HEADING.to_owned();
        counted.iter().for_each(|(name, _, count)| writeln!(text, "{name}: {count:.0}").expect("memory"));
        std::fs::write(file(), text).expect("the figures can be written");
    }
    let text = std::fs::read_to_string(file()).expect("the figures");
    let mut worse = Vec::new();
    for (name, scene, count) in counted {
        let before = committed(&text, &name);
        println!("{name}: {count:.0} instructions, committed {before:.0}");
        if is_long(scene) && !std::arch::is_x86_feature_detected!("avx2") {
            println!("{name}: not compared, this processor has no AVX2");
        } else if count > MOST * before {
            worse.push(format!("{name}: {count:.0} instructions instead of {before:.0}"));
        }
    }
    assert!(worse.is_empty(), "{worse:#?}\n{ANEW}");
}

#[test]
fn a_segment_costs_as_much_with_many_connections() {
    let engine = engine();
    for scene in SCENES {
        let [one, many] = [1, MANY]
            .map(|connections| count(&engine, Which::Underpass, Run { scene, connections, burst: 1, verify: true }));
        println!("{}: {one:.0} instructions with one connection, {many:.0} with {MANY}", scene.name());
        assert!(many <= MOST_OF_MANY * one, "{}: {many:.0} instructions with {MANY}, {one:.0} with one", scene.name());
    }
}

/// What comes with others in one pass costs no more than alone, also if it is of other connections.
#[test]
fn in_mixed_bursts_a_segment_costs_no_more_than_alone() {
    let engine = engine();
    for scene in [Scene::Receive, Scene::Ack] {
        let [alone, mixed] = [1, BURST]
            .map(|burst| count(&engine, Which::Underpass, Run { scene, connections: 10, burst, verify: true }));
        println!("{}, 10 connections: {alone:.0} instructions alone, {mixed:.0} in a pass with others", scene.name());
        assert!(mixed < 0.9 * alone, "{}: {mixed:.0} instructions instead of {alone:.0}", scene.name());
    }
}

#[test]
fn in_bursts_a_segment_costs_a_third_of_what_it_costs_smoltcp() {
    let engine = engine();
    for (name, run) in runs().filter(|(_, run)| run.burst == BURST) {
        let [ours, theirs] = [Which::Underpass, Which::Smoltcp].map(|which| count(&engine, which, run));
        println!("{name}: {ours:.0} instructions, smoltcp's {theirs:.0}");
        if is_long(run.scene) && !std::arch::is_x86_feature_detected!("avx2") {
            println!("{name}: not compared, this processor has no AVX2");
            continue;
        }
        assert!(ours <= MOST_OF_SMOLTCP * theirs, "{name}: {ours:.0} instructions, smoltcp's {theirs:.0}");
    }
}

/// Ours with one connection is the first number of a row in both tables.
#[test]
fn the_page_has_the_same_figures() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/engine-cost.md");
    let (page, text) = (std::fs::read_to_string(page).expect("the page"), std::fs::read_to_string(file()).unwrap());
    let rows =
        ["| receive 1,460 B and read them |", "| pure ACK |", "| send 1,460 B |", "| 64 B request and response |"];
    for heading in ["| instructions |", "| instructions in bursts |"] {
        let table = page.split_once(heading).unwrap_or_else(|| panic!("no table {heading}")).1;
        let burst = if heading.contains("bursts") { BURST } else { 1 };
        for ((name, _), row) in runs().filter(|(_, run)| run.burst == burst).zip(rows) {
            let (_, rest) = table.split_once(row).unwrap_or_else(|| panic!("no row {row}"));
            let digits = rest.split(" / ").next().unwrap_or_default().chars().filter(char::is_ascii_digit);
            let (told, before) =
                (digits.collect::<String>().parse::<f64>().expect("a number"), committed(&text, &name));
            assert!((told - before).abs() <= PAGE * before, "{row} {told}, but {before} in {}", file().display());
        }
    }
}
