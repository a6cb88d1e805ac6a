//! What a script can ask about the connection beside its segments.

use underpass_stack::stats::Counter;
use underpass_stack::tcp::{Outcome, State};

use super::machine::Machine;
use super::syntax::Words;
use super::value::{self, Bound};

type Number = fn(&Machine) -> i64;
type Seen = fn(&Outcome) -> bool;

/// Numbers by name.
const NUMBERS: &[(&str, Number)] = &[
    ("readable", |m| m.tcb.readable() as i64),
    ("unsent", |m| m.tcb.unsent() as i64),
    ("unacked", |m| m.tcb.unacked() as i64),
    ("cwnd", |m| m.tcb.congestion().0.into()),
    ("ssthresh", |m| m.tcb.congestion().1.into()),
    ("srtt", |m| m.tcb.rtt_us().0.into()),
    ("rttvar", |m| m.tcb.rtt_us().1.into()),
    ("path-mtu", |m| m.tcb.path_mtu().into()),
    ("eof", |m| m.tcb.at_eof().into()),
    ("timers", |m| m.tcb.deadline().is_some().into()),
];

/// Reports of the engine by name.
const REPORTS: &[(&str, Seen)] = &[
    ("readable", |o| o.readable),
    ("writable", |o| o.writable),
    ("peer-fin", |o| o.peer_fin),
    ("reset", |o| o.reset),
    ("timed-out", |o| o.timed_out),
    ("urgent", |o| o.urgent),
    ("closed", |o| o.closed),
];

/// States by name.
const STATES: &[(&str, State)] = &[
    ("established", State::Established),
    ("fin-wait-1", State::FinWait1),
    ("fin-wait-2", State::FinWait2),
    ("close-wait", State::CloseWait),
    ("closing", State::Closing),
    ("last-ack", State::LastAck),
    ("time-wait", State::TimeWait),
    ("closed", State::Closed),
];

/// A question with its answer.
#[derive(Clone, Debug)]
pub enum Check {
    State(State),
    Report(Seen, bool),
    Count(Counter, Bound),
    Number(Number, Bound),
}

impl Check {
    /// The check that `word` begins, if it begins one.
    pub fn parse(word: &str, words: &mut Words<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match word {
            "state" => Self::State(named(STATES, words.next()?)?),
            "saw" => Self::Report(named(REPORTS, words.next()?)?, true),
            "unseen" => Self::Report(named(REPORTS, words.next()?)?, false),
            "count" => Self::Count(counter(words.next()?)?, Bound::parse(words.next()?)?),
            _ => match named(NUMBERS, word) {
                Ok(number) => Self::Number(number, Bound::parse(words.next()?)?),
                Err(_) => return Ok(None),
            },
        }))
    }

    /// Is it so?
    pub fn ask(&self, machine: &Machine) -> Result<(), String> {
        let compare = |bound: &Bound, got: i64| {
            if bound.holds(got) { Ok(()) } else { Err(format!("expected {bound}, found {got}")) }
        };
        match self {
            Self::State(want) if machine.tcb.state() != *want => {
                Err(format!("expected {want:?}, found {:?}", machine.tcb.state()))
            }
            Self::State(_) => Ok(()),
            Self::Report(report, want) => compare(&Bound::exactly((*want).into()), report(&machine.seen).into()),
            Self::Count(counter, bound) => compare(bound, machine.count(*counter) as i64),
            Self::Number(number, bound) => compare(bound, number(machine)),
        }
    }
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| format!("`{name}` is not known here"))
}

fn counter(name: &str) -> Result<Counter, String> {
    let found = Counter::ALL.iter().find(|counter| counter.name() == name);
    found.copied().ok_or_else(|| format!("`{name}` is no counter"))
}

/// Something that the program sets on its socket.
#[derive(Clone, Debug)]
pub enum Choice {
    Nodelay(bool),
    Cork(bool),
    Quickack(bool),
    UserTimeout(u32),
    Mtu(u32),
    TooBig { seq: i64, mtu: u32 },
}

impl Choice {
    /// The choice that `word` begins, if it begins one.
    pub fn parse(word: &str, words: &mut Words<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match word {
            "nodelay" => Self::Nodelay(value::switch(words.next()?)?),
            "cork" => Self::Cork(value::switch(words.next()?)?),
            "quickack" => Self::Quickack(value::switch(words.next()?)?),
            "user-timeout" => Self::UserTimeout((value::time(words.next()?)? / 1_000_000) as u32),
            "mtu" => Self::Mtu(words.number()?),
            "too-big" => Self::TooBig { seq: words.number()?, mtu: words.number()? },
            _ => return Ok(None),
        }))
    }

    /// Carries it out.
    pub fn make(&self, machine: &mut Machine) -> Result<(), String> {
        if let Self::TooBig { seq, mtu } = *self {
            return machine.too_big(seq, mtu);
        }
        machine.call(|connection, now| match *self {
            Self::Nodelay(on) => connection.set_nodelay(on),
            Self::Cork(on) => connection.set_cork(on),
            Self::Quickack(on) => connection.set_quickack(on),
            Self::UserTimeout(ms) => connection.set_user_timeout(ms),
            Self::Mtu(bytes) => connection.set_path_mtu(now, bytes, bytes),
            Self::TooBig { .. } => (),
        })
    }
}
