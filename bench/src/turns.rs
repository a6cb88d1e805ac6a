//! Rounds: every mode once, then every mode again.

use std::io::IsTerminal;

use underpass_bench::median;
use underpass_lab::LabError;

/// One value a metric of the section; `None` where the mode has not got it.
pub type Sample = Vec<Option<f64>>;

/// One way to carry the same load.
pub struct Mode<'a> {
    /// What carries the load.
    pub name: String,
    /// The load, where a section has several: only modes of one kind are compared. Empty if there is but one.
    pub kind: String,
    /// Measures once.
    pub run: Box<dyn FnMut() -> Result<Sample, LabError> + 'a>,
}

impl<'a> Mode<'a> {
    /// A mode of this name.
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<Sample, LabError> + 'a) -> Self {
        Self { name: name.into(), kind: String::new(), run: Box::new(run) }
    }

    /// The same, of this kind.
    pub fn of_kind(self, kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..self }
    }

    /// What the table calls it.
    pub fn title(&self) -> String {
        title(&self.name, &self.kind)
    }
}

/// What the rounds of one mode have given.
#[derive(Clone)]
pub struct Measured {
    /// The mode's name.
    pub name: String,
    /// The mode's kind.
    pub kind: String,
    /// One sample a round that went well.
    pub samples: Vec<Sample>,
    /// What went wrong, one text a round that did not.
    pub errors: Vec<String>,
}

/// A mode that has failed so often is not tried again: everything stays bounded in time.
const MAX_FAILURES: usize = 2;

/// Measures all modes in turns. A failing mode fails alone.
pub fn take(rounds: usize, modes: &mut [Mode<'_>]) -> Vec<Measured> {
    let mut results: Vec<Measured> = modes.iter().map(Measured::nothing_of).collect();
    let terminal = std::io::stderr().is_terminal();
    for round in 1..=rounds {
        for (mode, result) in modes.iter_mut().zip(&mut results) {
            if result.errors.len() >= MAX_FAILURES {
                continue;
            }
            if terminal {
                eprint!("\r\x1b[K round {round} of {rounds}: {}", mode.title());
            }
            match (mode.run)() {
                Ok(sample) => result.samples.push(sample),
                Err(error) => result.errors.push(error.to_string()),
            }
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    results
}

impl Measured {
    fn nothing_of(mode: &Mode<'_>) -> Self {
        Self { name: mode.name.clone(), kind: mode.kind.clone(), samples: Vec::new(), errors: Vec::new() }
    }

    /// What the table calls the mode.
    pub fn title(&self) -> String {
        title(&self.name, &self.kind)
    }

    /// Has no round gone well, although there were some?
    pub fn has_failed(&self) -> bool {
        self.samples.is_empty() && !self.errors.is_empty()
    }

    /// The median over the rounds of metric number `index`.
    pub fn median(&self, index: usize) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| *sample.get(index)?).collect())
    }
}

fn title(name: &str, kind: &str) -> String {
    if kind.is_empty() { name.to_owned() } else { format!("{name}, {kind}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_alternate_and_a_failing_one_does_not_stop_the_others() {
        let order = std::cell::RefCell::new(String::new());
        let mut modes = [
            Mode::new("a", || {
                order.borrow_mut().push('a');
                Ok(vec![Some(1.0)])
            }),
            Mode::new("b", || {
                order.borrow_mut().push('b');
                Err(LabError::new("no"))
            }),
        ];
        let results = take(3, &mut modes);
        assert_eq!(*order.borrow(), "ababa");
        assert_eq!((results[0].samples.len(), results[1].errors.len()), (3, 2));
        assert_eq!((results[0].median(0), results[1].median(0)), (Some(1.0), None));
    }

    #[test]
    fn the_median_skips_missing_values() {
        let samples = [Some(4.0), None, Some(1.0), Some(2.0), Some(3.0)].map(|value| vec![value]).to_vec();
        let measured = Measured { samples, ..Measured::nothing_of(&Mode::new("", || Ok(Vec::new()))) };
        assert_eq!(measured.median(0), Some(2.5));
    }
}
