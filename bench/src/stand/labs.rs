//! Three labs alike: kernel only, with a daemon, for the floor.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde::de::DeserializeOwned;
use underpass_lab::{CommandExt, Host, Lab, LabError, LabOptions, Process, Profile, Side};

use super::programs::{self, Programs};
use super::{Carrier, Carriers, preload};
use crate::octets::carried_by_kernel;

/// Labs and programs.
pub struct Labs {
    plain: Lab,
    // A missing daemon fails the modes that need it, not the run.
    fast: Result<Lab, String>,
    floor: Lab,
    /// The programs.
    pub programs: Programs,
}

impl Labs {
    /// Builds the labs. An error only if not even the kernel can be measured.
    pub fn new(programs: Programs) -> Result<Self, LabError> {
        let options = LabOptions { profile: Profile::Release, ..LabOptions::default() };
        let plain = Lab::with(options)?;
        preload::check(plain.command(Side::Client, "cat")?, false)?;
        let fast = preloading_lab(options).map_err(|error| error.to_string());
        Ok(Self { plain, fast, floor: Lab::with(options)?, programs })
    }

    /// The lab for these carriers; an error if Underpass is wanted and its daemon does not run.
    pub fn lab(&self, carriers: Carriers) -> Result<&Lab, LabError> {
        match (carriers.preloaded().next(), &self.fast) {
            (None, _) => Ok(&self.plain),
            (Some(_), Ok(lab)) => Ok(lab),
            (Some(_), Err(why)) => Err(LabError::new(why.clone())),
        }
    }

    /// The lab whose interfaces carry no XDP program of ours between runs.
    pub fn floor(&self) -> &Lab {
        &self.floor
    }

    /// A host under these carriers.
    pub fn host(&self, carriers: Carriers, side: Side) -> Result<&Host, LabError> {
        Ok(self.lab(carriers)?.host(side))
    }

    /// A command on one side, pinned: the server on CPU 0, the client on CPU 1.
    pub fn command(
        &self,
        carriers: Carriers,
        side: Side,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Result<Command, LabError> {
        let lab = self.lab(carriers)?;
        let mut command = match carriers.of(side) {
            Carrier::Kernel => lab.command(side, program)?,
            Carrier::Underpass => lab.preloaded(side, program)?,
        };
        carriers.instruct(side, &mut command);
        command.pin(cpu_of(side));
        Ok(command)
    }

    /// Starts one of our servers on a free port of the server's address; its address.
    pub fn serve(&self, carriers: Carriers, args: &[&str]) -> Result<(Process, String), LabError> {
        let lab = self.lab(carriers)?;
        let mut command = self.command(carriers, Side::Server, &self.programs.load)?;
        let host = lab.host(Side::Server);
        let address: IpAddr = if carriers.v6 { host.v6.into() } else { host.v4.into() };
        command.args(args).arg("--bind").arg(SocketAddr::new(address, 0).to_string());
        let mut process = lab.spawn("server", &mut command)?;
        let address = programs::address(&mut process)?;
        Ok((process, address))
    }

    /// Runs one of our clients to its end; its figures.
    pub fn run<T: DeserializeOwned>(&self, lab: &Lab, mut command: Command, seconds: f64) -> Result<T, LabError> {
        programs::figures(lab.spawn("client", &mut command)?, seconds)
    }

    /// Runs `work` and says how many bytes the kernel carried meanwhile on each preloaded side; the largest of them.
    pub fn watching_kernel<T>(
        &self,
        carriers: Carriers,
        work: impl FnOnce() -> Result<T, LabError>,
    ) -> Result<(T, Option<u64>), LabError> {
        let count = || -> Result<Vec<u64>, LabError> {
            carriers.preloaded().map(|side| carried_by_kernel(self.host(carriers, side)?)).collect()
        };
        let before = count()?;
        let result = work()?;
        let grown = count()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok((result, grown.max()))
    }
}

/// A lab with a daemon, in which the library is known to be loaded into programs.
fn preloading_lab(options: LabOptions) -> Result<Lab, LabError> {
    let lab = Lab::with_daemon(options)?;
    preload::check(lab.preloaded(Side::Client, "cat")?, true)?;
    Ok(lab)
}

/// The CPU of a side.
pub fn cpu_of(side: Side) -> usize {
    match side {
        Side::Server => 0,
        Side::Client => 1,
    }
}
