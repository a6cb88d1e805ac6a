//! Which sections are measured, given what was named and what we may do.

use underpass_lab::LabError;

use super::SectionName;
use crate::stand::Place;

/// What a section in a lab lacks.
const NEEDS_ROOT: &str = "needs root (network namespaces, AF_XDP, BPF, TCP_REPAIR)";

/// What is measured, and what is left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// In this order.
    pub measured: Vec<SectionName>,
    /// Sections of a full run that only root can measure.
    pub skipped: Vec<SectionName>,
}

impl Choice {
    /// The sections named; all that are possible if none is. An error if one is named that needs root, and we are not.
    pub fn of(named: &[SectionName], root: bool) -> Result<Self, LabError> {
        let possible = |section: &SectionName| root || !section.place().needs_root();
        if named.is_empty() {
            let (measured, skipped) = SectionName::ALL.into_iter().partition(possible);
            return Ok(Self { measured, skipped });
        }
        match named.iter().find(|section| !possible(section)) {
            Some(section) => Err(LabError::new(format!("{section}: {NEEDS_ROOT}"))),
            None => Ok(Self { measured: named.to_vec(), skipped: Vec::new() }),
        }
    }

    /// The places of the measurements.
    pub fn places(&self) -> Vec<Place> {
        let used = |place: &Place| self.measured.iter().any(|section| section.place() == *place);
        [Place::Memory, Place::Loopback, Place::Labs, Place::BadLinks].into_iter().filter(used).collect()
    }

    /// What to say about the sections left out, if any were.
    pub fn notice(&self) -> Option<String> {
        let names: Vec<String> = self.skipped.iter().map(SectionName::to_string).collect();
        (!names.is_empty()).then(|| format!("skipped: {}: each {NEEDS_ROOT}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_measures_everything() {
        let choice = Choice::of(&[], true).unwrap();
        assert_eq!((choice.measured.len(), choice.skipped.len()), (SectionName::ALL.len(), 0));
        assert_eq!((choice.places(), choice.notice()), (vec![Place::Loopback, Place::Labs], None));
    }

    #[test]
    fn others_are_told_what_is_left_out() {
        let choice = Choice::of(&[], false).unwrap();
        assert_eq!(choice.places(), [Place::Loopback]);
        assert_eq!(choice.measured.len() + choice.skipped.len(), SectionName::ALL.len());
        let notice = choice.notice().unwrap();
        assert!(notice.contains("pingpong, stream") && notice.contains(NEEDS_ROOT), "{notice}");
    }

    #[test]
    fn what_was_named_is_not_left_out_quietly() {
        let named = [SectionName::ShmRedis, SectionName::Redis];
        assert_eq!(Choice::of(&named, true).unwrap().measured, named);
        assert_eq!(Choice::of(&named, false).unwrap_err().to_string(), format!("redis: {NEEDS_ROOT}"));
        assert_eq!(Choice::of(&named[..1], false).unwrap().measured, named[..1]);
    }
}
