//! How many instructions a scene takes: `underpass-engine` under valgrind's callgrind, which counts those of the measured region alone.
//!
//! The count is the same in every run, whatever else the machine does. It depends on the compiler, on libc, and on the processor as far as
//! code asks whether there is AVX2; of what is newer valgrind tells the program nothing.

use std::io;
use std::path::Path;
use std::process::Command;

use super::{SCENES, Scene, Which};

/// Groups counted, beside those that warm up.
const COUNTED: usize = 4;

/// Instructions each time; `program` is `underpass-engine`. [`io::ErrorKind::NotFound`]: there is no valgrind.
pub fn instructions(program: &Path, scene: Scene, which: Which, connections: usize, verify: bool) -> io::Result<f64> {
    let scene = SCENES.iter().position(|known| *known == scene).unwrap_or(0);
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=*measured_region*").arg(program);
    command.args([scene.to_string(), which.name().to_owned(), connections.to_string(), COUNTED.to_string()]);
    if !verify {
        command.arg("trust");
    }
    let output = command.output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let collected = err.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    let times = out.lines().find_map(|line| line.strip_prefix("all times: ")?.parse::<f64>().ok());
    match (collected, times) {
        (Some(collected), Some(times)) if output.status.success() && times > 0.0 => Ok(collected / times),
        _ => Err(io::Error::other(format!("{}: {err}", output.status))),
    }
}
