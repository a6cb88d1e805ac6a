//! AF_XDP sockets on the queues of an interface.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use underpass_stack::arena::MAX_PORTS;
use underpass_stack::control::{Attach, Attached, Detach, MAX_FDS};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;
use underpass_stack::xsk::RingSizes;
use underpass_stack::xsk::socket::{self, BindMode};

use super::interface::Interface;
use super::path::fits;
use super::reply::{Answer, Refusal, Reply};
use super::session::Port;
use super::settings::Settings;
use super::state::Daemon;
use super::wire::is_safe_to_map;
use crate::net::link::Link;
use crate::net::netns::Inside;
use crate::net::sys::rx_channels;

/// Frames of a UMEM at most: 4 GiB of 4096-byte frames, so that every address fits a [`underpass_stack::control::FrameRef`].
const MAX_FRAMES: u32 = 1 << 20;
/// How long after the closing of an AF_XDP socket its queue may still count as busy.
const RELEASE: Duration = Duration::from_millis(200);
/// Entries of a ring at most.
const MAX_RING: u32 = 1 << 16;

impl Daemon {
    /// Answers [`Attach`].
    pub fn attach(&mut self, session: u32, ask: &Attach, fds: Vec<OwnedFd>) -> Answer {
        let [umem, in_namespace] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Refusal::from(Reason::ProtocolError))?;
        let (umem, rings) = self.check_attach(session, ask, umem)?;
        let netns = self.namespace_of(in_namespace.as_fd())?;
        let Self { namespaces, home, settings, sessions, closed_at, .. } = self;
        let namespace = namespaces.get_mut(&netns).ok_or(Reason::Failed)?;
        let session = sessions.get_mut(&session).ok_or(Reason::ProtocolError)?;
        if session.port_on(netns, ask.ifindex).is_some() {
            return Err(Reason::ProtocolError.into());
        }
        let link = namespace.link(ask.ifindex)?;
        admit(settings, &link, ask.frame_size)?;
        let channels = rx_channels(in_namespace.as_fd(), &link.name);
        if channels.is_some_and(has_too_many_queues) {
            return Err(Reason::Unsupported.into());
        }
        let wanted = channels.unwrap_or(link.rx_queues).min(MAX_FDS as u32);
        // The kernel lets go of a closed socket's queue a little later than of the socket. Who may have closed one just now: a session of
        // ours, or a client that lets go of what an earlier daemon gave it.
        let free = namespace.interface(&link, home)?.users == 0;
        let closed = closed_at.is_some_and(|at| at.elapsed() < RELEASE);
        let patience = if free || closed { RELEASE } else { Duration::ZERO };
        let opened = open_patiently(&namespace.enter(home)?, patience, || open_queues(ask, wanted, &umem, rings));
        let interface = namespace.interface(&link, home)?;
        let entered = opened.and_then(|(queues, zero_copy)| {
            if has_too_many_queues(queues.len() as u32) {
                return Err(Reason::Unsupported.into());
            }
            let duplicates = queues.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
            let base = enter_slots(interface, &queues)?;
            Ok((queues, duplicates, zero_copy, base))
        });
        let (queues, duplicates, zero_copy, xsk_base) = match entered {
            Ok(entered) => entered,
            Err(refusal) => {
                self.tidy();
                return Err(refusal);
            }
        };
        interface.users += 1;
        let native = interface.native;
        let count = queues.len() as u32;
        tracing::info!("session {}: {} AF_XDP queues on {}", session.id, count, link.name);
        let port = Port { netns, ifindex: ask.ifindex, xsk_base, frame_size: ask.frame_size, rings, queues, umem };
        session.ports.insert(ask.port, port);
        let attached = Attached {
            port: ask.port,
            queues: count,
            xsk_base,
            native: u32::from(native),
            zero_copy: u32::from(zero_copy),
        };
        Ok(Reply::with(&attached, duplicates))
    }

    /// Answers [`Detach`].
    pub fn detach(&mut self, session: u32, ask: &Detach) -> Answer {
        let known = self.session(session)?;
        if !known.ports.contains_key(&ask.port) || known.conns.values().any(|conn| conn.port == ask.port) {
            return Err(Reason::ProtocolError.into());
        }
        self.drop_port(session, ask.port);
        self.tidy();
        Ok(Reply::done(1))
    }

    /// Checks what a client says of an attachment, and maps its frames.
    pub fn check_attach(&mut self, session: u32, ask: &Attach, umem: OwnedFd) -> Result<(Region, RingSizes), Refusal> {
        let known = self.session(session)?;
        let rings = RingSizes { fill: ask.rx_ring, completion: ask.tx_ring, rx: ask.rx_ring, tx: ask.tx_ring };
        let sized = matches!(ask.frame_size, 2048 | 4096) && (1..=MAX_FRAMES).contains(&ask.frame_count);
        let numbered = (ask.port as usize) < MAX_PORTS && !known.ports.contains_key(&ask.port);
        if known.arena.is_none() || !sized || !numbered || !rings.is_valid() || rings.rx.max(rings.tx) > MAX_RING {
            return Err(Reason::ProtocolError.into());
        }
        if !is_safe_to_map(umem.as_fd()) {
            return Err(Reason::ProtocolError.into());
        }
        let umem = Region::open_owner(umem)?;
        if umem.len() as u64 != u64::from(ask.frame_size) * u64::from(ask.frame_count) {
            return Err(Reason::ProtocolError.into());
        }
        Ok((umem, rings))
    }
}

/// May programs have queues of this interface?
pub fn admit(settings: &Settings, link: &Link, frame_size: u32) -> Result<(), Refusal> {
    if !settings.admits(&link.name) {
        return Err(Reason::InterfaceExcluded.into());
    }
    if !link.ethernet || link.loopback {
        return Err(Reason::NotEthernet.into());
    }
    if !fits(link.mtu, frame_size) {
        return Err(Reason::Mtu.into());
    }
    Ok(())
}

/// Sockets and UMEM have to fit into one message, and a queue without a socket would lose what arrives on it.
fn has_too_many_queues(count: u32) -> bool {
    let too_many = count as usize >= MAX_FDS;
    if too_many {
        tracing::warn!("{count} receive queues, at most {} can be served (see ethtool -L)", MAX_FDS - 1);
    }
    too_many
}

/// Puts the sockets into free slots of the XSKMAP; returns the first.
fn enter_slots(interface: &mut Interface, queues: &[OwnedFd]) -> Result<u32, Refusal> {
    let base = interface.take_slots(queues.len() as u32).ok_or(Reason::NoFreeQueue)?;
    fill_slots(interface, base, queues)?;
    Ok(base)
}

/// Puts the sockets into these very slots of the XSKMAP.
pub fn enter_slots_at(interface: &mut Interface, base: u32, queues: &[OwnedFd]) -> Result<(), Refusal> {
    if !interface.take_slots_at(base, queues.len() as u32) {
        return Err(Reason::NoFreeQueue.into());
    }
    fill_slots(interface, base, queues)
}

/// Puts the sockets into slots that were taken for them; gives these back if that fails.
fn fill_slots(interface: &mut Interface, base: u32, queues: &[OwnedFd]) -> Result<(), Refusal> {
    for (slot, queue) in (base..).zip(queues) {
        if let Err(error) = interface.steer.set_xsk(slot, queue.as_fd()) {
            interface.free_slots(base, queues.len() as u32);
            return Err(error.into());
        }
    }
    Ok(())
}

/// Tries again as long as the queues are busy and patience lasts.
fn open_patiently(
    _inside: &Inside<'_>,
    patience: Duration,
    mut open: impl FnMut() -> Result<(Vec<OwnedFd>, bool), Refusal>,
) -> Result<(Vec<OwnedFd>, bool), Refusal> {
    let start = Instant::now();
    loop {
        match open() {
            Err(refusal) if refusal.reason == Reason::NoFreeQueue && start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

/// One socket for each queue, the first with the UMEM, the others sharing it. Zero-copy if the driver can.
fn open_queues(ask: &Attach, wanted: u32, umem: &Region, rings: RingSizes) -> Result<(Vec<OwnedFd>, bool), Refusal> {
    let first = socket::open()?;
    socket::register_umem(first.as_fd(), umem, ask.frame_size, 0)?;
    socket::set_rings(first.as_fd(), rings)?;
    let zero_copy = socket::bind(first.as_fd(), ask.ifindex, 0, BindMode::ZeroCopy, true, None).is_ok();
    let mode = if zero_copy { BindMode::ZeroCopy } else { BindMode::Copy };
    if !zero_copy {
        socket::bind(first.as_fd(), ask.ifindex, 0, BindMode::Copy, true, None).map_err(bind_refusal)?;
    }
    let mut queues = vec![first];
    for queue in 1..wanted {
        let next = socket::open()?;
        socket::set_rings(next.as_fd(), rings)?;
        match socket::bind(next.as_fd(), ask.ifindex, queue, mode, true, Some(queues[0].as_fd())) {
            Ok(()) => queues.push(next),
            // The driver allocated more queues than it uses.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(bind_refusal(error)),
        }
    }
    Ok((queues, zero_copy))
}

fn bind_refusal(error: io::Error) -> Refusal {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let reason = match errno {
        libc::EBUSY => Reason::NoFreeQueue,
        libc::ENETDOWN => Reason::LinkDown,
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT => Reason::Unsupported,
        libc::EPERM => Reason::NoPrivilege,
        _ => Reason::Failed,
    };
    Refusal { reason, errno }
}
