//! Frames that XDP took from the kernel and that it is to have after all.

use std::time::Instant;

use underpass_stack::control::{FrameRef, Inject, MAX_INJECT};
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::input;
use underpass_stack::ip::late::{complete_checksum, forget_timestamps};
use underpass_stack::lane::Reason;

use super::reply::{Answer, Reply};
use super::state::Daemon;
use crate::steer::inject::MAX_FRAME;

impl Daemon {
    /// Answers [`Inject`].
    pub fn inject(&mut self, session: u32, ask: &Inject) -> Answer {
        let asked = ask.frames.get(..ask.count as usize).filter(|frames| frames.len() <= MAX_INJECT);
        let frames = asked.ok_or(Reason::ProtocolError)?;
        Ok(Reply::done(self.inject_from(session, ask.port, frames)?))
    }

    /// Injects frames out of a port's UMEM, as far as they are the session's; returns how many.
    pub fn inject_from(&mut self, session: u32, port: u32, frames: &[FrameRef]) -> Result<u32, Reason> {
        let known = self.sessions.get(&session).ok_or(Reason::ProtocolError)?;
        let port = known.ports.get(&port).ok_or(Reason::ProtocolError)?;
        let (netns, ifindex) = (port.netns, port.ifindex);
        let now = Instant::now();
        let mut ready = Vec::with_capacity(frames.len());
        for frame in frames {
            let bytes = port.umem.bytes(frame.addr as usize, frame.len as usize).filter(|b| b.len() <= MAX_FRAME);
            // A copy first: the client can change its frames while we look at them.
            let own = bytes.and_then(|bytes| prepare(bytes.to_vec()));
            ready.extend(own.filter(|(_, flow)| known.recent.contains(netns, flow, now)));
        }
        let interface = self.namespaces.get(&netns).and_then(|n| n.interfaces.get(&ifindex));
        // A frame of a flow that is redirected (again) would come straight back, or meet a socket that hears nothing.
        ready.retain(|(_, flow)| interface.is_none_or(|i| !i.steer.holds(flow)));
        let ready: Vec<Vec<u8>> = ready.into_iter().map(|(frame, _)| frame).collect();
        let done = self.inject_all(netns, ifindex, &ready);
        self.totals.not_injected += frames.len() as u64 - u64::from(done);
        Ok(done)
    }

    /// Injects complete frames; returns how many the kernel took.
    pub fn inject_all(&mut self, netns: u64, ifindex: u32, frames: &[Vec<u8>]) -> u32 {
        if frames.is_empty() {
            return 0;
        }
        let Self { namespaces, home, injector, totals, .. } = self;
        let Some(namespace) = namespaces.get(&netns) else { return 0 };
        let inside = namespace.enter(home).map_err(|error| format!("cannot enter its namespace: {error}"));
        let injected = inside.and_then(|_inside| injector.inject(frames, ifindex).map_err(|error| error.to_string()));
        let why = injected.as_ref().err().cloned().unwrap_or_else(|| "too long, or refused by the kernel".into());
        let done = injected.unwrap_or_default();
        if done < frames.len() {
            tracing::warn!(
                "interface {ifindex}: {} of {} frames not injected: {why}",
                frames.len() - done,
                frames.len()
            );
        }
        totals.injected += done as u64;
        done as u32
    }
}

/// Makes a frame fit for the kernel, which may have heard younger ones meanwhile. `None` unless it is a TCP segment in order.
fn prepare(mut frame: Vec<u8>) -> Option<(Vec<u8>, FlowKey)> {
    complete_checksum(&mut frame);
    let flow = input::parse(&frame, MAX_FRAME).ok()?.flow;
    forget_timestamps(&mut frame);
    Some((frame, flow))
}
