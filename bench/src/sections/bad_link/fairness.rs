//! Fairness: a connection of the lane and one of the kernel, CUBIC both, share the link.

use super::link;
use crate::sections::Section;
use crate::stand::{BadLinks, Carriers, Conditions};
use crate::table::{About, Metric};
use crate::turns::Mode;

const METRICS: &[Metric] = &[
    Metric { name: "% of the lesser", digits: 0 },
    Metric { name: "first Mbit/s", digits: 1 },
    Metric { name: "second Mbit/s", digits: 1 },
];

/// Milliseconds of a round trip, and seconds of a run.
const PATHS: [(u64, f64); 2] = [(20, 15.0), (100, 30.0)];

/// The modes.
pub fn section(stand: &BadLinks) -> Section<'_> {
    let mut modes = Vec::new();
    for path in PATHS {
        for (name, first, second) in [
            ("kernel and kernel", Carriers::KERNEL, Carriers::KERNEL),
            ("underpass and kernel", Carriers::CLIENT.eagerly(), Carriers::KERNEL),
            ("kernel and underpass", Carriers::KERNEL, Carriers::CLIENT.eagerly()),
        ] {
            modes.push(mode(stand, name, [first, second], path));
        }
    }
    let about = About {
        name: "fairness",
        title: "two bulk connections with CUBIC over one link of 100 Mbit/s with a queue of a round trip, the second begins after a \
                fifth of the time: what the lesser got of a fair half in the time of both"
            .into(),
        metrics: METRICS,
        lower_is_better: false,
        references: &[],
    };
    Section { about, modes }
}

fn mode<'a>(stand: &'a BadLinks, name: &str, carriers: [Carriers; 2], path: (u64, f64)) -> Mode<'a> {
    let (rtt_ms, seconds) = path;
    let mut seed = 0;
    let run = move || {
        seed += 1;
        let link = link(rtt_ms, 0);
        let of = |carriers| Conditions { carriers, congestion: "cubic", link, seed, large_buffers: true };
        let seconds = if stand.quick() { seconds / 3.0 } else { seconds };
        let [first, second] = stand.share(carriers.map(of), seconds)?;
        let lesser = 200.0 * first.min(second) / (first + second);
        Ok(vec![Some(lesser), Some(first), Some(second)])
    };
    Mode::new(name, run).of_kind(format!("{rtt_ms} ms"))
}
