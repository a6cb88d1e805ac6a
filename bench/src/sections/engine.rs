//! The TCP engine alone, beside smoltcp's: what a segment costs, in time and in instructions.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use underpass_bench::engine::{SCENES, Scene, Which, instructions};
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

/// The modes.
pub fn section(programs: &Programs) -> Section<'_> {
    let mut modes = Vec::new();
    for verify in [true, false] {
        for scene in SCENES {
            // Only what arrives is verified or not.
            if !verify && scene != Scene::Receive {
                continue;
            }
            for connections in CONNECTIONS {
                for which in Which::ALL {
                    if which == Which::Underpass || connections <= SMOLTCP_MAX {
                        modes.push(mode(programs, Run { scene, which, connections, verify }));
                    }
                }
            }
        }
    }
    let about = About {
        name: "engine",
        title: "the TCP engine alone, frames in memory, each time one pass (poll): a full segment in, an acknowledgement in, a full \
                segment out, request and response; instructions by callgrind; segments sent each time"
            .into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x smoltcp", "smoltcp")],
    };
    Section { about, modes }
}

#[derive(Clone, Copy)]
struct Run {
    scene: Scene,
    which: Which,
    connections: usize,
    verify: bool,
}

fn mode(programs: &Programs, run: Run) -> Mode<'_> {
    let checksums = if run.verify { "" } else { ", received checksums unverified" };
    let kind = format!("{}{checksums}, {} connections", run.scene.name(), run.connections);
    // The same in every round: counted once.
    let count: Rc<Cell<Option<Option<f64>>>> = Rc::default();
    Mode::new(run.which.name(), move || {
        if count.get().is_none() {
            count.set(Some(counted(programs, run)?));
        }
        sample(programs, run, count.get().flatten())
    })
    .of_kind(kind)
}

fn sample(programs: &Programs, run: Run, instructions: Option<f64>) -> Result<Sample, LabError> {
    let slow = run.which == Which::Smoltcp && run.connections >= 100;
    let groups = if slow { GROUPS_MANY } else { GROUPS.max(run.connections / 32) };
    let groups = programs.scaled(groups as u64) as usize;
    let figures = run.which.run(run.scene, run.connections, run.verify, groups.max(1));
    let figures = figures.map_err(|error| LabError::new(format!("{}: {error}", run.which.name())))?;
    Ok(vec![Some(figures.ns), instructions, Some(figures.sent)])
}

/// Instructions each time; `None` without valgrind.
fn counted(programs: &Programs, run: Run) -> Result<Option<f64>, LabError> {
    let program = programs.load.with_file_name("underpass-engine");
    match instructions(&program, run.scene, run.which, run.connections, run.verify) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LabError::new(format!("valgrind: {error}"))),
    }
}
