//! Underpass's stack: the demux, timers, rings and passes of a preloaded program.

use std::io;

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::stack::Event;
use underpass_stack::tcp::{Flags, Instant};
use underpass_stack::testkit::Crowd;
use underpass_stack::wire::checksum::Sum;

use super::{Engine, ROOMY};

/// Bytes of each ring: room for a whole group of full segments; or the least that there is.
const ROOMY_RING: u32 = 256 << 10;
const RING: u32 = 64 << 10;
/// Nanoseconds: so few that no timer runs out while a hundred thousand connections have their turn.
const TICK: u64 = 80;
/// Where the TCP header begins in a frame, and its checksum in the header.
const TCP_AT: usize = 34;
const CHECKSUM_AT: usize = TCP_AT + 16;

/// The engine.
pub struct Ours {
    crowd: Crowd,
    now: Instant,
    events: Vec<Event>,
    frame: Vec<u8>,
    verify: bool,
    /// Up to where each peer has received.
    taken: Vec<u32>,
}

impl Ours {
    /// So many connections. Without `verify`, peers leave checksums to a network card that is not there, as those on the same host do.
    pub fn new(connections: usize, verify: bool) -> io::Result<Self> {
        let now = Instant(1_000_000_000);
        let crowd = Crowd::new(connections, if connections < ROOMY { ROOMY_RING } else { RING }, now)?;
        let taken = crowd.peers.iter().map(|peer| peer.ack).collect();
        let mut ours =
            Self { crowd, now, events: Vec::with_capacity(connections), frame: vec![0; 2048], verify, taken };
        ours.crowd.stack.send_touched(now);
        ours.collect()?;
        Ok(ours)
    }
}

impl Engine for Ours {
    fn stage(&mut self, connection: usize, push: bool, data: &[u8]) {
        let peer = &mut self.crowd.peers[connection];
        let len = peer.send(&mut self.frame, if push { Flags::PSH } else { Flags::default() }, data);
        if !self.verify {
            let FlowKey { local, remote, proto, .. } = peer.flow;
            let pseudo = Sum::pseudo(&local, &remote, proto, (len - TCP_AT) as u16);
            self.frame[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&pseudo.partial());
        }
        assert!(self.crowd.wire.stage(&self.frame[..len]), "no frame");
    }

    fn receive(&mut self, frames: usize) {
        self.now.0 += TICK;
        self.crowd.wire.show(frames);
        self.crowd.stack.pass(self.now);
        self.crowd.stack.take_events(&mut self.events);
        self.events.clear();
    }

    fn read(&mut self, connection: usize, out: &mut [u8]) -> usize {
        self.crowd.stack.recv(connection as u32, out, None).unwrap_or(0)
    }

    fn write(&mut self, connection: usize, data: &[u8]) -> usize {
        self.now.0 += TICK;
        let taken = self.crowd.stack.send(connection as u32, self.now, data, false).unwrap_or(0);
        self.crowd.stack.send_touched(self.now);
        taken
    }

    fn collect(&mut self) -> io::Result<(u64, u64)> {
        let Self { crowd, taken, .. } = self;
        super::scene::collect(|each| crowd.wire.collect(each), &crowd.peers, taken)
    }

    fn foresee(&mut self, connection: usize, bytes: usize) {
        let peer = &mut self.crowd.peers[connection];
        peer.ack = peer.ack.wrapping_add(bytes as u32);
    }
}
