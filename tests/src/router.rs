//! A router between the two hosts, whose links can be narrower than the hosts believe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
        self.namespace.run("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        for side in [Side::Server, Side::Client] {
            let (host, ours) = (lab.host(side), self.interface(side));
            lab.cable((&host.interface, &host.namespace), (&ours, &self.namespace))?;
            self.namespace.ip(&["link", "set", &ours, "up"])?;
            host.namespace.ip(&["link", "set", &host.interface, "up"])?;
            for (gateway, address) in
                [(gateway(host).into(), host.v4.into()), (gateway_v6(host).into(), host.v6.into())]
            {
                self.lead(host, &ours, gateway, address)?;
            }
        }
        Ok(())
    }

    /// Gives both ends of a host's link their addresses of one IP version, and the routes to each other and through us.
    fn lead(&self, host: &Host, ours: &str, gateway: IpAddr, address: IpAddr) -> Result<(), LabError> {
        let alone = if address.is_ipv6() { 128 } else { 32 };
        let (gateway, address) = (gateway.to_string(), address.to_string());
        for (namespace, interface, own, other) in [
            (&self.namespace, ours, &gateway, &address),
            (&host.namespace, host.interface.as_str(), &address, &gateway),
        ] {
            namespace.ip(&["addr", "add", &format!("{own}/{alone}"), "dev", interface, "nodad"])?;
            namespace.ip(&["route", "add", other, "dev", interface])?;
        }
        host.namespace.ip(&["route", "add", "default", "via", &gateway]).map(drop)
    }

    /// From now on, packets to a host of more than `mtu` bytes do not fit.
    pub fn narrow(&self, lab: &Lab, to: Side, mtu: u32) -> Result<(), LabError> {
        let (host, interface) = (lab.host(to), self.interface(to));
        for address in [host.v4.to_string(), host.v6.to_string()] {
            let route = ["route", "replace", &address, "dev", &interface, "mtu", "lock", &mtu.to_string()];
            self.namespace.ip(&route)?;
        }
        Ok(())
    }

    /// Whether it says so to who sent them.
    pub fn speak(&self, speaks: bool) -> Result<(), LabError> {
        let rule = ["rule", if speaks { "del" } else { "add" }, "iif", "lo", "ipproto", "icmp", "blackhole"];
        self.namespace.ip(&rule).map(drop)
    }
}

/// The router's address on a host's link.
fn gateway(host: &Host) -> Ipv4Addr {
    let [a, b, c, _] = host.v4.octets();
    Ipv4Addr::new(a, b, c, 254)
}

fn gateway_v6(host: &Host) -> Ipv6Addr {
    let [a, b, c, d, e, f, g, _] = host.v6.segments();
    Ipv6Addr::new(a, b, c, d, e, f, g, 254)
}
