//! Frames that the stack sends, as the peers take them.

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::input::parse;
use underpass_stack::tcp::Flags;

use super::player::Player;
use super::queues::Queue;
use super::stream::{assert_is, is_at_most};

/// The same flow seen from the other host.
fn turned(flow: &FlowKey) -> FlowKey {
    FlowKey {
        local: flow.remote,
        remote: flow.local,
        local_port: flow.remote_port,
        remote_port: flow.local_port,
        ..*flow
    }
}

/// What leaves by these queues, up to `most` frames by each.
fn take_sent(queues: &mut [Queue], most: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for queue in queues {
        queue.wire.take_sent(most, |frame| frames.push(frame.to_vec()));
    }
    frames
}

impl Player<'_> {
    /// Some of what was sent leaves; some of it is lost, or its frame comes back late.
    pub(super) fn depart(&mut self) {
        let most = self.input.up_to(64);
        let lost = if self.input.byte() % 2 == 0 { 0 } else { self.input.byte() };
        let frames = take_sent(self.pick_queues(), most);
        self.arrive_at_peers(frames, lost);
        let back = self.input.up_to(64);
        self.pick_queues().iter_mut().for_each(|queue| queue.wire.complete(back));
    }

    /// Everything leaves; `lost` has a bit for each of eight frames that is lost.
    pub(super) fn depart_all(&mut self, lost: u8) {
        let frames = take_sent(&mut self.queues, usize::MAX);
        self.arrive_at_peers(frames, lost);
        self.queues.iter_mut().for_each(|queue| queue.wire.complete(usize::MAX));
    }

    fn arrive_at_peers(&mut self, frames: Vec<Vec<u8>>, lost: u8) {
        if self.is_lost {
            return;
        }
        for (n, frame) in frames.iter().enumerate() {
            self.arrive_at_peer(frame, lost >> (n % 8) & 1 != 0);
        }
    }

    fn arrive_at_peer(&mut self, frame: &[u8], is_lost: bool) {
        let max = 14 + self.card.mtu as usize;
        assert!(frame.len() <= max, "a frame of {} bytes", frame.len());
        let sent = parse(frame, max).expect("a frame that can be read");
        let flow = turned(&sent.flow);
        let segment = sent.segment;
        let Some(ends) = self.ends.iter_mut().find(|ends| ends.setup.flow == flow) else {
            panic!("a segment of nobody: {flow:?}");
        };
        let (seq, end) = (segment.seq.0, segment.end().0);
        // Probes repeat a byte that the peer has acknowledged, whatever it was.
        let old = ends.seen.snd_una.wrapping_sub(seq);
        let skip = if old < 1 << 31 { (old as usize).min(segment.payload.len()) } else { 0 };
        assert_is(ends.own(), seq.wrapping_add(skip as u32), &segment.payload[skip..], "what was sent");
        let last = ends.written.wrapping_add(u32::from(ends.closed || ends.orphan));
        let is_reset = segment.flags.has(Flags::RST);
        assert!(is_at_most(end, last) || is_reset, "{end} was never written, {last} is the end");
        if let Some(ts) = segment.timestamps {
            ends.echo = ts.val;
        }
        if !is_lost && !is_reset && seq != end {
            ends.got.add(seq, end);
            ends.owed += 1;
        }
    }
}
