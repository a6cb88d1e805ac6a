//! The AF_XDP queues of an interface, gained and given up.

use std::os::fd::{AsRawFd, RawFd};

use underpass_stack::arena::PortEntry;
use underpass_stack::control::{Attach, Attached, Detach, Done, NeedPort};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;
use underpass_stack::stack::PortConfig;
use underpass_stack::xsk::RingSizes;

use crate::session::Answer;
use crate::{engine, helper, log, options, session, sys, wait};

/// Bytes in front of a received packet (XDP_PACKET_HEADROOM), plus Ethernet and one VLAN tag.
const FRAME_OVERHEAD: u32 = 256 + 18;

/// Lets go of queues that an earlier daemon gave us, if nothing is on their lane.
pub(super) fn drop_port(netns: u64, ifindex: u32) {
    if engine::get().is_some_and(|mut engine| engine.drop_port(netns, ifindex)) {
        wait::wake_all();
        helper::wake();
    }
}

/// Makes the AF_XDP queues of an interface ours.
pub(super) fn attach(need: &NeedPort, socket_fd: RawFd) -> Result<(), Reason> {
    let name = control_name(&need.name);
    let allowed = &options::get().interfaces;
    if !allowed.is_empty() && !allowed.contains(&name) {
        return Err(Reason::InterfaceExcluded);
    }
    let frame_size = [2048u32, 4096].into_iter().find(|size| need.mtu + FRAME_OVERHEAD <= *size).ok_or(Reason::Mtu)?;
    drop_port(cookie(need), need.ifindex);
    let (ring, frame_count) = (options::get().ring, options::get().frames);
    let port = engine::get().and_then(|e| e.stack.free_port()).ok_or(Reason::StackFull)?;
    let umem = Region::create(c"underpass-umem", frame_size as usize * frame_count as usize)
        .map_err(|_| Reason::Failed)?
        .renumber(sys::out_of_the_way);
    umem.seal().map_err(|_| Reason::Failed)?;
    let umem_fd = umem.fd().ok_or(Reason::Failed)?.as_raw_fd();
    let request = Attach { ifindex: need.ifindex, frame_size, frame_count, rx_ring: ring, tx_ring: ring, port };
    let answer = session::ask(&request, &[umem_fd, socket_fd])?;
    let attached = answer.expect::<Attached>()?;
    let taken = take(need, &request, umem, answer, &attached);
    if taken.is_err() {
        // Or the daemon would go on promoting to it.
        session::ask(&Detach { port }, &[])?.expect::<Done>()?;
    }
    taken
}

/// Makes what the daemon has attached the stack's.
fn take(need: &NeedPort, asked: &Attach, umem: Region, answer: Answer, attached: &Attached) -> Result<(), Reason> {
    let name = control_name(&need.name);
    if answer.fds.len() != attached.queues as usize {
        // Too few descriptors are left for this process. What arrives on a queue without a socket would be lost.
        log::error(format_args!("AF_XDP queues of {name}: {} of {} came", answer.fds.len(), attached.queues));
        return Err(Reason::Failed);
    }
    let sockets = answer.fds.into_iter().map(sys::out_of_the_way).collect();
    let config = PortConfig {
        ifindex: need.ifindex,
        mtu: need.mtu,
        frame_size: asked.frame_size,
        frame_count: asked.frame_count,
        rings: RingSizes { fill: asked.rx_ring, completion: asked.tx_ring, rx: asked.rx_ring, tx: asked.tx_ring },
        xsk_base: attached.xsk_base,
        netns: cookie(need),
    };
    let entry = PortEntry {
        ifindex: need.ifindex,
        queues: attached.queues,
        native: attached.native,
        zero_copy: attached.zero_copy,
        name: need.name,
    };
    let mut engine = engine::get().ok_or(Reason::Failed)?;
    engine.stack.attach(asked.port, config, umem, sockets, entry).map_err(|error| {
        log::error(format_args!("AF_XDP queues of {name}: {error}"));
        Reason::Failed
    })?;
    engine.note_xsk_fds();
    Ok(())
}

/// The namespace's.
fn cookie(need: &NeedPort) -> u64 {
    u64::from(need.netns_high) << 32 | u64::from(need.netns_low)
}

fn control_name(padded: &[u8; 16]) -> String {
    let len = padded.iter().position(|&b| b == 0).unwrap_or(padded.len());
    String::from_utf8_lossy(&padded[..len]).into_owned()
}
