//! Recovery of a tail loss: how long a request takes whose last segment is lost.

use underpass_bench::PingPong;

use super::link;
use crate::sections::Section;
use crate::stand::{BadLinks, Carriers, Conditions};
use crate::table::{About, Metric};
use crate::turns::Mode;

const METRICS: &[Metric] = &[
    Metric { name: "median ms", digits: 2 },
    Metric { name: "min ms", digits: 2 },
    Metric { name: "max ms", digits: 2 },
];

/// Milliseconds of a round trip, and requests of a run.
const PATHS: [(u64, u64); 3] = [(1, 40), (20, 20), (100, 8)];
/// Bytes of a request: one segment, two, and the initial window.
const SIZES: [usize; 3] = [1000, 2500, 14_000];

/// The modes.
pub fn section(stand: &BadLinks) -> Section<'_> {
    let mut modes = Vec::new();
    for (rtt_ms, count) in PATHS {
        for size in SIZES {
            for (name, carriers) in [("kernel", Carriers::KERNEL), ("underpass sends", Carriers::CLIENT.eagerly())] {
                modes.push(mode(stand, name, carriers, (rtt_ms, count), size));
            }
        }
    }
    let about = About {
        name: "tail-loss",
        title: "a request of so many bytes whose last segment is lost once, until the byte that answers it has come"
            .into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x kernel", "kernel")],
    };
    Section { about, modes }
}

fn mode<'a>(stand: &'a BadLinks, name: &str, carriers: Carriers, path: (u64, u64), size: usize) -> Mode<'a> {
    let (rtt_ms, count) = path;
    let mut seed = 0;
    let run = move || {
        seed += 1;
        let link = link(rtt_ms, 0);
        let conditions = Conditions { carriers, congestion: "cubic", link, seed, large_buffers: true };
        // Marks are known for as long as the labs live.
        let first = (seed << 32) | (rtt_ms << 24) | ((size as u64) << 8);
        let args = ["--first", &first.to_string()];
        let figures: PingPong = stand.requests(&conditions, (size, count), &args)?;
        let ms = |ns: u64| Some(ns as f64 / 1e6);
        Ok(vec![ms(figures.median_ns), ms(figures.min_ns), ms(figures.max_ns)])
    };
    Mode::new(name, run).of_kind(format!("{rtt_ms} ms {size} bytes"))
}
