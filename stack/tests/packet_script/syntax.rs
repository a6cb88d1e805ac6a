//! From text to events.

use super::Failure;
use super::measure::{Check, Choice};
use super::segment::{Inject, Pattern};
use super::setup::Setup;
use super::value::{self, Wait};

/// A whole script.
#[derive(Debug)]
pub struct Script {
    /// The clause that it tests: `RFC 9293, section 3.10.7.4: …`.
    pub clause: String,
    /// Where the RFC leaves a choice or the engine goes another way: what Linux does.
    pub linux: Option<String>,
    pub setup: Setup,
    pub lines: Vec<Line>,
}

/// One event.
#[derive(Debug)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// As it stands in the script.
    pub text: String,
    /// Time since the event before.
    pub wait: Wait,
    pub event: Event,
}

/// What happens, or has to happen.
#[derive(Debug)]
pub enum Event {
    /// The peer sends these.
    Inject(Vec<Inject>),
    /// These arrive together with what comes next: nothing goes out between them.
    InjectTogether(Vec<Inject>),
    /// These go out, one after the other.
    Expect(Vec<Pattern>),
    /// The program writes `len` bytes, of which `takes` fit.
    Write { len: u32, more: bool, takes: u32 },
    /// The program reads up to `len` bytes and gets `takes`.
    Read { len: u32, takes: u32 },
    /// The program closes its sending side.
    Shutdown,
    /// The program sets an option.
    Choose(Choice),
    /// Nothing goes out for this long, ns.
    Quiet(u64),
    /// What goes out until now does not matter.
    Skip,
    /// The connection is asked.
    Check(Check),
}

/// The words of a line.
pub struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    /// The next word, if there is one.
    pub fn maybe(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    /// The next word.
    pub fn next(&mut self) -> Result<&'a str, String> {
        self.maybe().ok_or_else(|| "a word is missing at the end".into())
    }

    /// The next word, a number.
    pub fn number<N: std::str::FromStr>(&mut self) -> Result<N, String> {
        value::number(self.next()?)
    }

    fn end(&mut self) -> Result<(), String> {
        self.maybe().map_or(Ok(()), |word| Err(format!("`{word}` is too much")))
    }
}

impl Script {
    /// Reads a script; what is wrong with it is told with its line.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut script = Self { clause: String::new(), linux: None, setup: Setup::default(), lines: Vec::new() };
        for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
            let code = text.split('#').next().unwrap_or("").trim();
            if !code.is_empty() {
                script.line(line, code).map_err(|what| Failure { line, what })?;
            }
        }
        if script.clause.is_empty() || script.lines.is_empty() {
            return Err(Failure { line: 1, what: "a script needs a `clause` and events".into() });
        }
        Ok(script)
    }

    fn line(&mut self, number: usize, code: &str) -> Result<(), String> {
        let (first, rest) = code.split_once(' ').unwrap_or((code, ""));
        match first {
            "clause" => self.clause = rest.trim().into(),
            "linux" => self.linux = Some(rest.trim().into()),
            "set" if self.lines.is_empty() => self.setup.set(&mut Words(rest.split_whitespace()))?,
            _ => self.lines.push(Line::parse(number, code)?),
        }
        Ok(())
    }
}

impl Line {
    fn parse(number: usize, code: &str) -> Result<Self, String> {
        let mut words = Words(code.split_whitespace());
        let mut first = words.next()?;
        let mut wait = Wait::NONE;
        if let Some(time) = first.strip_prefix('+') {
            wait = Wait::parse(time)?;
            first = words.next()?;
        }
        let event = Event::parse(first, &mut words)?;
        words.end()?;
        if wait.min != wait.max && !matches!(event, Event::Expect(_)) {
            return Err("only a segment that has to go out may leave its time open".into());
        }
        Ok(Self { number, text: code.into(), wait, event })
    }
}

impl Event {
    fn parse(first: &str, words: &mut Words<'_>) -> Result<Self, String> {
        Ok(match first {
            "<" => Self::Inject(Inject::parse(words)?),
            "<<" => Self::InjectTogether(together(Inject::parse(words)?)?),
            ">" => Self::Expect(Pattern::parse(words)?),
            "write" => Self::write(words)?,
            "read" => {
                let len = words.number()?;
                Self::Read { len, takes: takes(len, words.maybe(), words)? }
            }
            "shutdown" => Self::Shutdown,
            "quiet" => Self::Quiet(value::time(words.next()?)?),
            "skip" => Self::Skip,
            _ => match (Choice::parse(first, words)?, Check::parse(first, words)?) {
                (Some(choice), _) => Self::Choose(choice),
                (_, Some(check)) => Self::Check(check),
                _ => return Err(format!("`{first}` is no event")),
            },
        })
    }

    /// `write N [more] [takes M]`
    fn write(words: &mut Words<'_>) -> Result<Self, String> {
        let len = words.number()?;
        let mut word = words.maybe();
        let more = word == Some("more");
        if more {
            word = words.maybe();
        }
        Ok(Self::Write { len, more, takes: takes(len, word, words)? })
    }
}

/// What arrives together cannot have time between.
fn together(segments: Vec<Inject>) -> Result<Vec<Inject>, String> {
    if segments.iter().any(|segment| segment.pause > 0) {
        Err("`<<` leaves no time for `every`".into())
    } else {
        Ok(segments)
    }
}

/// `[takes M]`, of `len` bytes.
fn takes(len: u32, word: Option<&str>, words: &mut Words<'_>) -> Result<u32, String> {
    match word {
        None => Ok(len),
        Some("takes") => words.number(),
        Some(word) => Err(format!("`{word}` is too much")),
    }
}
