//! The small words of a script: numbers, bounds, times, ranges of sequence numbers.

use std::fmt;
use std::ops::RangeInclusive;

/// What a number has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound(RangeInclusive<i64>);

impl Bound {
    /// Exactly this.
    pub fn exactly(n: i64) -> Self {
        Self(n..=n)
    }

    /// Of `N..M`, both.
    pub fn limits(&self) -> Option<(i64, i64)> {
        let (least, most) = (*self.0.start(), *self.0.end());
        (least > i64::MIN && most < i64::MAX && least != most).then_some((least, most))
    }

    /// Is `n` as it has to be?
    pub fn holds(&self, n: i64) -> bool {
        self.0.contains(&n)
    }

    /// `*`, `N`, `>=N`, `<=N` or `N..M`.
    pub fn parse(word: &str) -> Result<Self, String> {
        let range = match word {
            "*" => i64::MIN..=i64::MAX,
            _ => match (word.strip_prefix(">="), word.strip_prefix("<="), word.split_once("..")) {
                (Some(least), ..) => number(least)?..=i64::MAX,
                (_, Some(most), _) => i64::MIN..=number(most)?,
                (.., Some((least, most))) => number(least)?..=number(most)?,
                _ => return Ok(Self::exactly(number(word)?)),
            },
        };
        Ok(Self(range))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self.0.start(), *self.0.end()) {
            (i64::MIN, i64::MAX) => f.write_str("*"),
            (i64::MIN, most) => write!(f, "<={most}"),
            (least, i64::MAX) => write!(f, ">={least}"),
            (least, most) if least == most => write!(f, "{least}"),
            (least, most) => write!(f, "{least}..{most}"),
        }
    }
}

/// How long something takes, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Wait {
    /// No time at all.
    pub const NONE: Self = Self { min: 0, max: 0 };

    /// `T` or `T..T`.
    pub fn parse(word: &str) -> Result<Self, String> {
        let (min, max) = word.split_once("..").unwrap_or((word, word));
        Ok(Self { min: time(min)?, max: time(max)? })
    }
}

/// A number, perhaps negative.
pub fn number<N: std::str::FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("`{word}` is no number that fits here"))
}

/// `0` or a whole number with `us`, `ms`, `s` or `h`; in ns.
pub fn time(word: &str) -> Result<u64, String> {
    if word == "0" {
        return Ok(0);
    }
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &word[digits.len()..] {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(format!("`{word}` is no time: us, ms, s or h is missing")),
    };
    number::<u64>(digits).map(|n| n * unit)
}

/// `START:END`, both relative to the first sequence number of the stream.
pub fn range(word: &str) -> Result<(i64, i64), String> {
    let (start, end) = word.split_once(':').ok_or_else(|| format!("`{word}` is no START:END"))?;
    let (start, end) = (number(start)?, number(end)?);
    if end < start {
        return Err(format!("`{word}` ends before it starts"));
    }
    Ok((start, end))
}

/// `START:END,START:END,…`, or `none`.
pub fn ranges(word: &str) -> Result<Vec<(i64, i64)>, String> {
    if word == "none" { Ok(Vec::new()) } else { word.split(',').map(range).collect() }
}

/// `on` or `off`.
pub fn switch(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{word}` is neither `on` nor `off`")),
    }
}
