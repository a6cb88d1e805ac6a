//! What both kernels and both stacks of a conversation have counted between two moments.

use std::collections::BTreeMap;
use std::fmt;

use crate::view::Counters;
use crate::{Lab, LabError, Preload, Side, Talk};

/// Counters of the kernels (`server kernel TcpExt.TCPTimeouts`) and stacks (`client stack timeouts`) at one moment, or how much
/// they have grown.
#[derive(Clone, Debug)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// The counters of now.
    pub fn take(lab: &Lab, talk: &mut Talk, preload: Preload) -> Result<Self, LabError> {
        let mut all = BTreeMap::new();
        let mut add = |whose: String, counters: Counters| {
            all.extend(counters.into_iter().map(|(name, value)| (format!("{whose} {name}"), value)));
        };
        for side in [Side::Server, Side::Client] {
            let name = format!("{side:?}").to_lowercase();
            add(format!("{name} kernel"), lab.host(side).namespace.kernel_counters()?);
            if preload.covers(side) {
                add(format!("{name} stack"), lab.counters(talk.program(side).pid())?);
            }
        }
        Ok(Self(all))
    }

    /// What was counted since.
    pub fn since(&self, before: &Self) -> Self {
        let grown = |(name, value): (&String, &u64)| {
            let more = value.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (more > 0).then(|| (name.clone(), more))
        };
        Self(self.0.iter().filter_map(grown).collect())
    }

    /// The sum of the counters whose names end so.
    pub fn sum(&self, endings: &[&str]) -> u64 {
        self.0.iter().filter(|(name, _)| endings.iter().any(|end| name.ends_with(end))).map(|(_, value)| value).sum()
    }
}

impl fmt::Display for Tally {
    /// One line for each kernel and stack.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whose = "";
        for (name, value) in &self.0 {
            let at = name.rfind(' ').unwrap_or(0);
            if name[..at] != *whose {
                whose = &name[..at];
                write!(f, "\n  {whose}:")?;
            }
            write!(f, " {}={value}", &name[at + 1..])?;
        }
        Ok(())
    }
}
