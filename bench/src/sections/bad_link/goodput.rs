//! Goodput: loss by round-trip time by congestion control.

use std::ffi::OsString;

use underpass_lab::LabError;
use underpass_stack::config::Config;

use super::link;
use crate::sections::Section;
use crate::stand::{BadLinks, Carriers, Conditions};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[
    Metric { name: "Mbit/s", digits: 1 },
    Metric { name: "resent", digits: 0 },
    Metric { name: "timeouts", digits: 0 },
    Metric { name: "overflows", digits: 0 },
    Metric { name: "lane %", digits: 1 },
    Metric { name: "link's error us", digits: 0 },
];

/// Milliseconds of a round trip, and seconds of a run: many round trips, and with loss many losses.
const PATHS: [(u64, f64); 3] = [(1, 2.0), (20, 3.0), (100, 6.0)];
/// Frames lost of a thousand.
const LOSSES: [u64; 4] = [0, 1, 10, 30];

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    congestion: &'static str,
    rtt_ms: u64,
    loss: u64,
    seconds: f64,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        ["cubic", "bbr"].into_iter().flat_map(|congestion| {
            PATHS.into_iter().flat_map(move |(rtt_ms, seconds)| {
                LOSSES.into_iter().map(move |loss| Self { congestion, rtt_ms, loss, seconds })
            })
        })
    }

    /// What the table calls it.
    fn name(self) -> String {
        format!("{} {} ms {:.1} %", self.congestion, self.rtt_ms, self.loss as f64 / 10.0)
    }
}

/// The modes.
pub fn section(stand: &BadLinks) -> Section<'_> {
    let mut modes = Vec::new();
    for cell in Cell::all() {
        let (kernel_can, we_can) = (stand.kernel_has(cell.congestion), lane_has(cell.congestion));
        if kernel_can {
            modes.push(mode(stand, "kernel", cell, Carriers::KERNEL, true));
        }
        if we_can {
            modes.push(mode(stand, "underpass sends", cell, Carriers::CLIENT.eagerly(), true));
        }
        if kernel_can {
            modes.push(mode(stand, "underpass receives", cell, Carriers::SERVER.eagerly(), true));
        }
        if we_can && cell.rtt_ms == 100 && cell.loss == 0 {
            modes.push(mode(stand, "underpass sends, default buffers", cell, Carriers::CLIENT.eagerly(), false));
        }
    }
    let about = About {
        name: "bad-link",
        title: "goodput of bulk TCP data to a receiver that compares every byte, over a link of 100 Mbit/s with a queue of a round \
                trip (at least 64 KiB) that loses so many frames either way; link's error: how late frames left it, 99 %"
            .into(),
        metrics: METRICS,
        lower_is_better: false,
        references: &[("x kernel", "kernel")],
    };
    Section { about, modes }
}

/// Does this build's lane have the congestion control?
fn lane_has(congestion: &str) -> bool {
    let (_, problems) = Config::from_vars(|name| (name == "UNDERPASS_CC").then(|| OsString::from(congestion)));
    problems.is_empty()
}

fn mode<'a>(stand: &'a BadLinks, name: &str, cell: Cell, carriers: Carriers, large_buffers: bool) -> Mode<'a> {
    let mut seed = 0;
    let run = move || {
        // Rivals of one round have the same link.
        seed += 1;
        let link = link(cell.rtt_ms, cell.loss);
        let conditions = Conditions { carriers, congestion: cell.congestion, link, seed, large_buffers };
        measure(stand, &conditions, if stand.quick() { cell.seconds / 2.0 } else { cell.seconds })
    };
    Mode::new(name, run).of_kind(cell.name())
}

fn measure(stand: &BadLinks, conditions: &Conditions, seconds: f64) -> Result<Sample, LabError> {
    let seen = stand.goodput(conditions, seconds)?;
    if seen.link.dropped != 0 {
        return Err(LabError::new(format!("the link's emulator was too slow for {} frames", seen.link.dropped)));
    }
    let late = seen.link.lateness.quantile(0.99).as_secs_f64() * 1e6;
    let overflows = seen.link.overflowed.iter().sum::<u64>();
    let count = |number: u64| Some(number as f64);
    Ok(vec![Some(seen.mbit_per_s), count(seen.resent), count(seen.timeouts), count(overflows), seen.lane, Some(late)])
}
