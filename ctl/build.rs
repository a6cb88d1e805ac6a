//! Compiles the BPF programs with clang; the objects are embedded in the command.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCES: [&str; 3] = ["steer", "inject", "scoreboard"];

fn main() {
    println!("cargo:rerun-if-env-changed=CLANG");
    let Some(out) = std::env::var_os("OUT_DIR") else { fail("OUT_DIR is not set: run this through cargo") };
    for name in SOURCES {
        let source = format!("bpf/{name}.bpf.c");
        println!("cargo:rerun-if-changed={source}");
        compile(&source, &PathBuf::from(&out).join(format!("{name}.bpf.o")));
    }
}

fn compile(source: &str, object: &Path) {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-c", source, "-o"]).arg(object);
    for dir in asm_headers() {
        command.arg("-idirafter").arg(dir);
    }
    match command.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => fail(&format!(
            "{clang} could not compile {source} (clang 12 or newer, the kernel's headers (linux-libc-dev) and libbpf's \
             (libbpf-dev) are needed):\n{}",
            String::from_utf8_lossy(&done.stderr)
        )),
        Err(error) => fail(&format!(
            "{clang}: {error}. Compiling the BPF programs needs clang (package clang), or set CLANG to its path"
        )),
    }
}

/// Debian and Ubuntu keep `asm/` under the architecture's triplet, which `-target bpf` does not search.
fn asm_headers() -> Vec<PathBuf> {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let dir = PathBuf::from(format!("/usr/include/{arch}-linux-gnu"));
    if dir.is_dir() { vec![dir] } else { Vec::new() }
}

fn fail(text: &str) -> ! {
    eprintln!("error: {text}");
    exit(1)
}
