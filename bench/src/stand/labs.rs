//! The machine's part of the benchmark: three labs alike (kernel only, with a daemon, for the floor) and the programs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::de::DeserializeOwned;
use underpass_lab::{Artifacts, CommandExt, Host, Lab, LabError, LabOptions, Process, Profile, Side};

use crate::octets::carried_by_kernel;

/// Longest that a program of ours may overrun its own time.
const GRACE: Duration = Duration::from_secs(10);

/// What carries one side's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The program as it is.
    Kernel,
    /// With the library preloaded.
    Underpass,
}

/// What carries the two sides.
#[derive(Clone, Copy, Debug)]
pub struct Carriers {
    /// The server's.
    pub server: Carrier,
    /// The client's.
    pub client: Carrier,
    /// Promotion at the first data call, also of what the policy would leave in the kernel.
    pub eager: bool,
}

impl Carriers {
    /// Nothing preloaded.
    pub const KERNEL: Self = Self::new(Carrier::Kernel, Carrier::Kernel);
    /// The server preloaded.
    pub const SERVER: Self = Self::new(Carrier::Underpass, Carrier::Kernel);
    /// The client preloaded.
    pub const CLIENT: Self = Self::new(Carrier::Kernel, Carrier::Underpass);
    /// Both preloaded.
    pub const BOTH: Self = Self::new(Carrier::Underpass, Carrier::Underpass);

    const fn new(server: Carrier, client: Carrier) -> Self {
        Self { server, client, eager: false }
    }

    /// The same with [`Self::eager`].
    pub const fn eagerly(self) -> Self {
        Self { eager: true, ..self }
    }

    fn of(self, side: Side) -> Carrier {
        match side {
            Side::Server => self.server,
            Side::Client => self.client,
        }
    }

    /// Sides with the library preloaded.
    pub fn preloaded(self) -> impl Iterator<Item = Side> {
        [Side::Server, Side::Client].into_iter().filter(move |side| self.of(*side) == Carrier::Underpass)
    }
}

/// Labs and programs.
pub struct Stand {
    plain: Lab,
    // A missing daemon fails the modes that need it, not the run.
    fast: Result<Lab, String>,
    floor: Lab,
    load: PathBuf,
    library: String,
    quick: bool,
}

impl Stand {
    /// Builds the labs. An error only if not even the kernel can be measured.
    pub fn new(quick: bool) -> Result<Self, LabError> {
        let options = LabOptions { profile: Profile::Release, ..LabOptions::default() };
        let load = std::env::current_exe()
            .map_err(|error| LabError::new(format!("own path: {error}")))?
            .with_file_name("underpass-load");
        if !load.is_file() {
            return Err(LabError::new(format!(
                "no {}: run 'cargo build --release -p underpass-bench'",
                load.display()
            )));
        }
        let library = Artifacts::find(Profile::Release)
            .map_or_else(|error| error.to_string(), |found| found.library.display().to_string());
        let plain = Lab::with(options)?;
        check_preload(plain.command(Side::Client, "cat")?, false)?;
        Ok(Self {
            plain,
            fast: preloading_lab(options).map_err(|error| error.to_string()),
            floor: Lab::with(options)?,
            load,
            library,
            quick,
        })
    }

    /// Machine and build in a line or two.
    pub fn describe(&self) -> String {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = read("/proc/sys/kernel/osrelease");
        let model = model.trim_start_matches(['\t', ' ', ':']);
        let (kernel, library, settings) = (kernel.trim(), &self.library, settings());
        format!("Linux {kernel}, {cores} x {model}, veth, MTU 1500\nlibrary: {library}{settings}")
    }

    /// One run's length.
    pub fn seconds(&self) -> f64 {
        if self.quick { 0.4 } else { 1.0 }
    }

    /// A count, or a fraction of it in a quick run.
    pub fn scaled(&self, count: u64) -> u64 {
        if self.quick { count * 2 / 5 } else { count }
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

    /// The load program.
    pub fn load(&self) -> &PathBuf {
        &self.load
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
        if carriers.eager && carriers.of(side) == Carrier::Underpass {
            command.env("UNDERPASS_PROMOTE", "eager");
        }
        command.pin(cpu_of(side));
        Ok(command)
    }

    /// Starts one of our servers on a free port of the server's address; its address.
    pub fn serve(&self, carriers: Carriers, args: &[&str]) -> Result<(Process, String), LabError> {
        let lab = self.lab(carriers)?;
        let mut command = self.command(carriers, Side::Server, &self.load)?;
        command.args(args).arg("--bind").arg(format!("{}:0", lab.host(Side::Server).v4));
        let mut process = lab.spawn("server", &mut command)?;
        let address = process.expect_line("listening ", GRACE)?;
        Ok((process, address))
    }

    /// Runs one of our clients to its end; its figures.
    pub fn run<T: DeserializeOwned>(&self, lab: &Lab, mut command: Command, seconds: f64) -> Result<T, LabError> {
        let mut process = lab.spawn("client", &mut command)?;
        let text = process.finish(GRACE + Duration::from_secs_f64(seconds))?;
        serde_json::from_str(text.trim()).map_err(|error| LabError::new(format!("client printed '{text}': {error}")))
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
    check_preload(lab.preloaded(Side::Client, "cat")?, true)?;
    Ok(lab)
}

/// Is the library in a program or not, as it should be? The loader goes on without one that it cannot load, and what the library leaves
/// in the kernel looks the same: such rows would be the kernel's under another name. And a library in everybody's
/// LD_PRELOAD would be measured as the kernel.
fn check_preload(mut cat: Command, wanted: bool) -> Result<(), LabError> {
    let output = cat.arg("/proc/self/maps").output().map_err(|error| LabError::new(format!("cat: {error}")))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim();
    match (String::from_utf8_lossy(&output.stdout).contains("/libunderpass.so"), wanted) {
        _ if !output.status.success() => Err(LabError::new(format!("cat: {}: {complaint}", output.status))),
        (false, true) => {
            Err(LabError::new(format!("the library was not loaded into a preloaded program: {complaint}")))
        }
        (true, false) => Err(LabError::new("libunderpass.so is in a plain program: is LD_PRELOAD set?")),
        _ => Ok(()),
    }
}

/// Options of the library that the programs inherit from whoever started us, if any, as a line.
fn settings() -> String {
    let inherited = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let ours = name == "UNDERPASS" || name.starts_with("UNDERPASS_") || name.starts_with("EF_");
        ours.then(|| format!(" {name}={value}"))
    });
    let inherited: String = inherited.collect();
    if inherited.is_empty() { inherited } else { format!("\nenvironment:{inherited}") }
}

/// The CPU of a side.
pub fn cpu_of(side: Side) -> usize {
    match side {
        Side::Server => 0,
        Side::Client => 1,
    }
}
