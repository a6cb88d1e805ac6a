//! What the library costs a program that it cannot help.

use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use underpass_bench::{Calls, median};
use underpass_lab::{LabError, Side};

use super::Section;
use crate::stand::{Carriers, Labs};
use crate::table::{About, Metric};
use crate::turns::{Mode, Sample};

const METRICS: &[Metric] = &[Metric { name: "read ns", digits: 1 }, Metric { name: "start ms", digits: 3 }];

/// The kinds of program that are compared.
const KINDS: [(&str, Carriers); 2] = [("plain", Carriers::KERNEL), ("preloaded", Carriers::CLIENT)];
/// Reading programs of each kind in one sample.
const READERS: usize = 8;
/// Reads of each.
const READS: u64 = 1 << 17;
/// Starts of /bin/true in one sample.
const STARTS: u64 = 100;

/// The modes.
pub fn section(stand: &Labs) -> Section<'_> {
    let pair = Rc::new(Pair { stand, waiting: Default::default() });
    let mode = |kind: usize| {
        let pair = Rc::clone(&pair);
        Mode::new(KINDS[kind].0, move || pair.sample(kind))
    };
    let modes = (0..KINDS.len()).map(mode).collect();
    let about = About {
        name: "overhead",
        title: "read(2) of one byte from a pipe; start to end of /bin/true; medians, both kinds in turns".into(),
        metrics: METRICS,
        lower_is_better: true,
        references: &[("x plain", "plain")],
    };
    Section { about, modes }
}

/// Both modes are one measurement, in which the kinds take turns: the mode that comes first makes it, and the other's half waits here.
struct Pair<'a> {
    stand: &'a Labs,
    waiting: [Cell<Option<Result<Sample, LabError>>>; 2],
}

impl Pair<'_> {
    fn sample(&self, kind: usize) -> Result<Sample, LabError> {
        if let Some(waiting) = self.waiting[kind].take() {
            return waiting;
        }
        let [plain, preloaded] = measure(self.stand);
        let (own, other) = if kind == 0 { (plain, preloaded) } else { (preloaded, plain) };
        self.waiting[1 - kind].set(Some(other));
        own
    }
}

/// What one kind has taken so far.
#[derive(Default)]
struct Half {
    /// Nanoseconds a read, of each reader.
    reads: Vec<f64>,
    /// Milliseconds of each start.
    starts: Vec<f64>,
}

fn measure(stand: &Labs) -> [Result<Sample, LabError>; 2] {
    let mut halves = KINDS.map(|_| Ok(Half::default()));
    for _ in 0..READERS {
        turn(&mut halves, |carriers, half| {
            half.reads.push(read_ns(stand, carriers)?);
            Ok(())
        });
    }
    for _ in 0..stand.programs.scaled(STARTS) {
        turn(&mut halves, |carriers, half| {
            half.starts.push(start_ms(&mut stand.command(carriers, Side::Client, "/bin/true")?)?);
            Ok(())
        });
    }
    halves.map(|half| half.map(|half| vec![median(half.reads), median(half.starts)]))
}

/// One step of each kind. A kind that has failed is left out: it fails alone.
fn turn(halves: &mut [Result<Half, LabError>; 2], step: impl Fn(Carriers, &mut Half) -> Result<(), LabError>) {
    for ((_, carriers), half) in KINDS.into_iter().zip(halves) {
        if let Err(error) = half.as_mut().map_or(Ok(()), |half| step(carriers, half)) {
            *half = Err(error);
        }
    }
}

/// Nanoseconds a read, as the program itself measures it.
fn read_ns(stand: &Labs, carriers: Carriers) -> Result<f64, LabError> {
    let mut reader = stand.command(carriers, Side::Client, &stand.programs.load)?;
    reader.args(["pipe-read", "--count", &stand.programs.scaled(READS).to_string()]);
    Ok(stand.run::<Calls>(stand.lab(carriers)?, reader, 5.0)?.ns_per_call)
}

/// Milliseconds from start to end.
fn start_ms(command: &mut Command) -> Result<f64, LabError> {
    let begin = Instant::now();
    let status = command.status().map_err(|error| LabError::new(format!("/bin/true: {error}")))?;
    let elapsed = begin.elapsed();
    if !status.success() {
        return Err(LabError::new(format!("/bin/true: {status}")));
    }
    Ok(elapsed.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_fails_fails_alone() {
        let mut halves = KINDS.map(|_| Ok(Half::default()));
        for _ in 0..2 {
            turn(&mut halves, |carriers, half| {
                half.starts.push(1.0);
                carriers.preloaded().next().map_or(Ok(()), |_| Err(LabError::new("no daemon")))
            });
        }
        let [plain, preloaded] =
            halves.map(|half| half.map(|half| half.starts.len()).map_err(|error| error.to_string()));
        assert_eq!((plain, preloaded), (Ok(2), Err("no daemon".to_owned())));
    }
}
