//! Checks of the host.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use underpass_stack::control::{Status as StatusQuestion, StatusReply};
use underpass_stack::xsk;

use super::super::client::{AskError, Client};
use super::super::run::find_library;
use super::Check;
use underpass_ctl::bpf::{Algorithm, Scoreboard};
use underpass_ctl::steer::{Injector, Steer};

/// The oldest that is promised. The youngest part that cannot be done without, SO_NETNS_COOKIE, came with 5.14.
const MIN_KERNEL: (u32, u32) = (5, 18);

/// Numbers of linux/capability.h.
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;

/// What the daemon has to have, and for what.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_NET_ADMIN", NET_ADMIN, "moving connections (TCP_REPAIR), attaching XDP"),
    ("CAP_NET_RAW", NET_RAW, "AF_XDP sockets"),
    ("CAP_BPF", BPF, "loading the XDP program"),
    ("CAP_SYS_ADMIN", SYS_ADMIN, "entering the network namespaces of programs"),
];

/// All checks. What only the daemon needs is not held against a user whose daemon runs.
pub fn checks(socket: &Path) -> Vec<Check> {
    let status = Client::connect(socket).and_then(|client| client.ask(&StatusQuestion { pad: 0 }));
    let mut checks = vec![kernel(), library(), daemon(&status)];
    match (effective(), status.is_ok()) {
        (Some(set), daemon) if !has(set, NET_ADMIN) => checks.push(unprivileged(daemon)),
        (set, _) => {
            checks.extend(capabilities(set));
            checks.extend([af_xdp(), bpf(), injection(), handover(), scoreboard(), tcp_repair(), memlock()]);
        }
    }
    checks
}

fn unprivileged(daemon_runs: bool) -> Check {
    match daemon_runs {
        true => Check::ok("privilege", "none, and none is needed: the daemon has it"),
        false => Check::fail(
            "privilege",
            "none, and no daemon that has it",
            "start the daemon; to check what it needs: sudo underpass doctor",
        ),
    }
}

fn kernel() -> Check {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (major, minor) = MIN_KERNEL;
    match version(release) {
        Some(found) if found >= MIN_KERNEL => Check::ok("kernel", format!("Linux {release}")),
        Some(_) => {
            Check::fail("kernel", format!("Linux {release}"), format!("Linux {major}.{minor} or newer is needed"))
        }
        None => Check::warn(
            "kernel",
            format!("{release:?}"),
            format!("make sure that it is Linux {major}.{minor} or newer"),
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn library() -> Check {
    match find_library() {
        Some(path) => Check::ok("library", path.display().to_string()),
        None => Check::fail(
            "library",
            "libunderpass.so not found",
            "put it beside the underpass command, into ../lib, or into /usr/lib/underpass",
        ),
    }
}

fn daemon(status: &Result<StatusReply, AskError>) -> Check {
    match status {
        Ok(s) => Check::ok(
            "daemon",
            format!(
                "pid {}: {} sessions, {} connections on lanes, {} interfaces; {} promoted, {} demoted, {} refused, {} reaped",
                s.pid, s.sessions, s.connections, s.interfaces, s.promoted, s.demoted, s.refused, s.reaped
            ),
        ),
        Err(AskError::NoDaemon(path)) => Check::warn(
            "daemon",
            format!("none listens on {}", path.display()),
            "privileged programs start one on demand; for others: systemctl enable --now underpass, or underpass daemon",
        ),
        Err(AskError::Denied(path)) => Check::fail(
            "daemon",
            format!("{} does not admit you", path.display()),
            "become root or join group underpass (adduser USER underpass, then log in again)",
        ),
        Err(error) => Check::fail(
            "daemon",
            error.to_string(),
            "restart it: systemctl restart underpass; is it of the same version?",
        ),
    }
}

/// CapEff of this process, proc_pid_status(5).
fn effective() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn has(set: u64, capability: u32) -> bool {
    set >> capability & 1 == 1
}

fn capabilities(set: Option<u64>) -> Vec<Check> {
    let Some(set) = set else {
        return vec![Check::warn("capabilities", "/proc/self/status does not tell", "mount /proc")];
    };
    let check = |&(name, bit, purpose): &(&'static str, u32, &str)| match has(set, bit) {
        true => Check::ok(name, "present"),
        false if bit == BPF && has(set, SYS_ADMIN) => Check::ok(name, "contained in CAP_SYS_ADMIN"),
        false => Check::fail(
            name,
            format!("missing ({purpose})"),
            "run the daemon as root, or in a container with this capability; programs themselves need none",
        ),
    };
    CAPABILITIES.iter().map(check).collect()
}

fn af_xdp() -> Check {
    match xsk::socket::open() {
        Ok(_) => Check::ok("AF_XDP", "sockets can be made"),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            Check::fail("AF_XDP", "the kernel has none", "use a kernel with CONFIG_XDP_SOCKETS=y")
        }
        Err(error) => {
            Check::fail("AF_XDP", error.to_string(), "CAP_NET_RAW is needed; is a seccomp filter in the way?")
        }
    }
}

fn bpf() -> Check {
    match Steer::load() {
        Ok(_) => Check::ok("XDP program", "loads and passes the verifier"),
        Err(error) => Check::fail(
            "XDP program",
            error.to_string(),
            "CAP_BPF is needed, and a kernel with CONFIG_BPF_SYSCALL; lockdown and seccomp may forbid bpf(2)",
        ),
    }
}

fn injection() -> Check {
    match Injector::load() {
        Ok(_) => Check::ok("injection", "the program for handing frames to the kernel loads"),
        Err(error) => Check::fail("injection", error.to_string(), "as for the XDP program"),
    }
}

fn handover() -> Check {
    match Algorithm::load() {
        Ok(_) => {
            Check::ok("handover", "the congestion control that gives windows back to the kernel can be registered")
        }
        Err(error) => Check::warn(
            "handover",
            format!("connections that leave a lane begin with the initial congestion window: {error}"),
            "a kernel with type information and BPF's compiler (CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_JIT) spares some round trips",
        ),
    }
}

fn scoreboard() -> Check {
    match Scoreboard::load() {
        Ok(_) => Check::ok("scoreboard", "what became of what a kernel socket has sent can be read"),
        Err(error) => Check::warn(
            "scoreboard",
            format!("connections that go to a lane amid a recovery send again what has arrived: {error}"),
            "a kernel with type information (CONFIG_DEBUG_INFO_BTF) that lets BPF programs read its memory (no lockdown) knows it",
        ),
    }
}

fn tcp_repair() -> Check {
    let attempt = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|fd| setsockopt(&fd, sockopt::TcpRepair, &1));
    match attempt {
        Ok(()) => Check::ok("TCP_REPAIR", "can be switched on"),
        Err(error) => Check::fail(
            "TCP_REPAIR",
            error.to_string(),
            "CAP_NET_ADMIN in the user namespace that owns the network namespace, and CONFIG_CHECKPOINT_RESTORE=y, are needed",
        ),
    }
}

fn memlock() -> Check {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok(_) if nix::unistd::geteuid().is_root() => Check::ok("locked memory", "not limited for root"),
        Ok((soft, _)) if soft >= 64 << 20 => Check::ok("locked memory", "64 MiB or more"),
        Ok((soft, _)) => Check::warn(
            "locked memory",
            format!("limited to {} KiB", soft >> 10),
            "give the daemon LimitMEMLOCK=infinity; each interface of each program takes 16 MiB by default",
        ),
        Err(error) => Check::warn("locked memory", error.to_string(), "check ulimit -l"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v445"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert!(version("5.4.0") < Some(MIN_KERNEL) && version("5.18-rc1") == Some(MIN_KERNEL));
        assert_eq!(version("linux"), None);
    }
}
