//! The engine under a script: one connection and a clock that only scripts move.

use std::collections::VecDeque;

use underpass_stack::mem::ring;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::image::flag;
use underpass_stack::tcp::segment::Timestamps;
use underpass_stack::tcp::{Connection, Instant, Outcome, Recovery, Segment, SegmentOut, SeqNr, Tcb};
use zerocopy::FromZeros;

use super::segment::{Inject, Relative};
use super::setup::Setup;

/// When scripts begin.
const START: Instant = Instant(1_000_000_000_000);
/// Segments or timers in a row without an end in sight.
const EVENTS_MAX: usize = 100_000;

/// Byte `seq` of either stream.
fn byte(seq: u32) -> u8 {
    (seq.wrapping_mul(2_654_435_761) >> 24) as u8
}

fn bytes(start: u32, len: u32) -> Vec<u8> {
    (0..len).map(|i| byte(start.wrapping_add(i))).collect()
}

/// A connection, its program and its clock.
pub struct Machine {
    pub tcb: Box<Tcb>,
    snd: Vec<u8>,
    rcv: Vec<u8>,
    recovery: Recovery,
    pub now: Instant,
    /// What a script calls 0 in our stream and in the peer's.
    own: u32,
    peer: u32,
    /// Everything that the engine has reported, joined.
    pub seen: Outcome,
    counted: Vec<u64>,
    sent: VecDeque<Relative>,
    /// Sequence numbers of the next byte to write and to read.
    write_at: u32,
    read_at: u32,
    window: u16,
    timestamps: bool,
    peer_clock: u32,
    our_clock: u32,
}

impl Machine {
    /// Imports the connection that `setup` describes.
    pub fn new(setup: &Setup) -> Result<Self, String> {
        let image = setup.image();
        let (unread, unacked) = (bytes(image.rcv_read, setup.unread), setup.inflight + setup.queued);
        let unacked = bytes(image.snd_end.wrapping_sub(unacked), unacked);
        let mut machine = Self {
            tcb: Box::new(Tcb::new_zeroed()),
            snd: vec![0xee; setup.ring],
            rcv: vec![0xdd; setup.ring],
            recovery: Recovery::default(),
            now: START,
            own: setup.own,
            peer: setup.peer,
            seen: Outcome::default(),
            counted: vec![0; Counter::ALL.len()],
            sent: VecDeque::new(),
            write_at: image.snd_end,
            read_at: image.rcv_read,
            window: setup.window_field,
            timestamps: image.flags & flag::TIMESTAMPS != 0,
            peer_clock: setup.peer_clock(),
            our_clock: image.ts_val,
        };
        let Self { tcb, snd, rcv, recovery, .. } = &mut machine;
        Connection::import(tcb, snd, rcv, recovery, &image, &unread, &unacked, setup.mtu, START)
            .map_err(|error| format!("the setup cannot be imported: {error}"))?;
        tcb.limit_window(if setup.rcv_buf == 0 { setup.ring as u32 } else { setup.rcv_buf });
        tcb.choose_congestion(setup.congestion);
        machine.connection().resume(&setup.scoreboard());
        machine.pump()?;
        Ok(machine)
    }

    fn connection(&mut self) -> Connection<'_> {
        Connection { tcb: &mut self.tcb, snd: &mut self.snd, rcv: &mut self.rcv, recovery: &mut self.recovery }
    }

    /// How often something was counted.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counted[counter as usize]
    }

    /// Lets the program do something, then sends what the engine has to say.
    pub fn call<T>(&mut self, act: impl FnOnce(&mut Connection<'_>, Instant) -> T) -> Result<T, String> {
        let now = self.now;
        let result = act(&mut self.connection(), now);
        self.pump()?;
        Ok(result)
    }

    /// The program writes; says how much was taken.
    pub fn write(&mut self, len: u32, more: bool) -> Result<u32, String> {
        let data = bytes(self.write_at, len);
        let taken = self.call(|connection, now| connection.send(now, &data, more))? as u32;
        self.write_at = self.write_at.wrapping_add(taken);
        Ok(taken)
    }

    /// The program reads; says how much there was. The bytes must be the peer's.
    pub fn read(&mut self, len: usize) -> Result<u32, String> {
        let mut data = vec![0; len];
        let got = self.call(|connection, _| connection.recv(&mut data))?;
        data.truncate(got);
        if data != bytes(self.read_at, got as u32) {
            return Err("the bytes read are not those that the peer sent".into());
        }
        self.read_at = self.read_at.wrapping_add(got as u32);
        Ok(got as u32)
    }

    /// A segment of the peer arrives. What it brings about goes out with the next [`Machine::pump`].
    pub fn inject(&mut self, inject: &Inject) {
        self.window = inject.window.unwrap_or(self.window);
        let seq = self.peer.wrapping_add(inject.seq.0 as u32);
        let payload = bytes(seq, (inject.seq.1 - inject.seq.0) as u32);
        let own = self.own;
        let edge = |n: i64| own.wrapping_add(n as u32).to_be_bytes();
        let sack: Vec<u8> = inject.sack.iter().flat_map(|(start, end)| [edge(*start), edge(*end)]).flatten().collect();
        let segment = Segment {
            seq: SeqNr(seq),
            ack: SeqNr(own.wrapping_add(inject.ack as u32)),
            flags: inject.flags,
            window: self.window,
            ecn: inject.ecn,
            timestamps: self.stamp(inject),
            sack: &sack,
            payload: &payload,
        };
        let now = self.now;
        let outcome = self.connection().on_segment(now, &segment);
        self.note(&outcome);
    }

    /// The peer's option: as the script says, else its clock in milliseconds and the newest of ours.
    fn stamp(&self, inject: &Inject) -> Option<Timestamps> {
        let (val, ecr) = inject.stamp;
        let said = val.is_some() || ecr.is_some();
        if inject.without_stamp || !(self.timestamps || said) {
            return None;
        }
        let elapsed = self.now.millis().wrapping_sub(START.millis());
        Some(Timestamps {
            val: val.unwrap_or(self.peer_clock.wrapping_add(elapsed)),
            ecr: ecr.unwrap_or(self.our_clock),
        })
    }

    /// A router says that the packet with our byte `seq` in front did not fit into `mtu` bytes.
    pub fn too_big(&mut self, seq: i64, mtu: u32) -> Result<(), String> {
        let seq = SeqNr(self.own.wrapping_add(seq as u32));
        let outcome = self.call(|connection, now| connection.packet_too_big(now, seq, mtu))?;
        self.note(&outcome);
        Ok(())
    }

    /// Takes everything that the engine wants to send.
    pub fn pump(&mut self) -> Result<(), String> {
        for _ in 0..EVENTS_MAX {
            let now = self.now;
            let Some(segment) = self.connection().poll_transmit(now) else { return Ok(()) };
            self.check_payload(&segment)?;
            if segment.timestamps.is_some() != self.timestamps {
                return Err(format!("timestamps: {:?} in a segment", segment.timestamps));
            }
            self.our_clock = segment.timestamps.map_or(self.our_clock, |ts| ts.val);
            self.counted[Counter::SegmentsSent as usize] += 1;
            if let Some(counter) = segment.counter() {
                self.counted[counter as usize] += 1;
            }
            self.sent.push_back(Relative::new(&segment, self.own, self.peer));
        }
        Err("segments go out without end".into())
    }

    fn check_payload(&mut self, segment: &SegmentOut) -> Result<(), String> {
        let mut data = vec![0; segment.len as usize];
        ring::read(&self.snd, self.tcb.snd_place(segment.seq.0), &mut data);
        let ours = data == bytes(segment.seq.0, segment.len);
        if ours { Ok(()) } else { Err("a segment carries other bytes than the program wrote".into()) }
    }

    /// Moves the clock to `until`, or to the first segment that goes out before. Says whether one did.
    pub fn wait(&mut self, until: Instant) -> Result<bool, String> {
        for _ in 0..EVENTS_MAX {
            if !self.sent.is_empty() {
                return Ok(true);
            }
            let Some(at) = self.tcb.deadline().filter(|at| *at <= until) else {
                self.now = until;
                return Ok(false);
            };
            self.now = self.now.max(at);
            let outcome = self.call(|connection, now| connection.on_timer(now))?;
            self.note(&outcome);
        }
        Err("timers run out without end".into())
    }

    /// The oldest segment that went out and was not looked at.
    pub fn take_sent(&mut self) -> Option<Relative> {
        self.sent.pop_front()
    }

    fn note(&mut self, outcome: &Outcome) {
        let seen = &mut self.seen;
        seen.readable |= outcome.readable;
        seen.writable |= outcome.writable;
        seen.peer_fin |= outcome.peer_fin;
        seen.reset |= outcome.reset;
        seen.timed_out |= outcome.timed_out;
        seen.urgent |= outcome.urgent;
        seen.closed |= outcome.closed;
        for counter in outcome.counts.iter() {
            self.counted[counter as usize] += 1;
        }
    }
}
