//! Many kinds in a sentence: of each mode, how the kinds compare with the reference.

use underpass_bench::median;

use crate::table::About;
use crate::turns::Measured;

/// Kinds from which on a table is too long to be seen at a glance.
const MANY: usize = 6;
/// Not worse than the reference, as far as a measurement can tell.
const AS_GOOD: f64 = 0.95;

/// A line a mode that has a reference in many kinds; none if there is no such mode.
pub fn of(about: &About, results: &[Measured]) -> Option<String> {
    let (heading, reference) = about.references.first()?;
    let mut lines: Vec<String> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for measured in results.iter().filter(|measured| measured.name != *reference) {
        if !names.contains(&measured.name.as_str()) {
            names.push(&measured.name);
        }
    }
    for name in names {
        let mut ratios: Vec<(f64, &str)> = results
            .iter()
            .filter(|measured| measured.name == name)
            .filter_map(|own| Some((ratio(about, own, reference, results)?, own.kind.as_str())))
            .collect();
        ratios.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (Some((least, worst)), true) = (ratios.first(), ratios.len() >= MANY) else { continue };
        let middle = median(ratios.iter().map(|(ratio, _)| *ratio).collect())?;
        let worse = ratios.iter().filter(|(ratio, _)| *ratio < AS_GOOD).count();
        lines.push(format!(
            "  {name}: {heading} {middle:.2} in the median of {} kinds, {least:.2} at least ({worst}), {worse} below {AS_GOOD}",
            ratios.len()
        ));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// How many times better than the reference of its kind.
fn ratio(about: &About, own: &Measured, reference: &str, results: &[Measured]) -> Option<f64> {
    let other = results.iter().find(|other| other.name == reference && other.kind == own.kind)?;
    let (own, other) = (own.median(0)?, other.median(0)?);
    let (over, under) = if about.lower_is_better { (other, own) } else { (own, other) };
    (own > 0.0 && other > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Metric;

    const ABOUT: About = About {
        name: "test",
        title: String::new(),
        metrics: &[Metric { name: "Mbit/s", digits: 1 }],
        lower_is_better: false,
        references: &[("x kernel", "kernel")],
    };

    fn measured(name: &str, kind: usize, value: f64) -> Measured {
        let samples = vec![vec![Some(value)]];
        Measured { name: name.into(), kind: kind.to_string(), samples, errors: Vec::new() }
    }

    #[test]
    fn many_kinds_become_a_line_a_few_do_not() {
        let of = |kinds: usize| {
            let both = |kind| [measured("kernel", kind, 10.0), measured("lane", kind, 5.0 + kind as f64)];
            super::of(&ABOUT, &(0..kinds).flat_map(both).collect::<Vec<_>>())
        };
        assert_eq!(of(MANY - 1), None);
        let text = of(7).unwrap();
        assert_eq!(text, "  lane: x kernel 0.80 in the median of 7 kinds, 0.50 at least (0), 5 below 0.95");
    }
}
