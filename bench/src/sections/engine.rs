//! The TCP engine alone, beside smoltcp's: what a segment costs, in time and in instructions.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use underpass_bench::engine::{Run, SCENES, Scene, Which, instructions};
use underpass_lab::LabError;

use super::Section;
use crate::stand::Programs;
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] =
    &[Metric { name: "ns", digits: 0 }, Metric { name: "instructions", digits: 0 }, Metric { name: "sent", digits: 2 }];

/// Connections of each run. smoltcp looks at every socket for every packet, so it is spared the last ones.
const CONNECTIONS: [usize; 5] = [1, 10, 100, 1_000, 100_000];
const SMOLTCP_MAX: usize = 1_000;
/// Groups of 64 times that are timed: with many sockets fewer, for smoltcp's sake.
const GROUPS: usize = 400;
const GROUPS_MANY: usize = 20;

/// Times in one pass, as busy traffic comes: what a kick of the TX ring sends at most in copy mode.
const BURST: usize = 32;

/// The modes.
pub fn section(programs: &Programs) -> Section<'_> {
    let alone = SCENES
        .into_iter()
        .flat_map(|scene| CONNECTIONS.map(|connections| Run { scene, connections, burst: 1, verify: true }));
    // Only what arrives is verified or not.
    let unverified = CONNECTIONS.map(|connections| Run { scene: Scene::Receive, connections, burst: 1, verify: false });
    let burst = |scene, connections| Run { scene, connections, burst: BURST, verify: true };
    // Several connections in turns have no trains.
    let bursts =
        SCENES.map(|scene| burst(scene, 1)).into_iter().chain([burst(Scene::Receive, 10), burst(Scene::Ack, 10)]);
    let modes = alone.chain(unverified).chain(bursts).flat_map(|run| {
        let able =
            Which::ALL.into_iter().filter(move |which| *which == Which::Underpass || run.connections <= SMOLTCP_MAX);
        able.map(move |which| mode(programs, which, run))
    });
    let about = About {
        name: "engine",
        title: "the TCP engine alone, frames in memory, each time one pass (poll), or a burst of 32 in one: a full segment in, an \
                acknowledgement in, a full segment out, request and response; instructions by callgrind; segments sent each time"
            .into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x smoltcp", "smoltcp")],
    };
    Section { about, modes: modes.collect() }
}

fn mode(programs: &Programs, which: Which, run: Run) -> Mode<'_> {
    let checksums = if run.verify { "" } else { ", received checksums unverified" };
    let burst = if run.burst == 1 { String::new() } else { format!(", {} a pass", run.burst) };
    let kind = format!("{}{checksums}{burst}, {} connections", run.scene.name(), run.connections);
    // The same in every round: counted once.
    let count: Rc<Cell<Option<Option<f64>>>> = Rc::default();
    Mode::new(which.name(), move || {
        if count.get().is_none() {
            count.set(Some(counted(programs, which, run)?));
        }
        sample(programs, which, run, count.get().flatten())
    })
    .of_kind(kind)
}

fn sample(programs: &Programs, which: Which, run: Run, instructions: Option<f64>) -> Result<Sample, LabError> {
    let slow = which == Which::Smoltcp && run.connections >= 100;
    let groups = if slow { GROUPS_MANY } else { GROUPS.max(run.connections / 32) };
    let groups = programs.scaled(groups as u64) as usize;
    let figures = which.play(run, groups.max(1));
    let figures = figures.map_err(|error| LabError::new(format!("{}: {error}", which.name())))?;
    Ok(vec![Some(figures.ns), instructions, Some(figures.sent)])
}

/// Instructions each time; `None` without valgrind.
fn counted(programs: &Programs, which: Which, run: Run) -> Result<Option<f64>, LabError> {
    let program = programs.load.with_file_name("underpass-engine");
    match instructions(&program, which, run) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LabError::new(format!("valgrind: {error}"))),
    }
}
