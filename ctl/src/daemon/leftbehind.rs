//! What a daemon that was killed has left: programs on interfaces, flows in their maps.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::interface::Interface;
use super::namespace::cookie_of;
use super::state::Daemon;
use crate::net::link;
use crate::net::netlink::{Netlink, Protocol};
use crate::net::netns::Netns;

impl Daemon {
    /// Looks for programs of an earlier daemon in every namespace that a process or a name keeps. If there are any, their clients
    /// get time to come back.
    pub fn find_left_behind(&mut self) {
        let mut found = 0;
        for path in namespaces() {
            found += self.adopt_namespace(&path).unwrap_or(0);
        }
        if found > 0 {
            tracing::info!("{found} interfaces of an earlier daemon taken over");
            self.begin_grace();
        }
    }

    fn adopt_namespace(&mut self, path: &Path) -> std::io::Result<u32> {
        let netns = Netns::open(path)?;
        let (probe, left) = {
            let _inside = netns.enter(&self.home)?;
            (probe_socket()?, left_behind(&mut Netlink::open(Protocol::Route, 0)?)?)
        };
        if left.is_empty() {
            return Ok(0);
        }
        let cookie = cookie_of(probe.as_fd())?;
        if !self.namespaces.contains_key(&cookie) {
            self.open_namespace(cookie, netns)?;
        }
        let found = left.len() as u32;
        if let Some(namespace) = self.namespaces.get_mut(&cookie) {
            namespace.interfaces.extend(left);
        }
        Ok(found)
    }

    /// Ends the grace time: flows whose owners did not come back go to the kernel, unused programs are removed.
    pub fn end_grace(&mut self) {
        self.grace = None;
        let owned: HashSet<_> =
            self.sessions.values().flat_map(|s| s.conns.values().map(|conn| (conn.netns, conn.flow))).collect();
        for (cookie, namespace) in &mut self.namespaces {
            for interface in namespace.interfaces.values_mut() {
                let orphans = interface.steer.flows().into_iter().filter(|flow| !owned.contains(&(*cookie, *flow)));
                for flow in orphans.collect::<Vec<_>>() {
                    tracing::info!("{flow:?}: its owner did not come back");
                    interface.steer.release(&flow);
                }
            }
        }
        self.tidy();
    }
}

/// The interfaces of the calling thread's namespace that carry our program but belong to no living daemon.
fn left_behind(netlink: &mut Netlink) -> std::io::Result<Vec<(u32, Interface)>> {
    let links = link::list(netlink)?;
    let with_program = links.iter().filter(|link| link.xdp.is_some());
    Ok(with_program.filter_map(|link| Some((link.ifindex, Interface::open(netlink, link).ok()?))).collect())
}

/// One path to each namespace of this machine.
fn namespaces() -> Vec<PathBuf> {
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = entries("/run/netns");
    let of_processes = entries("/proc").map(|process| process.join("ns/net"));
    let mut seen = HashSet::new();
    named
        .chain(of_processes)
        .filter(|path| fs::metadata(path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino()))))
        .collect()
}

fn probe_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}
