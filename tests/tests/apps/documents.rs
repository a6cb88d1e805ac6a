//! Files for web servers, and how to tell that they arrived.

use std::path::Path;
use std::process::Command;

use underpass_lab::Lab;

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = said.split_whitespace().next().filter(|word| word.len() == 64 && output.status.success());
    digest.unwrap_or_else(|| panic!("sha256sum {}: {output:?}", path.display())).to_owned()
}

/// A document root with files of several sizes.
pub fn documents(lab: &Lab) -> String {
    let root = lab.dir().join("documents");
    std::fs::create_dir_all(&root).unwrap();
    for (name, len) in [("empty", 0), ("small", 100), ("large", 3_000_000), ("huge", 24_000_000)] {
        let bytes: Vec<u8> = (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(root.join(name), bytes).unwrap();
    }
    root.display().to_string()
}
