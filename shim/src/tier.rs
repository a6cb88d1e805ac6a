//! Promotion and demotion of one socket, as the program's side of it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::*;

use underpass_stack::arena::PortEntry;
use underpass_stack::control::{
    self, Attach, Attached, Demote, Done, FrameRef, Inject, MAX_INJECT, NeedPort, Promote, Promoted,
};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;
use underpass_stack::stack::{ImportRequest, Leftover, PortConfig};
use underpass_stack::stats::Counter;
use underpass_stack::xsk::RingSizes;

use crate::epoll_set::{EpollSet, MODE_BITS};
use crate::fd::Ref;
use crate::socket::{Socket, Where};
use crate::{engine, helper, holders, log, options, policy, session, signals, sys, wait};

/// Bytes in front of a received packet (XDP_PACKET_HEADROOM), plus Ethernet and one VLAN tag.
const FRAME_OVERHEAD: u32 = 256 + 18;

/// Puts the socket back into the kernel tier if a promotion ends early, a panic included.
struct Change<'a> {
    socket: &'a Socket,
    end: Where,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.socket.settle(self.end);
    }
}

/// Moves a socket to the lane, unless something speaks against it; that becomes its reason. Signals wait meanwhile.
pub fn promote(socket: &Ref<Socket>, fd: RawFd) {
    signals::held_back(|| promote_undisturbed(socket, fd));
}

/// Keeps a socket's epoll sets from being looked at in the kernel: its kernel socket is closed for a moment.
fn close_gates<R>(socket: &Socket, change: impl FnOnce() -> R) -> R {
    let mut sets: Vec<Ref<EpollSet>> = socket.sets.lock().iter().map(|(set, _)| set.clone()).collect();
    // A socket and its duplicate may be in one set, and two sockets in the same sets: each gate once, in one order for all.
    let place = |set: &Ref<EpollSet>| std::ptr::from_ref::<EpollSet>(set).addr();
    sets.sort_unstable_by_key(place);
    sets.dedup_by_key(|set| place(set));
    let gates: Vec<_> = sets.iter().map(|set| set.gate.write()).collect();
    let result = change();
    drop(gates);
    result
}

fn promote_undisturbed(socket: &Ref<Socket>, fd: RawFd) {
    let Some(_change) = socket.change.try_lock() else { return };
    if !socket.leave_kernel() {
        return;
    }
    let mut change = Change { socket, end: Where::Kernel };
    match close_gates(socket, || carry_over(socket, fd)) {
        Ok(slot) => {
            change.end = Where::Lane(slot);
            socket.moves[0].fetch_add(1, Relaxed);
            policy::promoted(socket);
            drop(change);
            follow(socket, true);
            engine::show(fd, socket);
            helper::start();
            log::info(format_args!("fd {fd}: promoted"));
        }
        Err(reason) => {
            engine::count(Counter::PromotionsRefused, 1);
            policy::refused(socket, reason);
            drop(change);
            // The flow may have been redirected for a moment.
            collect_stragglers();
            engine::show(fd, socket);
            log::info(format_args!("fd {fd}: not promoted: {}", reason.text()));
        }
    }
}

fn carry_over(socket: &Ref<Socket>, fd: RawFd) -> Result<u32, Reason> {
    session::ensure()?;
    if holders::is_shared(socket) {
        return Err(Reason::Shared);
    }
    if socket.sets.lock().iter().any(|(set, fd)| forbids(set, *fd)) {
        return Err(Reason::CallNotCarried);
    }
    let (slot, generation) = engine::get().and_then(|mut e| e.stack.reserve()).ok_or(Reason::StackFull)?;
    let _reserved = Reserved { slot };
    ask_and_import(socket, fd, slot, generation)?;
    Ok(slot)
}

/// A reserved slot, given back if nothing was imported into it.
struct Reserved {
    slot: u32,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(mut engine) = engine::get() {
            engine.stack.unreserve(self.slot, sys::now());
            engine.tell();
        }
    }
}

/// Does an epoll set hold a socket in the kernel? One inside another set, one that a thread sleeps on where no doorbell reaches
/// it, and exclusive wake-ups, which cannot be silenced.
fn forbids(set: &EpollSet, fd: RawFd) -> bool {
    let exclusive = || set.members.lock().get_mut(fd).is_some_and(|m| m.events & libc::EPOLLEXCLUSIVE as u32 != 0);
    set.nested.load(Relaxed) || set.asleep.load(SeqCst) > 0 || exclusive()
}

fn ask_and_import(socket: &Ref<Socket>, fd: RawFd, slot: u32, generation: u32) -> Result<(), Reason> {
    let mut answer = ask_to_promote(fd, slot, generation)?;
    if answer.is::<NeedPort>() {
        attach(&answer.expect::<NeedPort>()?, fd)?;
        answer = ask_to_promote(fd, slot, generation)?;
    }
    let promoted = answer.expect::<Promoted>()?;
    let imported = import(socket, fd, slot, &promoted, answer.fds);
    if imported.is_err() {
        // The daemon still has the image: it gives the socket back as it was.
        session::ask(&Demote { slot, generation }, &[])?.expect::<Done>()?;
    }
    imported
}

fn ask_to_promote(fd: RawFd, slot: u32, generation: u32) -> Result<session::Answer, Reason> {
    let answer = session::ask(&Promote { slot, generation }, &[fd]);
    if answer.is_err() && sys::in_repair(fd) {
        // The daemon died in the middle. What it had read out of the socket is gone with it: an end that the program notices is
        // better than a stream with a hole.
        let _ = sys::disconnect(fd);
        log::error(format_args!("fd {fd}: connection lost: the daemon died while it was promoted"));
        return Err(Reason::Lost);
    }
    answer
}

fn import(
    socket: &Ref<Socket>,
    fd: RawFd,
    slot: u32,
    promoted: &Promoted,
    mut fds: Vec<OwnedFd>,
) -> Result<(), Reason> {
    let (recv_len, send_len) = (promoted.recv_len as usize, promoted.send_len as usize);
    let queues = match fds.pop() {
        Some(memfd) => Some(Region::open_reader(memfd).map_err(|_| Reason::Failed)?),
        None if recv_len + send_len == 0 => None,
        None => return Err(Reason::ProtocolError),
    };
    let bytes = |at, len| match &queues {
        Some(region) => region.bytes(at, len).ok_or(Reason::ProtocolError),
        None => Ok(&[][..]),
    };
    *socket.restore.lock() = promoted.restore;
    socket.port.store(promoted.port, Relaxed);
    let request = ImportRequest {
        image: &promoted.image,
        recv: bytes(0, recv_len)?,
        send: bytes(recv_len, send_len)?,
        port: promoted.port,
        path: promoted.path,
        fd,
        inode: socket.inode.load(Relaxed),
        rings: (options::get().rcvbuf, options::get().sndbuf),
        congestion: options::get().congestion,
    };
    let now = sys::now();
    let mut engine = engine::get().ok_or(Reason::Failed)?;
    if let Err(reason) = engine.stack.import(slot, &request, now) {
        log::warn(format_args!("fd {fd}: the stack does not take {:?}", promoted.image));
        return Err(reason);
    }
    engine.set_owner(slot, Some(socket.clone()));
    engine.pass(now);
    Ok(())
}

/// The epoll sets that watch the socket follow its tier: a laned member is silent in the kernel's set.
fn follow(socket: &Socket, laned: bool) {
    socket.sets.lock().retain(|(set, fd)| {
        let mut members = set.members.lock();
        if members.get_mut(*fd).is_some_and(|member| member.ghost) && !laned {
            members.remove(*fd);
            let _ = sys::epoll_del(set.fd.load(Relaxed), *fd);
            return false;
        }
        if let Some(member) = members.get_mut(*fd) {
            member.laned = laned;
            let ep = set.fd.load(Relaxed);
            if laned && member.events & libc::EPOLLONESHOT as u32 != 0 {
                member.disarmed = sys::epoll_events(ep, *fd).is_some_and(|events| events & !MODE_BITS == 0);
            }
            let silent = laned || member.disarmed;
            let events = if silent { member.events & MODE_BITS } else { member.events };
            let _ = sys::epoll_mod(ep, *fd, events, member.data);
        }
        members.mark(*fd);
        set.recount(&members);
        drop(members);
        set.waiters.ring();
        true
    });
}

/// Lets go of queues that an earlier daemon gave us, if nothing is on their lane.
fn drop_port(netns: u64, ifindex: u32) {
    if engine::get().is_some_and(|mut engine| engine.drop_port(netns, ifindex)) {
        wait::wake_all();
        helper::wake();
    }
}

/// Makes the AF_XDP queues of an interface ours.
fn attach(need: &NeedPort, socket_fd: RawFd) -> Result<(), Reason> {
    let name = control_name(&need.name);
    let allowed = &options::get().interfaces;
    if !allowed.is_empty() && !allowed.contains(&name) {
        return Err(Reason::InterfaceExcluded);
    }
    let frame_size = [2048u32, 4096].into_iter().find(|size| need.mtu + FRAME_OVERHEAD <= *size).ok_or(Reason::Mtu)?;
    let netns = u64::from(need.netns_high) << 32 | u64::from(need.netns_low);
    drop_port(netns, need.ifindex);
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
    let sockets = answer.fds.into_iter().map(sys::out_of_the_way).collect();
    let config = PortConfig {
        ifindex: need.ifindex,
        mtu: need.mtu,
        frame_size,
        frame_count,
        rings: RingSizes { fill: ring, completion: ring, rx: ring, tx: ring },
        xsk_base: attached.xsk_base,
        netns,
    };
    let entry = PortEntry {
        ifindex: need.ifindex,
        queues: attached.queues,
        native: attached.native,
        zero_copy: attached.zero_copy,
        name: need.name,
    };
    let mut engine = engine::get().ok_or(Reason::Failed)?;
    engine.stack.attach(port, config, umem, sockets, entry).map_err(|error| {
        log::error(format_args!("AF_XDP queues of {name}: {error}"));
        Reason::Failed
    })?;
    engine.note_xsk_fds();
    Ok(())
}

fn control_name(padded: &[u8; 16]) -> String {
    let len = padded.iter().position(|&b| b == 0).unwrap_or(padded.len());
    String::from_utf8_lossy(&padded[..len]).into_owned()
}

/// Gives a socket back to the kernel. An error means that it stays on the lane, and works there.
pub fn demote(socket: &Ref<Socket>, reason: Reason) -> Result<(), Reason> {
    // The socket's own lock first, then its sets' gates, as in a promotion.
    let _change = socket.change.lock();
    if close_gates(socket, || give_back(socket, reason))? {
        // With the lock held: what arrives late must be injected before another promotion redirects the flow again.
        collect_stragglers();
    }
    Ok(())
}

/// Returns whether there was something to give back.
fn give_back(socket: &Ref<Socket>, reason: Reason) -> Result<bool, Reason> {
    let Where::Lane(slot) = socket.place() else { return Ok(false) };
    let Some(generation) = freeze(socket, slot) else { return Ok(false) };
    let fd = socket.fd.load(Relaxed);
    let mut change = Change { socket, end: Where::Lane(slot) };
    let given_back = session::ensure().and_then(|()| session::ask(&Demote { slot, generation }, &[])?.expect::<Done>());
    if let Err(refused) = given_back {
        engine::count(Counter::DemotionsFailed, 1);
        // The kernel's after all: ended, because it could not be restored, or restored by a daemon that then died.
        let is_kernels = refused == Reason::Lost || (refused == Reason::DaemonGone && !sys::in_repair(fd));
        if !is_kernels {
            if let Some(mut engine) = engine::get() {
                engine.stack.thaw(slot, sys::now());
                engine.flush(sys::now());
            }
            return Err(refused);
        }
        log::error(format_args!("fd {fd}: {}", refused.text()));
        end_if_incomplete(fd, slot, refused);
    }
    let leftovers = release(slot);
    change.end = Where::Kernel;
    socket.moves[1].fetch_add(1, Relaxed);
    policy::demoted(socket, reason);
    drop(change);
    follow(socket, false);
    inject(leftovers);
    engine::show(fd, socket);
    log::info(format_args!("fd {fd}: demoted: {}", reason.text()));
    Ok(true)
}

/// A daemon that died with a restored socket may not have put the unsent bytes into it: an end that the program notices is better
/// than a stream with a hole.
fn end_if_incomplete(fd: RawFd, slot: u32, refused: Reason) {
    let has_unsent = |engine: &engine::Engine| engine.stack.record(slot).is_some_and(|record| record.tcb.unsent() > 0);
    if refused == Reason::DaemonGone && engine::get().is_some_and(|engine| has_unsent(&engine)) {
        let _ = sys::disconnect(fd);
        log::error(format_args!("fd {fd}: connection lost: the daemon died while it was given back"));
    }
}

fn freeze(socket: &Socket, slot: u32) -> Option<u32> {
    let mut engine = engine::get()?;
    engine.pass(sys::now());
    if !socket.leave_lane(slot) {
        return None;
    }
    match engine.stack.freeze(slot) {
        Some(record) => Some(record.generation),
        None => {
            // No such connection any more: nothing to give back.
            socket.settle(Where::Kernel);
            None
        }
    }
}

fn release(slot: u32) -> Vec<Leftover> {
    let Some(mut engine) = engine::get() else { return Vec::new() };
    engine.pass(sys::now());
    engine.stack.release(slot);
    engine.set_owner(slot, None);
    engine.stack.take_leftovers()
}

/// Frames that XDP had already taken when the flow left its map arrive within microseconds: the kernel gets them at once.
fn collect_stragglers() {
    let until = sys::now().after(30_000);
    while sys::now() < until {
        let leftovers = engine::try_get().map(|mut engine| {
            engine.pass(sys::now());
            engine.stack.take_leftovers()
        });
        inject(leftovers.unwrap_or_default());
    }
}

/// Has the daemon put frames into the kernel's receive path.
pub fn inject(leftovers: Vec<Leftover>) {
    for chunk in leftovers.chunk_by(|a, b| a.port == b.port).flat_map(|same| same.chunks(MAX_INJECT)) {
        let mut frames = [FrameRef { addr: 0, len: 0 }; MAX_INJECT];
        for (to, from) in frames.iter_mut().zip(chunk) {
            *to = from.frame;
        }
        let request = Inject { port: chunk[0].port, count: chunk.len() as u32, frames };
        let done = session::ask(&request, &[]).and_then(|answer| answer.expect::<Done>()).map_or(0, |done| done.count);
        engine::count(Counter::Injected, u64::from(done));
        engine::count(Counter::InjectFailed, (chunk.len() as u64).saturating_sub(u64::from(done)));
        if let Some(mut engine) = engine::get() {
            chunk.iter().for_each(|leftover| engine.stack.recycle(*leftover));
        }
    }
}

/// Hands everything that a dead daemon had made to its successor.
pub fn adopt() {
    if session::reopen().is_err() {
        return;
    }
    let ports: Vec<_> = match engine::get() {
        Some(engine) => engine.stack.ports().filter_map(|(number, port)| adopt_port(number, port)).collect(),
        None => return,
    };
    for (netns, message, fds) in ports {
        if let Err(reason) = session::ask(&message, &fds).and_then(|answer| answer.expect::<Done>()) {
            log::info(format_args!("the new daemon does not take an attachment over: {}", reason.text()));
            drop_port(netns, message.attach.ifindex);
        }
    }
    let owners = engine::get().map(|engine| engine.owners()).unwrap_or_default();
    for socket in owners {
        adopt_connection(&socket);
    }
}

fn adopt_port(number: u32, port: &underpass_stack::stack::Port) -> Option<(u64, control::AdoptPort, Vec<RawFd>)> {
    let config = port.config();
    let mut fds = vec![port.umem_fd()?.as_raw_fd()];
    fds.extend(port.queue_fds().map(|fd| fd.as_raw_fd()));
    let attach = Attach {
        ifindex: config.ifindex,
        frame_size: config.frame_size,
        frame_count: config.frame_count,
        rx_ring: config.rings.rx,
        tx_ring: config.rings.tx,
        port: number,
    };
    let message = control::AdoptPort { attach, xsk_base: config.xsk_base, queues: fds.len() as u32 - 1 };
    Some((config.netns, message, fds))
}

fn adopt_connection(socket: &Ref<Socket>) {
    let _change = socket.change.lock();
    let Some(slot) = socket.slot() else { return };
    let Some(generation) = engine::get().and_then(|engine| engine.stack.record(slot).map(|r| r.generation)) else {
        return;
    };
    let message =
        control::AdoptConn { slot, generation, port: socket.port.load(Relaxed), restore: *socket.restore.lock() };
    let asked = session::ask(&message, &[socket.fd.load(Relaxed)]).and_then(|answer| answer.expect::<Done>());
    if let Err(reason) = asked {
        log::warn(format_args!("the new daemon refused a connection: {}", reason.text()));
    }
}
