//! Segments as a script writes them.

use std::fmt::Write;

use underpass_stack::tcp::{Codepoint, Flags, SegmentOut};

use super::syntax::Words;
use super::value::{self, Bound};

/// Letters of the control bits.
const LETTERS: [(char, Flags); 8] = [
    ('F', Flags::FIN),
    ('S', Flags::SYN),
    ('R', Flags::RST),
    ('P', Flags::PSH),
    ('A', Flags::ACK),
    ('U', Flags::URG),
    ('E', Flags::ECE),
    ('W', Flags::CWR),
];

/// Words for the ECN field.
const CODEPOINTS: [(&str, Codepoint); 4] =
    [("none", Codepoint::NotEct), ("ect1", Codepoint::Ect1), ("ect0", Codepoint::Ect0), ("ce", Codepoint::Ce)];

/// A timestamps option: what is `None` is not said.
pub type Stamp = (Option<u32>, Option<u32>);

/// A segment of the peer.
#[derive(Clone, Debug)]
pub struct Inject {
    /// So long after the one before, ns; 0: together with it.
    pub pause: u64,
    pub flags: Flags,
    /// First and one past the last byte, in the peer's stream.
    pub seq: (i64, i64),
    /// In our stream.
    pub ack: i64,
    /// The window field; as before if not said.
    pub window: Option<u16>,
    /// The peer's clock and the newest of ours, if not said.
    pub stamp: Stamp,
    /// The option is left out though it was negotiated.
    pub without_stamp: bool,
    /// In our stream.
    pub sack: Vec<(i64, i64)>,
    pub ecn: Codepoint,
}

/// A segment that has to go out.
#[derive(Clone, Debug)]
pub struct Pattern {
    flags: Option<Flags>,
    /// PSH must be set or clear, if said.
    push: Option<bool>,
    seq: Option<(i64, i64)>,
    ack: Bound,
    window: Bound,
    stamp: Stamp,
    sack: Option<Vec<(i64, i64)>>,
    ecn: Option<Codepoint>,
}

/// The words after the sequence numbers.
#[derive(Default)]
struct Rest {
    ack: Option<Bound>,
    window: Option<Bound>,
    stamp: Stamp,
    without_stamp: bool,
    sack: Option<Vec<(i64, i64)>>,
    ecn: Option<Codepoint>,
    /// Length of each of several segments.
    by: Option<i64>,
    times: Option<usize>,
    /// Time between two of several, ns.
    every: u64,
}

impl Rest {
    fn parse(words: &mut Words<'_>) -> Result<Self, String> {
        let mut rest = Self::default();
        while let Some(key) = words.maybe() {
            match key {
                "ack" => rest.ack = Some(Bound::parse(words.next()?)?),
                "win" => rest.window = Some(Bound::parse(words.next()?)?),
                "ts" => rest.stamp = stamp(words.next()?)?,
                "nots" => rest.without_stamp = true,
                "sack" => rest.sack = Some(value::ranges(words.next()?)?),
                "ecn" => rest.ecn = Some(codepoint(words.next()?)?),
                "by" => rest.by = Some(words.number()?),
                "times" => rest.times = Some(words.number()?),
                "every" => rest.every = value::time(words.next()?)?,
                _ => return Err(format!("`{key}` is no part of a segment")),
            }
        }
        Ok(rest)
    }

    /// `ack N..M by L`: the ACKs of a peer that acknowledges L bytes at a time of what is between N and M.
    fn acks(&self, seq: (i64, i64)) -> Result<Option<Vec<i64>>, String> {
        let Some((from, to)) = self.ack.as_ref().and_then(Bound::limits) else { return Ok(None) };
        let by = self.by.filter(|by| *by > 0 && seq.0 == seq.1 && self.times.is_none());
        let by = by.ok_or("`ack N..M` wants `by`, and neither data nor `times` beside it")?;
        Ok(Some((from..to).step_by(by as usize).map(|at| to.min(at + by)).collect()))
    }

    /// The sequence numbers of each segment that one line stands for.
    fn pieces(&self, (start, end): (i64, i64)) -> Result<Vec<(i64, i64)>, String> {
        let Some(by) = self.by else { return Ok(vec![(start, end); self.times.unwrap_or(1)]) };
        if by <= 0 || self.times.is_some() {
            return Err("`by` wants a length, and no `times` beside it".into());
        }
        Ok((start..end).step_by(by as usize).map(|at| (at, end.min(at + by))).collect())
    }
}

/// `VAL/ECR`, each perhaps `*`.
fn stamp(word: &str) -> Result<Stamp, String> {
    let (val, ecr) = word.split_once('/').ok_or_else(|| format!("`{word}` is no VAL/ECR"))?;
    let part = |word| if word == "*" { Ok(None) } else { value::number(word).map(Some) };
    Ok((part(val)?, part(ecr)?))
}

fn codepoint(word: &str) -> Result<Codepoint, String> {
    let found = CODEPOINTS.iter().find(|(name, _)| *name == word);
    found.map(|(_, codepoint)| *codepoint).ok_or_else(|| format!("`{word}` is no ECN field"))
}

/// Letters of control bits; `-` for none.
fn flags(word: &str) -> Result<Flags, String> {
    let bit = |c| LETTERS.iter().find(|(letter, _)| *letter == c).map(|(_, flag)| *flag);
    let letters = word.chars().filter(|c| *c != '-');
    letters
        .map(|c| bit(c).ok_or_else(|| format!("`{c}` is no flag")))
        .try_fold(Flags::default(), |all, flag| Ok(all.with(flag?)))
}

impl Inject {
    /// `FLAGS START:END [ack N | ack N..M] [win N] [ts VAL/ECR | nots] [sack …] [ecn …] [by N | times N] [every TIME]`
    pub fn parse(words: &mut Words<'_>) -> Result<Vec<Self>, String> {
        let flags = flags(words.next()?)?;
        let seq = value::range(words.next()?)?;
        let rest = Rest::parse(words)?;
        let exact = |bound: &Option<Bound>| bound.as_ref().map(|b| value::number::<i64>(&b.to_string())).transpose();
        let acks = rest.acks(seq)?;
        let ack = if acks.is_some() { Some(0) } else { exact(&rest.ack)? };
        if ack.is_none() && flags.has(Flags::ACK) {
            return Err("`ack N` is missing".into());
        }
        let window = exact(&rest.window)?;
        let window = window.map(u16::try_from).transpose().map_err(|_| "`win` is a field of 16 bits")?;
        let (stamp, without_stamp, sack) = (rest.stamp, rest.without_stamp, rest.sack.clone().unwrap_or_default());
        let ecn = rest.ecn.unwrap_or_default();
        let (pause, ack) = (rest.every, ack.unwrap_or(0));
        let one = Self { pause, flags, seq, ack, window, stamp, without_stamp, sack, ecn };
        Ok(match acks {
            Some(acks) => acks.into_iter().map(|ack| Self { ack, ..one.clone() }).collect(),
            None => rest.pieces(seq)?.into_iter().map(|seq| Self { seq, ..one.clone() }).collect(),
        })
    }
}

impl Pattern {
    /// `FLAGS|* START:END|* ack N|* [win …] [ts …] [sack …] [ecn …] [by N | times N]`
    pub fn parse(words: &mut Words<'_>) -> Result<Vec<Self>, String> {
        let letters = words.next()?;
        let push = match (letters.contains('P'), letters.contains('p')) {
            (false, false) => None,
            (set, _) => Some(set),
        };
        let flags = if letters == "*" { None } else { Some(flags(&letters.replace(['p', 'P'], ""))?) };
        let seq = Some(words.next()?).filter(|word| *word != "*").map(value::range).transpose()?;
        let rest = Rest::parse(words)?;
        if rest.every != 0 {
            return Err("`every` is for what arrives".into());
        }
        let ack = rest.ack.clone().ok_or("`ack` is missing")?;
        let window = rest.window.clone().map_or_else(|| Bound::parse("*"), Ok)?;
        let one = Self { flags, push, seq, ack, window, stamp: rest.stamp, sack: rest.sack.clone(), ecn: rest.ecn };
        let Some(seq) = seq else { return Ok(vec![one; rest.times.unwrap_or(1)]) };
        Ok(rest.pieces(seq)?.into_iter().map(|seq| Self { seq: Some(seq), ..one.clone() }).collect())
    }

    /// What of `sent` is not as it has to be.
    pub fn differences(&self, sent: &Relative) -> Vec<String> {
        let mut all = Vec::new();
        let mut check = |ok: bool, name: &str, want: &dyn std::fmt::Display| {
            if !ok {
                all.push(format!("{name} should be {want}"));
            }
        };
        let mask = !Flags::PSH.0;
        if let Some(flags) = self.flags {
            check(sent.flags.0 & mask == flags.0, "flags", &letters(flags));
        }
        if let Some(push) = self.push {
            check(sent.flags.has(Flags::PSH) == push, "PSH", &push);
        }
        if let Some((start, end)) = self.seq {
            check(sent.seq == (start, end), "sequence numbers", &format_args!("{start}:{end}"));
        }
        check(self.ack.holds(sent.ack), "ack", &self.ack);
        check(self.window.holds(i64::from(sent.window)), "win", &self.window);
        let (val, ecr) = sent.stamp.unzip();
        for (name, want, got) in [("TSval", self.stamp.0, val), ("TSecr", self.stamp.1, ecr)] {
            if let Some(want) = want {
                check(got == Some(want), name, &want);
            }
        }
        if let Some(sack) = &self.sack {
            check(sent.sack == *sack, "sack", &blocks(sack));
        }
        if let Some(ecn) = self.ecn {
            check(sent.ecn == ecn, "ecn", &name_of(ecn));
        }
        all
    }
}

/// A segment of ours in the script's numbers.
#[derive(Clone, Debug)]
pub struct Relative {
    flags: Flags,
    seq: (i64, i64),
    ack: i64,
    window: u16,
    stamp: Option<(u32, u32)>,
    sack: Vec<(i64, i64)>,
    ecn: Codepoint,
}

impl Relative {
    /// `own` and `peer` are the numbers that a script calls 0.
    pub fn new(segment: &SegmentOut, own: u32, peer: u32) -> Self {
        let steps = |seq: u32, base: u32| i64::from(seq.wrapping_sub(base) as i32);
        let start = steps(segment.seq.0, own);
        let sack = segment.sack.as_slice().iter().map(|(a, b)| (steps(a.0, peer), steps(b.0, peer))).collect();
        Self {
            flags: segment.flags,
            seq: (start, start + i64::from(segment.len)),
            ack: steps(segment.ack.0, peer),
            window: segment.window,
            stamp: segment.timestamps.map(|ts| (ts.val, ts.ecr)),
            sack,
            ecn: segment.ecn,
        }
    }
}

impl std::fmt::Display for Relative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (start, end) = self.seq;
        write!(f, "{} {start}:{end} ack {} win {}", letters(self.flags), self.ack, self.window)?;
        if let Some((val, ecr)) = self.stamp {
            write!(f, " ts {val}/{ecr}")?;
        }
        if !self.sack.is_empty() {
            write!(f, " sack {}", blocks(&self.sack))?;
        }
        if self.ecn == Codepoint::NotEct { Ok(()) } else { write!(f, " ecn {}", name_of(self.ecn)) }
    }
}

fn name_of(codepoint: Codepoint) -> &'static str {
    CODEPOINTS.iter().find(|(_, known)| *known == codepoint).map_or("?", |(name, _)| name)
}

fn letters(flags: Flags) -> String {
    let set: String = LETTERS.iter().filter(|(_, flag)| flags.has(*flag)).map(|(letter, _)| *letter).collect();
    if set.is_empty() { "-".into() } else { set }
}

fn blocks(sack: &[(i64, i64)]) -> String {
    let mut text = String::new();
    for (start, end) in sack {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{start}:{end}");
    }
    if text.is_empty() { "none".into() } else { text }
}
