//! One accelerated interface: its XDP program and who uses which XSKMAP slots.

use std::io;
use std::time::{Duration, Instant};

use underpass_stack::lane::Reason;

use super::claim::Claim;
use super::reply::Refusal;
use crate::net::link::{self, Link};
use crate::net::netlink::Netlink;
use crate::steer::Steer;
use crate::steer::program::MAX_XSKS;

/// Packets that came in before the program was attached have reached their sockets after this.
const ARRIVED: Duration = Duration::from_micros(500);

/// An interface with our program on it.
pub struct Interface {
    /// The program and its maps.
    pub steer: Steer,
    /// Attached in the driver, as opposed to generic XDP.
    pub native: bool,
    /// Attachments of living sessions.
    pub users: u32,
    /// Since when no flow is steered, as far as the daemon has noticed.
    pub idle_since: Option<Instant>,
    rest: Rest,
    ifindex: u32,
    slots: Slots,
    _claim: Claim,
}

/// May the program leave the interface while no flow is steered?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It stays: attaching it may restart a network card, and costs nothing while it lies there.
    Never,
    /// It is on the interface now. On veth it keeps the peer from sending more than one segment at a time (GSO), which all other
    /// traffic pays for.
    Awake,
    /// It is not on the interface now.
    Asleep,
}

impl Interface {
    /// Attaches a fresh program, in the driver if that can be, else in generic mode; or takes over what an earlier daemon left.
    /// The calling thread is inside the interface's namespace.
    pub fn open(netlink: &mut Netlink, link: &Link) -> Result<Self, Refusal> {
        let claim = Claim::take(link.ifindex)?.ok_or(Reason::ForeignXdp)?;
        match link.xdp {
            Some(attached) => {
                let steer = Steer::adopt(attached.program_id)?.ok_or(Reason::ForeignXdp)?;
                tracing::info!("{}: XDP program of an earlier daemon taken over", link.name);
                Ok(Self::new(claim, link, steer, attached.native))
            }
            None => {
                let steer = Steer::load()?;
                let native = attach(netlink, link, &steer)?;
                tracing::info!("{}: XDP program attached ({})", link.name, if native { "native" } else { "generic" });
                Ok(Self::new(claim, link, steer, native))
            }
        }
    }

    fn new(claim: Claim, link: &Link, steer: Steer, native: bool) -> Self {
        let rest = if link.kind == "veth" { Rest::Awake } else { Rest::Never };
        let (ifindex, slots) = (link.ifindex, Slots::default());
        Self { steer, native, users: 0, idle_since: None, rest, ifindex, slots, _claim: claim }
    }

    /// Is the program on the interface, and may it leave?
    pub fn can_rest(&self) -> bool {
        self.rest == Rest::Awake
    }

    /// Takes the program off until a flow is to be steered. Its maps and the AF_XDP sockets stay.
    pub fn rest(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        self.idle_since = None;
        self.detach(netlink)?;
        self.rest = Rest::Asleep;
        Ok(())
    }

    /// Sees to it that the program is on the interface.
    pub fn wake(&mut self, netlink: &mut Netlink) -> Result<(), Refusal> {
        self.idle_since = None;
        if self.rest != Rest::Asleep {
            return Ok(());
        }
        link::attach_xdp(netlink, self.ifindex, self.steer.program(), self.native).map_err(|error| {
            let reason = match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => Reason::ForeignXdp,
                Some(libc::ERANGE | libc::EOPNOTSUPP | libc::EINVAL) => Reason::Mtu,
                _ => Reason::Failed,
            };
            Refusal { reason, errno: error.raw_os_error().unwrap_or(0) }
        })?;
        self.rest = Rest::Awake;
        // What came in a moment ago goes to the kernel by a way that no program sees.
        std::thread::sleep(ARRIVED);
        Ok(())
    }

    /// Takes `count` slots in a row.
    pub fn take_slots(&mut self, count: u32) -> Option<u32> {
        self.slots.take(count)
    }

    /// Takes these very slots. False if one of them is in use or does not exist.
    pub fn take_slots_at(&mut self, base: u32, count: u32) -> bool {
        self.slots.take_at(base, count)
    }

    /// Gives slots back.
    pub fn free_slots(&mut self, base: u32, count: u32) {
        self.slots.free(base, count);
    }

    /// Removes the program from the interface.
    pub fn detach(&self, netlink: &mut Netlink) -> io::Result<()> {
        if self.rest == Rest::Asleep {
            return Ok(());
        }
        link::detach_xdp(netlink, self.ifindex, self.steer.program(), self.native)
    }
}

fn attach(netlink: &mut Netlink, link: &Link, steer: &Steer) -> Result<bool, Refusal> {
    let native = link::attach_xdp(netlink, link.ifindex, steer.program(), true);
    let Err(error) = native else { return Ok(true) };
    tracing::info!("{}: no native XDP ({error})", link.name);
    // Hardware stops merging segments when it carries generic XDP. Over a virtual interface super-packets of up to 64 KiB go on
    // coming, and none of them fits into a frame. On veth what forbids native XDP is the MTU.
    match link.kind.as_str() {
        "" => {}
        "veth" => return Err(Reason::Mtu.into()),
        _ => return Err(Reason::Unsupported.into()),
    }
    match link::attach_xdp(netlink, link.ifindex, steer.program(), false) {
        Ok(()) => Ok(false),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
            Err(Reason::ForeignXdp.into())
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(Reason::Unsupported.into()),
        Err(error) => Err(error.into()),
    }
}

/// Which slots of an XSKMAP are in use, as ranges in order.
#[derive(Debug, Default)]
struct Slots {
    taken: Vec<(u32, u32)>,
}

impl Slots {
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut base = 0u32;
        for &(start, end) in &self.taken {
            if start.saturating_sub(base) >= count {
                break;
            }
            base = end;
        }
        self.take_at(base, count).then_some(base)
    }

    fn take_at(&mut self, base: u32, count: u32) -> bool {
        let Some(end) = base.checked_add(count) else { return false };
        let free = self.taken.iter().all(|&(s, e)| end <= s || e <= base);
        if count == 0 || end > MAX_XSKS || !free {
            return false;
        }
        self.taken.push((base, end));
        self.taken.sort_unstable();
        true
    }

    fn free(&mut self, base: u32, count: u32) {
        self.taken.retain(|&range| range != (base, base.saturating_add(count)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_once_and_gaps_are_used_again() {
        let mut slots = Slots::default();
        assert_eq!((slots.take(4), slots.take(2), slots.take(4)), (Some(0), Some(4), Some(6)));
        slots.free(4, 2);
        assert_eq!((slots.take(3), slots.take(2)), (Some(10), Some(4)));
        assert!(!slots.take_at(12, 2));
        assert!(slots.take_at(13, 2));
        assert!(!slots.take_at(MAX_XSKS - 1, 2));
        assert!(!slots.take_at(u32::MAX, 2));
        assert_eq!(slots.take(MAX_XSKS), None);
        assert!(!slots.take_at(50, 0));
    }
}
