//! Is the library where it should be, and only there?

use std::process::Command;

use underpass_lab::{Artifacts, LabError, Profile};

/// Is the library in a program or not, as it should be? The loader goes on without one that it cannot load, and what the library leaves
/// in the kernel looks the same: such rows would be the kernel's under another name. And a library in everybody's
/// LD_PRELOAD would be measured as the kernel.
pub fn check(mut cat: Command, wanted: bool) -> Result<(), LabError> {
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
pub fn settings() -> String {
    let inherited = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let ours = name == "UNDERPASS" || name.starts_with("UNDERPASS_") || name.starts_with("EF_");
        ours.then(|| format!(" {name}={value}"))
    });
    let inherited: String = inherited.collect();
    if inherited.is_empty() { inherited } else { format!("\nenvironment:{inherited}") }
}

/// Where the library is, or why there is none.
pub fn library() -> String {
    Artifacts::find(Profile::Release)
        .map_or_else(|error| error.to_string(), |found| found.library.display().to_string())
}
