//! The `underpass` command: runs programs preloaded, shows what they do, and holds the privileged half (the daemon).

mod cmd;
mod inspect;

fn main() -> std::process::ExitCode {
    cmd::main()
}
