//! A router between the two hosts, whose links can be narrower than the hosts believe.

use crate::error::LabError;
use crate::lab::{Host, Lab, Side};
use crate::namespace::Namespace;

/// A namespace that forwards between the hosts, each of which has a link of its own to it.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
    number: u32,
}

impl Router {
    pub(crate) fn new(number: u32) -> Result<Self, LabError> {
        Ok(Self { namespace: Namespace::create(number, "rtr")?, number })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its interface towards a host.
    fn interface(&self, side: Side) -> String {
        match side {
            Side::Server => format!("up-rsv{}", self.number),
            Side::Client => format!("up-rcl{}", self.number),
        }
    }

    /// Lays the wires, and the routes over them.
    pub(crate) fn join(&self, lab: &Lab) -> Result<(), LabError> {
        self.namespace.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
        for side in [Side::Server, Side::Client] {
            let (host, ours) = (lab.host(side), self.interface(side));
            lab.cable((&host.interface, &host.namespace), (&ours, &self.namespace))?;
            let gateway = gateway(host);
            self.namespace.ip(&["addr", "add", &format!("{gateway}/32"), "dev", &ours])?;
            self.namespace.ip(&["link", "set", &ours, "up"])?;
            host.namespace.ip(&["addr", "add", &format!("{}/32", host.v4), "dev", &host.interface])?;
            host.namespace.ip(&["link", "set", &host.interface, "up"])?;
            host.namespace.ip(&["route", "add", &gateway, "dev", &host.interface])?;
            host.namespace.ip(&["route", "add", "default", "via", &gateway])?;
            self.namespace.ip(&["route", "add", &host.v4.to_string(), "dev", &ours])?;
        }
        Ok(())
    }

    /// From now on, packets to a host of more than `mtu` bytes do not fit.
    pub fn narrow(&self, lab: &Lab, to: Side, mtu: u32) -> Result<(), LabError> {
        let (address, interface) = (lab.host(to).v4.to_string(), self.interface(to));
        let route = ["route", "replace", &address, "dev", &interface, "mtu", "lock", &mtu.to_string()];
        self.namespace.ip(&route).map(drop)
    }

    /// Whether it says so to who sent them.
    pub fn speak(&self, speaks: bool) -> Result<(), LabError> {
        let rule = ["rule", if speaks { "del" } else { "add" }, "iif", "lo", "ipproto", "icmp", "blackhole"];
        self.namespace.ip(&rule).map(drop)
    }
}

/// The router's address on a host's link.
fn gateway(host: &Host) -> String {
    let [a, b, c, _] = host.v4.octets();
    format!("{a}.{b}.{c}.254")
}
