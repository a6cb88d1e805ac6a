//! Results for people and for programs.

use serde_json::{Value, json};

use crate::turns::Measured;

/// A column.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Heading with unit.
    pub name: &'static str,
    /// Digits behind the point.
    pub digits: usize,
}

/// What a section measures and how to read it.
pub struct About {
    /// Its name on the command line.
    pub name: &'static str,
    /// Heading.
    pub title: String,
    /// Columns; the first is the one that ratios are made of.
    pub metrics: &'static [Metric],
    /// Is a smaller first metric the better one?
    pub lower_is_better: bool,
    /// Modes that the others of their kind are compared with: column heading and mode name.
    pub references: &'static [(&'static str, &'static str)],
}

/// An aligned table, and below it what went wrong.
pub fn render(about: &About, results: &[Measured]) -> String {
    let mut rows = vec![heading(about)];
    rows.extend(results.iter().map(|measured| row(about, measured, results)));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = format!("{}: {}\n", about.name, about.title);
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ")));
    }
    for (error, names) in complaints(results) {
        text.push_str(&format!("  ! {}: {}\n", names.join("; "), error.replace('\n', "\n      ")));
    }
    text
}

/// Medians, all samples and all errors.
pub fn document(about: &About, results: &[Measured]) -> Value {
    let named = |values: Vec<Option<f64>>| -> Value {
        about.metrics.iter().zip(values).map(|(metric, value)| (metric.name.to_owned(), json!(value))).collect()
    };
    let modes: Vec<Value> = results
        .iter()
        .map(|measured| {
            let medians = (0..about.metrics.len()).map(|index| measured.median(index)).collect();
            let samples: Vec<Value> = measured.samples.iter().cloned().map(named).collect();
            json!({ "mode": measured.title(), "median": named(medians), "samples": samples, "errors": measured.errors })
        })
        .collect();
    json!({ "section": about.name, "title": about.title, "lower_is_better": about.lower_is_better, "modes": modes })
}

/// The last error of each mode that had one, with the modes that share it.
fn complaints(results: &[Measured]) -> Vec<(&str, Vec<String>)> {
    let mut all: Vec<(&str, Vec<String>)> = Vec::new();
    for measured in results {
        let Some(error) = measured.errors.last() else { continue };
        let name = format!("{} ({}x)", measured.title(), measured.errors.len());
        match all.iter_mut().find(|(known, _)| known == error) {
            Some((_, names)) => names.push(name),
            None => all.push((error, vec![name])),
        }
    }
    all
}

fn heading(about: &About) -> Vec<String> {
    let metrics = about.metrics.iter().map(|metric| metric.name.to_owned());
    let ratios = about.references.iter().map(|(heading, _)| (*heading).to_owned());
    std::iter::once("mode".to_owned()).chain(metrics).chain(ratios).collect()
}

fn row(about: &About, measured: &Measured, results: &[Measured]) -> Vec<String> {
    let metrics = about.metrics.iter().enumerate().map(|(index, metric)| {
        let absent = if index == 0 && measured.has_failed() { "failed" } else { "-" };
        measured.median(index).map_or_else(|| absent.to_owned(), |value| format!("{value:.*}", metric.digits))
    });
    let ratios = about.references.iter().map(|(_, reference)| {
        let other = results.iter().find(|other| other.name == *reference && other.kind == measured.kind);
        match (measured.median(0), other.and_then(|other| other.median(0))) {
            (Some(own), Some(other)) if own > 0.0 && other > 0.0 => {
                format!("{:.2}", if about.lower_is_better { other / own } else { own / other })
            }
            _ => "-".to_owned(),
        }
    });
    std::iter::once(measured.title()).chain(metrics).chain(ratios).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About = About {
        name: "test",
        title: String::new(),
        metrics: &[Metric { name: "us", digits: 1 }],
        lower_is_better: true,
        references: &[("x kernel", "kernel")],
    };

    fn measured(name: &str, kind: &str, value: f64) -> Measured {
        Measured { name: name.into(), kind: kind.into(), samples: vec![vec![Some(value)]], errors: Vec::new() }
    }

    #[test]
    fn ratios_say_how_many_times_better() {
        let mut results = vec![measured("kernel", "", 50.0), measured("lane", "", 10.0)];
        let errors = vec!["no daemon".into()];
        results.push(Measured { name: "broken".into(), kind: String::new(), samples: Vec::new(), errors });
        let text = render(&ABOUT, &results);
        assert!(text.contains("lane      10.0      5.00"), "{text}");
        assert!(text.contains("broken  failed         -"), "{text}");
        assert!(text.contains("! broken (1x): no daemon"), "{text}");
        assert_eq!(document(&ABOUT, &results)["modes"][1]["median"]["us"], 10.0);
    }

    #[test]
    fn only_modes_of_one_kind_are_compared() {
        let of_one = [measured("kernel", "1 client", 50.0), measured("lane", "1 client", 10.0)];
        let of_many = [measured("kernel", "many", 30.0), measured("lane", "many", 10.0)];
        let alone = [measured("lane", "few", 10.0)];
        let text = render(&ABOUT, &[&of_one[..], &of_many[..], &alone[..]].map(<[Measured]>::to_vec).concat());
        for row in
            ["kernel, 1 client  50.0      1.00", "lane, 1 client    10.0      5.00", "lane, many        10.0      3.00"]
        {
            assert!(text.contains(row), "{text}");
        }
        assert!(text.contains("lane, few         10.0         -"), "{text}");
    }
}
