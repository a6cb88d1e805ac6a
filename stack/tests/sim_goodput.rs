//! Goodput by loss, round-trip time and congestion control, compared with the committed table `data/goodput.txt`.
//!
//! The simulation is exact, but any change of the engine changes which frames are lost, so a cell may move a little without anything being
//! worse. `UNDERPASS_WRITE_GOODPUT=1 cargo test -p underpass-stack --test sim_goodput` writes the table anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use underpass_stack::stats::Counter;
use underpass_stack::tcp::Algorithm;
use underpass_stack::tcp::image::flag;
use underpass_stack::testkit::{A, LinkSpec, Pair, Setup};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Bits a second of the link.
const RATE: u64 = 40_000_000;
/// A queue has room for a round trip, at least for so many bytes.
const QUEUE_MIN: u64 = 32 << 10;
/// Milliseconds of a round trip, and seconds of a run.
const PATHS: [(u64, u64); 3] = [(1, 4), (20, 8), (100, 25)];
/// Frames lost in either direction, per mille.
const LOSSES: [u64; 6] = [0, 1, 10, 30, 100, 300];
const ALGORITHMS: [Algorithm; 4] = [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr, Algorithm::Dctcp];
/// Where DCTCP's link marks: so much of its queue. The others' links do not.
const MARK_PART: u64 = 4;
const SEEDS: u64 = 6;
/// What a cell may lose by chance, and what all together may.
const CELL: f64 = 0.80;
const ALL: f64 = 0.96;
/// Cells with fewer Mbit/s than this depend on single frames.
const TOO_SMALL: f64 = 0.2;

const HEADING: &str =
    "# Megabits of payload a second over a link of 40 Mbit/s, by congestion control, round-trip time and loss in either
# direction; DCTCP's link marks. Written by sim_goodput.rs, which says how.
";

/// Megabits a second that arrive in `seconds` of a bulk transfer.
fn goodput(congestion: Algorithm, rtt_ms: u64, loss: u64, seconds: u64, seed: u64) -> f64 {
    let queue = (RATE / 8 * rtt_ms / 1000).max(QUEUE_MIN);
    let (ecn, mark) = if congestion == Algorithm::Dctcp { (flag::ECN, queue / MARK_PART) } else { (0, 0) };
    let plain = Setup { ring: 1 << 20, wscale: 8, congestion, ..Setup::default() };
    let setup = Setup { flags: plain.flags | ecn, ..plain };
    let link = LinkSpec { delay: rtt_ms * MS / 2, loss, rate: RATE, queue, mark, ..LinkSpec::CLEAN };
    let mut pair = Pair::new(&setup, link, seed);
    let (data, mut received) = (vec![7; 1 << 16], 0);
    pair.run(seconds * SECOND, |pair| {
        let now = pair.now;
        while pair.hosts[A].connection().send(now, &data, false) == data.len() {}
        received += pair.hosts[1].connection().discard(usize::MAX) as u64;
        pair.flush();
        false
    });
    println!(
        "{congestion:?} {rtt_ms} ms {loss} seed {seed}: timeouts {} fast {} again {} marked {}",
        pair.hosts[A].count(Counter::Timeouts),
        pair.hosts[A].count(Counter::FastRetransmits),
        pair.hosts[A].count(Counter::Retransmits),
        pair.links[A].marked(),
    );
    // With losses, there may be no queue.
    assert!(mark == 0 || loss != 0 || pair.links[A].marked() > 0, "nothing was marked");
    received as f64 * 8.0 / seconds as f64 / 1e6
}

/// The cells of one congestion control, by name.
fn measure(congestion: Algorithm) -> Vec<(String, f64)> {
    let cell = |(rtt_ms, seconds): (u64, u64), loss: u64| {
        let sum: f64 = (0..SEEDS).map(|seed| goodput(congestion, rtt_ms, loss, seconds, seed)).sum();
        let name = format!("{congestion:?} {rtt_ms} ms {}.{} %", loss / 10, loss % 10).to_lowercase();
        (name, sum / SEEDS as f64)
    };
    PATHS.into_iter().flat_map(|path| LOSSES.map(|loss| cell(path, loss))).collect()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/goodput.txt")
}

/// `name: value` lines.
fn read(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cell =
        |line: &str| line.split_once(": ").and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    lines.map(|line| cell(line).unwrap_or_else(|| panic!("no cell: {line}"))).collect()
}

#[test]
fn is_not_worse_than_committed() {
    let measured: Vec<(String, f64)> = std::thread::scope(|scope| {
        let threads = ALGORITHMS.map(|algorithm| scope.spawn(move || measure(algorithm)));
        threads.into_iter().flat_map(|thread| thread.join().expect("measured")).collect()
    });
    if std::env::var_os("UNDERPASS_WRITE_GOODPUT").is_some() {
        let mut text = HEADING.to_owned();
        measured.iter().for_each(|(name, value)| writeln!(text, "{name}: {value:.3}").expect("memory"));
        std::fs::write(file(), text).expect("the table can be written");
    }
    let committed = read(&std::fs::read_to_string(file()).expect("the table"));
    assert_eq!(committed.len(), measured.len(), "the table is of other cells: write it anew");
    let (mut worse, mut logs) = (Vec::new(), Vec::new());
    for (name, value) in &measured {
        let before = *committed.get(name).unwrap_or_else(|| panic!("no cell {name}: write the table anew"));
        println!("{name}: {value:.3}, committed {before:.3}");
        if before >= TOO_SMALL {
            logs.push((value / before).ln());
            if *value < before * CELL {
                worse.push(format!("{name}: {value:.3} instead of {before:.3}"));
            }
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
    let all = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    println!("all: {all:.3}");
    assert!(all >= ALL, "all cells together are at {all:.3} of what they were");
}
