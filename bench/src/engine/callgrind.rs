//! How many instructions a scene takes: `underpass-engine` under valgrind's callgrind, which counts those of the measured region alone.
//!
//! The count is the same in every run, whatever else the machine does. It depends on the compiler, on libc, and on the processor as far as
//! code asks whether there is AVX2; of what is newer valgrind tells the program nothing.

use std::io;
use std::path::Path;
use std::process::Command;

use super::scene::GROUP;
use super::{Run, SCENES, Which};

/// Groups counted, after those that warm up, at least.
const COUNTED: usize = 16;
/// Turns of each connection at least: a peer has its acknowledgement at every other segment.
const TURNS: usize = 2;

/// Instructions each time; `program` is `underpass-engine`. [`io::ErrorKind::NotFound`]: there is no valgrind.
pub fn instructions(program: &Path, which: Which, run: Run) -> io::Result<f64> {
    let Run { scene, connections, burst, verify } = run;
    let scene = SCENES.iter().position(|known| *known == scene).unwrap_or(0);
    let groups = COUNTED.max((TURNS * connections).div_ceil(GROUP));
    let mut command = Command::new("valgrind");
    // Copies of more than 2 KiB in steps of a register: of `rep movsb` valgrind counts each byte.
    command.env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1048576");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=*measured_region*").arg(program);
    command.args([
        scene.to_string(),
        which.name().to_owned(),
        connections.to_string(),
        groups.to_string(),
        burst.to_string(),
    ]);
    if !verify {
        command.arg("trust");
    }
    let output = command.output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let collected = err.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    let times = out.lines().find_map(|line| line.strip_suffix(" times")?.rsplit_once(' ')?.1.parse::<f64>().ok());
    match (collected, times) {
        (Some(collected), Some(times)) if output.status.success() && times > 0.0 => Ok(collected / times),
        _ => Err(io::Error::other(format!("{}: {err}", output.status))),
    }
}
