//! What goes to stdout: aligned columns or JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use super::failure::Failure;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one text per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, columns two blanks apart.
    pub fn render(&self) -> String {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let width =
            |column: usize| lines.iter().filter_map(|l| Some(l.get(column)?.chars().count())).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut row = String::new();
            for (cell, (&width, (_, align))) in line.iter().zip(widths.iter().zip(&self.columns)) {
                // Writing to a String cannot fail.
                let _ = match align {
                    Align::Left => write!(row, "{cell:<width$}  "),
                    Align::Right => write!(row, "{cell:>width$}  "),
                };
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes to stdout at once.
pub fn emit(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes one JSON document and a line feed.
pub fn emit_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Failure::of("cannot write JSON", error))?;
    text.push('\n');
    emit(&text)
}

/// A value, or `-` when unknown.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// Bytes in the largest unit that keeps three digits: `812`, `1.46K`, `20.1M`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "K", "M", "G", "T"] {
        if value < 1000.0 {
            return match unit {
                "" => format!("{count}"),
                _ if value < 10.0 => format!("{value:.2}{unit}"),
                _ if value < 100.0 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.0}P")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("PID", Align::Right), ("NAME", Align::Left), ("N", Align::Right)]);
        table.row(["7".into(), "redis-server".into(), "1".into()]);
        table.row(["1234".into(), "é".into(), "100".into()]);
        assert_eq!(table.render(), " PID  NAME            N\n   7  redis-server    1\n1234  é             100\n");
    }

    #[test]
    fn sizes_keep_three_digits() {
        for (count, text) in [(0, "0"), (999, "999"), (1500, "1.46K"), (21_000_000, "20.0M"), (u64::MAX, "16384P")] {
            assert_eq!(bytes(count), text);
        }
    }
}
