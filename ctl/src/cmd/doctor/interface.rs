//! Checks of network interfaces.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::failure::Failure;
use super::netlink::{self, Features};
use super::{Check, Status};
use underpass_ctl::steer::Steer;

/// ARPHRD_ETHER and ARPHRD_LOOPBACK, linux/if_arp.h.
const ETHERNET: u32 = 1;
const LOOPBACK: u32 = 772;
/// Largest MTU whose frames fit into a 4096-byte buffer behind 256 bytes of headroom and an Ethernet header.
const MAX_MTU: u32 = 4096 - 256 - 14;

/// One interface and what was found.
#[derive(Debug, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `generic`, or `none`: how the XDP program is expected to run.
    pub mode: &'static str,
    /// Its driver says that it can do without copies.
    pub zero_copy: bool,
    /// The checks.
    pub(super) checks: Vec<Check>,
}

impl Interface {
    /// Can connections of this interface be accelerated?
    pub fn works(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Fail)
    }
}

/// Examines one interface, or all but loopback.
pub fn examine(only: Option<&str>) -> Result<Vec<Interface>, Failure> {
    let mut names: Vec<String> = match only {
        Some(name) => vec![name.to_owned()],
        None => {
            let entries = fs::read_dir("/sys/class/net")?.flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        }
    };
    names.sort();
    let mut interfaces = Vec::new();
    for name in names {
        let Ok(index) = nix::net::if_::if_nametoindex(name.as_str()) else {
            // Gone meanwhile, or a file that is no interface (bonding_masters).
            match only {
                Some(_) => return Err(Failure::Usage(format!("there is no interface {name:?} (see ip link)"))),
                None => continue,
            }
        };
        let device = Device { directory: Path::new("/sys/class/net").join(&name), name, index };
        if only.is_some() || device.number("type") != Some(LOOPBACK) {
            interfaces.push(device.examine());
        }
    }
    Ok(interfaces)
}

struct Device {
    name: String,
    index: u32,
    directory: PathBuf,
}

impl Device {
    fn examine(self) -> Interface {
        let features = netlink::features(self.index);
        let kind = self.kind();
        let usable = kind.status == Status::Ok;
        let checks = vec![kind, self.link(), self.mtu(), self.queues(), self.driver(features), self.program()];
        let mode = match features {
            _ if !usable => "none",
            Some(features) if !features.native() => "generic",
            _ => "native",
        };
        let zero_copy = usable && features.is_some_and(Features::zero_copy);
        Interface { name: self.name, mode, zero_copy, checks }
    }

    fn text(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.directory.join(file)).ok()?.trim().to_owned())
    }

    fn number(&self, file: &str) -> Option<u32> {
        self.text(file)?.parse().ok()
    }

    fn kind(&self) -> Check {
        match self.number("type") {
            Some(ETHERNET) => Check::ok("type", "Ethernet"),
            Some(LOOPBACK) => Check::fail(
                "type",
                "loopback",
                "connections of a host to itself need no network; they stay in the kernel",
            ),
            other => Check::fail(
                "type",
                format!("not Ethernet (ARPHRD {})", other.map_or("unknown".to_owned(), |n| n.to_string())),
                "its connections stay in the kernel",
            ),
        }
    }

    fn link(&self) -> Check {
        match self.text("operstate").as_deref() {
            Some("up") => Check::ok("link", "up"),
            // Drivers without carrier detection.
            Some("unknown") => Check::ok("link", "up (the driver does not tell)"),
            other => {
                let state = other.unwrap_or("unknown").to_owned();
                Check::fail("link", state, format!("ip link set {} up; is the cable or the peer there?", self.name))
            }
        }
    }

    fn mtu(&self) -> Check {
        match self.number("mtu") {
            Some(mtu) if mtu <= MAX_MTU => Check::ok("mtu", mtu.to_string()),
            Some(mtu) => Check::fail(
                "mtu",
                mtu.to_string(),
                format!("packets must fit into one buffer: ip link set {} mtu {MAX_MTU} or less", self.name),
            ),
            None => Check::fail("mtu", "unknown", "is /sys mounted?"),
        }
    }

    fn queues(&self) -> Check {
        let entries = fs::read_dir(self.directory.join("queues")).into_iter().flatten().flatten();
        let receive = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count();
        match receive {
            0 => Check::warn("queues", "unknown", "is /sys mounted?"),
            1 => Check::ok("queues", "1: one program at a time can be accelerated"),
            n => Check::ok("queues", format!("{n}: one program at a time takes them all")),
        }
    }

    fn driver(&self, features: Option<Features>) -> Check {
        let link = fs::read_link(self.directory.join("device/driver")).ok();
        let driver = link.as_deref().and_then(Path::file_name).map_or("virtual".into(), |name| name.to_string_lossy());
        match features {
            Some(f) if f.native() && f.zero_copy() => Check::ok("mode", format!("native XDP, zero-copy ({driver})")),
            Some(f) if f.native() => Check::ok("mode", format!("native XDP, with one copy ({driver})")),
            Some(_) => Check::warn(
                "mode",
                format!("generic XDP ({driver})"),
                "it works, but the kernel does most of its work before we see a packet; offloads that merge packets (GRO, LRO) must be off",
            ),
            None => Check::ok(
                "mode",
                format!("native XDP if the driver has it ({driver}; the kernel does not tell before 6.3)"),
            ),
        }
    }

    fn program(&self) -> Check {
        match netlink::xdp_program(self.index) {
            None => Check::ok("XDP program", "none attached: free"),
            Some(id) if is_ours(id) => Check::ok("XDP program", format!("ours (id {id})")),
            Some(id) => Check::fail(
                "XDP program",
                format!("somebody else's (id {id})"),
                format!(
                    "look with bpftool prog show id {id}; detach it with ip link set {} xdp off if it is not needed",
                    self.name
                ),
            ),
        }
    }
}

/// Only a privileged user can tell; to others a foreign program and ours look alike.
fn is_ours(id: u32) -> bool {
    Steer::adopt(id).is_ok_and(|steer| steer.is_some())
}
