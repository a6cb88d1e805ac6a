//! Files for web servers, and how to tell that they arrived.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names and sizes in bytes.
pub const DOCUMENTS: [(&str, usize); 4] = [("byte", 1), ("page", 4 << 10), ("large", 1 << 20), ("huge", 32 << 20)];

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = said.split_whitespace().next().filter(|word| word.len() == 64 && output.status.success());
    digest.unwrap_or_else(|| panic!("sha256sum {}: {output:?}", path.display())).to_owned()
}

/// Bytes that look random, the same for the same seed (SplitMix64).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let word = |at: u64| {
        let mut x = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    (0..).take_while(|at| at * 8 < len as u64).for_each(|at| bytes.extend(word(at + 1)));
    bytes.truncate(len);
    bytes
}

/// Makes a document root in `dir`, once.
pub fn documents(dir: &Path) -> PathBuf {
    let root = dir.join("documents");
    if !root.exists() {
        std::fs::create_dir(&root).unwrap();
        for (name, len) in DOCUMENTS {
            std::fs::write(root.join(name), noise(len as u64, len)).unwrap();
        }
    }
    root
}
