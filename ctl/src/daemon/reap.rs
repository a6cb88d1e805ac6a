//! What a client leaves when it ends: its connections go back to the kernel as if it had asked for it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use underpass_stack::arena::Phase;
use underpass_stack::control::{FrameRef, MAX_INJECT};
use underpass_stack::xsk::queue::Queue;

use super::demote::read_record;
use super::session::Port;
use super::settle::spin;
use super::state::Daemon;

/// A frame that XDP has redirected may take so long to appear in its ring.
const FLUSH: Duration = Duration::from_micros(100);

impl Daemon {
    /// Ends a session: every connection is given back, then every frame that waits for one of them.
    pub fn end_session(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id) else { return };
        self.poller.remove(&session.socket);
        if let Some(pidfd) = &session.pidfd {
            self.poller.remove(pidfd);
        }
        let slots: Vec<u32> = session.conns.keys().copied().collect();
        if session.arena.is_some() {
            tracing::info!("session {id} (pid {}) ends, {} connections to give back", session.peer.pid, slots.len());
        }
        for &slot in &slots {
            self.reap(id, slot);
        }
        let ports: Vec<u32> = self.sessions.get(&id).map(|s| s.ports.keys().copied().collect()).unwrap_or_default();
        if !slots.is_empty() {
            spin(FLUSH);
        }
        for port in ports {
            self.close_port(id, port);
        }
        self.sessions.remove(&id);
        self.waiting.retain(|waiting| waiting.session != id);
        self.tidy();
    }

    fn reap(&mut self, id: u32, slot: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(conn) = session.conns.get(&slot) else { return };
        let generation = conn.generation;
        let taken_over = session.taken_over(slot, generation).is_some();
        let dump = session.record(slot).filter(|_| taken_over).and_then(|record| {
            let dump = read_record(session, conn, &record);
            if dump.is_none() {
                tracing::error!(
                    "{:?}: the record in phase {:?} is not sound",
                    conn.flow,
                    Phase::from_raw(record.phase)
                );
            }
            dump
        });
        if taken_over && let Some(conn) = session.conns.get_mut(&slot) {
            // The stack went on from what was kept: it must not come back.
            conn.kept = None;
        }
        let given_back = match dump {
            Some(dump) => match session.conns.remove(&slot) {
                Some(conn) => self.give_back(id, conn, &dump).map(|_| ()),
                None => return,
            },
            None => self.give_back_untaken(id, slot),
        };
        if given_back.is_ok() {
            self.totals.reaped += 1;
        }
    }

    /// Injects what waits in an attachment's RX rings and closes it.
    fn close_port(&mut self, id: u32, number: u32) {
        let frames = self.sessions.get(&id).and_then(|s| s.ports.get(&number)).map(waiting_frames).unwrap_or_default();
        for batch in frames.chunks(MAX_INJECT) {
            if let Err(reason) = self.inject_from(id, number, batch) {
                tracing::warn!("session {id}: leftovers not injected: {}", reason.name());
            }
        }
        self.drop_port(id, number);
    }

    /// Closes an attachment; whatever waits in its rings stays there.
    pub fn drop_port(&mut self, id: u32, number: u32) {
        let Some(port) = self.sessions.get_mut(&id).and_then(|s| s.ports.remove(&number)) else { return };
        self.closed_at = Some(Instant::now());
        if let Some(interface) = self.interface(port.netns, port.ifindex) {
            interface.free_slots(port.xsk_base, port.queues.len() as u32);
            interface.users = interface.users.saturating_sub(1);
        }
    }
}

/// Every frame that lies in the RX rings. The owner is gone, so nobody else consumes them.
fn waiting_frames(port: &Port) -> Vec<FrameRef> {
    let mut frames = Vec::new();
    for fd in &port.queues {
        let mapped = fd.as_fd().try_clone_to_owned().and_then(|fd| Queue::map(fd, port.rings));
        let mut queue = match mapped {
            Ok(queue) => queue,
            Err(error) => {
                tracing::warn!("interface {}: RX ring not readable: {error}", port.ifindex);
                continue;
            }
        };
        // Bounded by the ring's size, whatever its cursors claim.
        for _ in 0..port.rings.rx {
            let Some(found) = queue.rx_pop() else { break };
            let (Ok(addr), len) = (u32::try_from(found.addr), found.len) else { continue };
            frames.push(FrameRef { addr, len });
        }
        queue.rx_release();
    }
    frames
}
