//! What sections are measured on: places of several sorts, each made when a section first asks for it.

mod bad_links;
mod carriers;
mod cpus;
mod labs;
pub mod loopback;
mod preload;
pub mod programs;
mod scratch;

use std::cell::OnceCell;
use std::fmt;

use underpass_lab::LabError;

pub use self::bad_links::{BadLinks, Conditions};
pub use self::carriers::{Carrier, Carriers};
pub use self::labs::{Labs, cpu_of};
pub use self::loopback::Loopback;
pub use self::programs::Programs;

/// Where a section is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing but memory of our own.
    Memory,
    /// Namespaces of its own, joined by a veth pair.
    Labs,
    /// 127.0.0.1 of the namespace that we are in.
    Loopback,
    /// Namespaces of its own, joined by a link that delays and loses.
    BadLinks,
}

impl Place {
    /// Can only root make it?
    pub fn needs_root(self) -> bool {
        matches!(self, Self::Labs | Self::BadLinks)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Labs => "veth, MTU 1500",
            Self::Loopback => "loopback",
            Self::BadLinks => "veth through an emulated bad link, MTU 1500, without offloads",
        })
    }
}

/// All sorts of place. One that cannot be made fails the sections that need it.
pub struct Stand {
    programs: Programs,
    labs: OnceCell<Result<Labs, String>>,
    loopback: OnceCell<Result<Loopback, String>>,
    bad_links: OnceCell<Result<BadLinks, String>>,
}

impl Stand {
    /// Makes nothing yet. An error if our own programs were not built.
    pub fn new(quick: bool) -> Result<Self, LabError> {
        let (labs, loopback, bad_links) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Ok(Self { programs: Programs::find(quick)?, labs, loopback, bad_links })
    }

    /// Our own programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The labs.
    pub fn labs(&self) -> Result<&Labs, LabError> {
        made(&self.labs, || Labs::new(self.programs.clone()))
    }

    /// The loopback interface.
    pub fn loopback(&self) -> Result<&Loopback, LabError> {
        made(&self.loopback, || Loopback::new(self.programs.clone()))
    }

    /// The bad links.
    pub fn bad_links(&self) -> Result<&BadLinks, LabError> {
        made(&self.bad_links, || BadLinks::new(self.programs.clone()))
    }

    /// Machine and build in a line or two, for measurements at these places.
    pub fn describe(&self, places: &[Place]) -> String {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = read("/proc/sys/kernel/osrelease");
        let model = model.trim_start_matches(['\t', ' ', ':']);
        let places: Vec<String> = places.iter().map(Place::to_string).collect();
        let (kernel, places, library, settings) =
            (kernel.trim(), places.join("; "), preload::library(), preload::settings());
        format!("Linux {kernel}, {cores} x {model}; {places}\nlibrary: {library}{settings}")
    }
}

fn made<T>(cell: &OnceCell<Result<T, String>>, make: impl FnOnce() -> Result<T, LabError>) -> Result<&T, LabError> {
    let place = cell.get_or_init(|| make().map_err(|error| error.to_string()));
    place.as_ref().map_err(|why| LabError::new(why.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_made_once_and_its_error_is_kept() {
        let (mut tries, cell) = (0, OnceCell::<Result<(), String>>::new());
        for _ in 0..2 {
            let error = made(&cell, || {
                tries += 1;
                Err(LabError::new("no room"))
            });
            assert_eq!(error.unwrap_err().to_string(), "no room");
        }
        assert_eq!(tries, 1);
    }
}
