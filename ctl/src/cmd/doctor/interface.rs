//! Checks of network interfaces.

use std::fs;
use std::path::Path;

use serde::Serialize;
use underpass_ctl::net::link::{self, Link};
use underpass_ctl::net::netlink::{Netlink, Protocol};
use underpass_ctl::steer::Steer;

use super::super::failure::Failure;
use super::features::{Features, features};
use super::{Check, Status};

/// Largest MTU whose frames fit into a 4096-byte buffer behind 256 bytes of headroom, an Ethernet header and a VLAN tag.
const MAX_MTU: u32 = 4096 - 256 - 18;

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
    let links = Netlink::open(Protocol::Route, 0).and_then(|mut netlink| link::list(&mut netlink));
    let links = links.map_err(|error| Failure::of("cannot list the interfaces", error))?;
    let is_meant = |link: &&Link| only.map_or(!link.loopback, |name| link.name == name);
    let interfaces: Vec<Interface> = links.iter().filter(is_meant).map(one).collect();
    match only {
        Some(name) if interfaces.is_empty() => {
            Err(Failure::Usage(format!("there is no interface {name:?} in this network namespace (see ip link)")))
        }
        _ => Ok(interfaces),
    }
}

fn one(link: &Link) -> Interface {
    let features = features(link.ifindex);
    let checks = vec![kind(link), state(link), mtu(link), queues(link), mode(link, features), program(link)];
    let expected = match features {
        _ if !link.ethernet => "none",
        Some(features) if !features.native() => "generic",
        _ => "native",
    };
    let zero_copy = link.ethernet && features.is_some_and(Features::zero_copy);
    Interface { name: link.name.clone(), mode: expected, zero_copy, checks }
}

fn kind(link: &Link) -> Check {
    match (link.loopback, link.ethernet) {
        (true, _) => Check::fail("type", "loopback", "connections of the host to itself stay in the kernel"),
        (_, true) => Check::ok("type", "Ethernet"),
        (_, false) => Check::fail("type", "not Ethernet", "its connections stay in the kernel"),
    }
}

fn state(link: &Link) -> Check {
    match link.running {
        true => Check::ok("link", "up"),
        false => Check::fail("link", "down", format!("ip link set {} up; is the cable or the peer there?", link.name)),
    }
}

fn mtu(link: &Link) -> Check {
    match link.mtu <= MAX_MTU {
        true => Check::ok("mtu", link.mtu.to_string()),
        false => Check::fail(
            "mtu",
            link.mtu.to_string(),
            format!("a packet must fit into one buffer: ip link set {} mtu {MAX_MTU}, or less", link.name),
        ),
    }
}

fn queues(link: &Link) -> Check {
    match link.rx_queues {
        1 => Check::ok("queues", "1: one program at a time can be accelerated"),
        n => Check::ok("queues", format!("{n}: one program at a time takes those in use")),
    }
}

fn mode(link: &Link, features: Option<Features>) -> Check {
    let driver = driver(&link.name);
    match features {
        Some(f) if f.native() && f.zero_copy() => Check::ok("mode", format!("native XDP, zero-copy ({driver})")),
        Some(f) if f.native() => Check::ok("mode", format!("native XDP, with one copy ({driver})")),
        Some(_) => Check::warn(
            "mode",
            format!("generic XDP ({driver})"),
            "it works, at a smaller gain; switch off what merges packets: ethtool -K IFACE gro off lro off",
        ),
        None => Check::ok(
            "mode",
            format!("native XDP if the driver has it ({driver}; the kernel does not tell before 6.3)"),
        ),
    }
}

fn driver(name: &str) -> String {
    let link = fs::read_link(Path::new("/sys/class/net").join(name).join("device/driver")).ok();
    let driver = link.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    driver.unwrap_or_else(|| "a virtual device".to_owned())
}

fn program(link: &Link) -> Check {
    match link.xdp {
        None => Check::ok("XDP on it", "none: free"),
        Some(xdp) if is_ours(xdp.program_id) => {
            let mode = if xdp.native { "native" } else { "generic" };
            Check::ok("XDP on it", format!("ours, {mode} (id {})", xdp.program_id))
        }
        Some(xdp) if !nix::unistd::geteuid().is_root() => Check::warn(
            "XDP on it",
            format!("a program (id {}); only root is told whose", xdp.program_id),
            "sudo underpass doctor",
        ),
        Some(xdp) => Check::fail(
            "XDP on it",
            format!("somebody else's program (id {})", xdp.program_id),
            format!(
                "look: bpftool prog show id {}; if it is not needed: ip link set {} xdp off",
                xdp.program_id, link.name
            ),
        ),
    }
}

fn is_ours(id: u32) -> bool {
    Steer::adopt(id).is_ok_and(|steer| steer.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_examined_only_when_named_and_then_refused() {
        assert!(examine(None).unwrap().iter().all(|interface| interface.name != "lo"));
        let lo = examine(Some("lo")).unwrap();
        assert!(lo.len() == 1 && !lo[0].works());
        assert!(matches!(examine(Some("no-such-if")), Err(Failure::Usage(_))));
    }
}
