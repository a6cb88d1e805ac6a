//! Segments of a hostile peer against a live engine, in the order in which the bytes of an input say, between what program, timers and
//! changes of hands do.

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::input::parse;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Algorithm, Flags, Instant, State};
use underpass_stack::testkit::{A, Host, Setup};
use zerocopy::IntoBytes;

use super::forge::Forged;
use super::headers::has_partial_checksum;
use super::input::Input;
use super::invariants::Watch;

/// Frames that the engine may want to send at one point in time.
const BURST_MAX: usize = 2000;
const MS: u64 = 1_000_000;

/// The byte of the stream from `side` whose sequence number is `seq`.
pub fn byte(side: usize, seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 21) as u8 ^ side as u8
}

/// An engine, and what its program and its peer know.
pub struct Player {
    host: Host,
    now: Instant,
    flow: FlowKey,
    mtu: usize,
    /// What the program will write, and read, next.
    written: u32,
    read: u32,
    closed: bool,
    /// The highest sequence number that the peer has seen, and our newest timestamp.
    seen: u32,
    echo: u32,
    watch: Watch,
}

impl Player {
    /// The first bytes of the input say how the connection is.
    pub fn new(input: &mut Input<'_>) -> Self {
        let kind = input.byte();
        let mut flags = 0;
        for (bit, on) in [(flag::WSCALE, 1), (flag::SACK, 2), (flag::TIMESTAMPS, 4), (flag::NODELAY, 8)] {
            if kind & on == 0 {
                flags |= bit;
            }
        }
        let wscale = if flags & flag::WSCALE == 0 { 0 } else { 1 + input.byte() % 14 };
        let near_wrap = |byte: u8| if byte < 128 { 1000 } else { u32::MAX - 500 * u32::from(byte) };
        let setup = Setup {
            ring: 1 << (12 + usize::from(kind >> 4) % 6),
            isn: [near_wrap(input.byte()), near_wrap(input.byte())],
            flags,
            wscale,
            mtu: [1500, 576, 9000, 200][usize::from(input.byte() % 4)],
            congestion: if input.byte() % 2 == 0 { Algorithm::Cubic } else { Algorithm::Reno },
            ..Setup::default()
        };
        let now = Instant(1_000_000_000);
        let host = Host::new(&setup, A, now);
        let (flow, [written, read]) = (setup.image(A).flow, setup.isn);
        let watch = Watch::new(&host, now, setup.ring);
        let mtu = setup.mtu as usize;
        Self { host, now, flow, mtu, written, read, closed: false, seen: written, echo: 0, watch }
    }

    /// An engine that has taken over `image`.
    pub fn adopt(host: Host, image: &Image, mtu: usize, ring: usize, now: Instant) -> Self {
        let (written, read, seen) = (image.snd_end, image.rcv_read, image.snd_nxt);
        let closed = image.flags & (flag::FIN_QUEUED | flag::FIN_SENT | flag::FIN_ACKED) != 0;
        let watch = Watch::new(&host, now, ring);
        Self { host, now, flow: image.flow, mtu, written, read, closed, seen, echo: 0, watch }
    }

    /// Returns the number of steps.
    pub fn play(&mut self, mut input: Input<'_>) -> u64 {
        let mut steps = 0;
        while !input.0.is_empty() {
            self.step(&mut input);
            self.watch.check(&mut self.host, self.now);
            steps += 1;
        }
        steps
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 | 1 => self.write(input),
            2 => self.read(input),
            3 | 4 => self.wait(input),
            5 => self.settings(input),
            6 => self.change_hands(),
            7 => self.damaged(input),
            8..=10 => self.honest(input),
            11 => self.transmit(),
            _ => self.hostile(input),
        }
    }

    fn write(&mut self, input: &mut Input<'_>) {
        if input.byte() == 0 {
            self.host.connection().shutdown_write(self.now);
            self.closed = true;
            return;
        }
        let data: Vec<u8> = (0..input.up_to(20_000)).map(|i| byte(A, self.written.wrapping_add(i as u32))).collect();
        let (more, space) = (input.byte() % 4 == 0, self.host.connection().send_space());
        let taken = self.host.connection().send(self.now, &data, more);
        assert_eq!(taken, data.len().min(space));
        assert!(taken == 0 || !self.closed, "nothing can be written after the end");
        self.written = self.written.wrapping_add(taken as u32);
    }

    fn read(&mut self, input: &mut Input<'_>) {
        let mut data = vec![0; input.up_to(20_000)];
        let readable = self.host.tcb.readable();
        let mut connection = self.host.connection();
        let (first, second) = connection.unread();
        let unread = [first, second].concat();
        let len = connection.recv(&mut data);
        assert_eq!((len, unread.len()), (data.len().min(readable), readable));
        assert_eq!(unread[..len], data[..len]);
        self.take(&data[..len]);
    }

    /// The program has got these bytes.
    fn take(&mut self, data: &[u8]) {
        for (i, got) in data.iter().enumerate() {
            assert_eq!(*got, byte(1, self.read.wrapping_add(i as u32)), "byte {i} after sequence number {}", self.read);
        }
        self.read = self.read.wrapping_add(data.len() as u32);
    }

    /// Lets time pass, to the next deadline mostly, and runs the timers.
    fn wait(&mut self, input: &mut Input<'_>) {
        let deadline = self.host.tcb.deadline();
        let length = match input.byte() {
            0 => 3_600_000 * MS,
            byte @ 1..64 => u64::from(byte) * MS,
            byte @ 64..128 => u64::from(byte) * 10_000,
            _ => deadline.map_or(0, |at| at.nanos_since(self.now)),
        };
        self.now = self.now.after(length);
        self.host.timers(self.now);
        self.transmit();
        assert!(self.host.tcb.deadline().is_none_or(|at| at > self.now), "a timer that has run out is set again");
    }

    fn settings(&mut self, input: &mut Input<'_>) {
        let (now, kind, on) = (self.now, input.byte(), input.byte() % 2 == 0);
        let amount = u32::from(input.byte()) << (input.byte() % 20);
        let mut connection = self.host.connection();
        match kind % 8 {
            0 => connection.set_nodelay(on),
            1 => connection.set_cork(on),
            2 => connection.set_quickack(on),
            3 => connection.set_keepalive(now, on, amount, amount / 4, u32::from(kind >> 3)),
            4 => connection.set_user_timeout(amount),
            5 => self.host.tcb.limit_queue(amount),
            6 => self.host.tcb.limit_window(amount),
            _ => {
                let mtu = (amount % (self.mtu as u32 + 1)).max(128);
                connection.set_path_mtu(now, mtu, mtu);
            }
        }
    }

    fn change_hands(&mut self) {
        self.host.change_hands(self.now);
        self.watch.changed_hands();
    }

    /// Everything that the engine wants to send: all of it is ours, where it belongs and allowed.
    fn transmit(&mut self) {
        for _ in 0..BURST_MAX {
            let before = self.image();
            let Some((_, frame)) = self.host.frame_out(self.now) else { return };
            assert!(frame.len() <= 14 + self.mtu, "a frame of {} bytes", frame.len());
            let sent = parse(&frame, 14 + self.mtu).expect("a frame that can be read").segment;
            for (i, got) in sent.payload.iter().enumerate() {
                let seq = sent.seq.0.wrapping_add(i as u32);
                // Probes repeat a byte that the peer has acknowledged.
                let is_old = seq.wrapping_sub(before.snd_una) >= 1 << 31;
                assert!(is_old || *got == byte(A, seq), "byte {i} of {:?}", sent.seq);
            }
            let end = sent.end().0;
            self.watch.sent(&before, sent.seq.0, end);
            if end.wrapping_sub(self.seen) < 1 << 31 {
                self.seen = end;
            }
            self.echo = sent.timestamps.map_or(self.echo, |ts| ts.val);
            assert!(self.host.tcb.state() != State::Closed || sent.flags.has(Flags::RST));
        }
        panic!("the engine sends without end");
    }

    fn image(&self) -> Image {
        self.host.tcb.image(self.flow, self.now)
    }

    /// What a peer would say that has received everything.
    fn next(&self, image: &Image, payload: Vec<u8>) -> Forged {
        let val = image.ts_recent.max(1).wrapping_add(1);
        Forged {
            seq: image.rcv_nxt,
            ack: self.seen,
            flags: Flags::ACK.0,
            window: 0x1000,
            timestamps: (image.flags & flag::TIMESTAMPS != 0).then_some((val, self.echo)),
            payload,
            ..Forged::default()
        }
    }

    /// An honest peer: acknowledges, and says something itself.
    fn honest(&mut self, input: &mut Input<'_>) {
        self.transmit();
        let image = self.image();
        let window = image.rcv_wup.wrapping_add(image.rcv_wnd).wrapping_sub(image.rcv_nxt) as usize;
        let fin = image.flags & flag::FIN_RECEIVED != 0;
        let len = if fin { 0 } else { input.up_to(self.mtu - 52).min(window) };
        let mut forged = self.next(&image, self.peer_bytes(image.rcv_nxt, len));
        // Not always the last word: a part may be missing.
        if input.byte() % 4 == 0 {
            forged.ack = self.between(&image, input);
            forged.sack = self.blocks(&image, input);
        }
        self.give(&forged);
    }

    /// A peer that lies, repeats itself, or has lost its mind.
    fn hostile(&mut self, input: &mut Input<'_>) {
        let image = self.image();
        let mut forged = self.next(&image, Vec::new());
        let edge = image.rcv_wup.wrapping_add(image.rcv_wnd);
        forged.seq = match input.byte() % 8 {
            0 => word(input),
            1 => edge.wrapping_sub(input.byte().into()),
            2 => edge.wrapping_add(input.byte().into()),
            3 => image.rcv_nxt.wrapping_sub(u32::from(input.byte()) * 20),
            4..=6 => image.rcv_nxt.wrapping_add(u32::from(input.byte()) * 100),
            _ => image.rcv_nxt,
        };
        forged.ack = match input.byte() % 8 {
            0 => word(input),
            1 => image.snd_una.wrapping_sub(word(input) % 100_000),
            2 => image.snd_nxt.wrapping_add(input.byte().into()),
            3..=5 => self.between(&image, input),
            _ => image.snd_una,
        };
        forged.flags = match input.byte() % 8 {
            0 => input.byte(),
            1 => (Flags::ACK.0 | Flags::FIN.0) | (input.byte() & Flags::PSH.0),
            _ => Flags::ACK.0 | (input.byte() & 0xc8),
        };
        forged.window = match input.byte() {
            0..32 => 0,
            32..64 => u16::MAX,
            byte => u16::from(byte) << (byte % 8),
        };
        forged.tos = input.byte();
        forged.urgent = u16::from(input.byte());
        if input.byte() % 4 == 0 {
            let val =
                image.ts_recent.wrapping_add(word(input) >> (input.byte() % 32)).wrapping_sub(input.byte().into());
            forged.timestamps = (input.byte() % 4 != 0).then(|| (val, self.echo.wrapping_sub(word(input) % 5000)));
        }
        forged.sack = self.blocks(&image, input);
        if input.byte() % 16 == 0 {
            forged.options = (0..input.byte() % 12).map(|_| input.byte()).collect();
        }
        forged.payload = self.peer_bytes(forged.seq, input.up_to(self.mtu - 80));
        self.give(&forged);
    }

    /// A frame that was changed on the way: as if it had never come.
    fn damaged(&mut self, input: &mut Input<'_>) {
        let image = self.image();
        let forged = self.next(&image, self.peer_bytes(image.rcv_nxt, input.up_to(100)));
        let mut frame = forged.frame(&self.flow);
        // Ethernet has a checksum of its own; of the rest any one bit is protected.
        let at = 14 + usize::from(input.byte()) % (frame.len() - 14);
        frame[at] ^= 1 << (input.byte() % 8);
        if has_partial_checksum(&frame, &self.flow) {
            return;
        }
        let before = self.host.tcb.as_bytes().to_vec();
        self.host.frame_in(self.now, &frame);
        assert!(before == self.host.tcb.as_bytes(), "a damaged frame has changed the connection");
    }

    fn give(&mut self, forged: &Forged) {
        self.host.frame_in(self.now, &forged.frame(&self.flow));
    }

    /// What the peer's program says from `seq` on.
    fn peer_bytes(&self, seq: u32, len: usize) -> Vec<u8> {
        (0..len).map(|i| byte(1, seq.wrapping_add(i as u32))).collect()
    }

    /// A number within what was sent and is not acknowledged.
    fn between(&self, image: &Image, input: &mut Input<'_>) -> u32 {
        image.snd_una.wrapping_add(input.up_to(image.snd_nxt.wrapping_sub(image.snd_una) as usize) as u32)
    }

    fn blocks(&self, image: &Image, input: &mut Input<'_>) -> Vec<(u32, u32)> {
        let count = [0, 0, 0, 1, 1, 2, 3, 4][usize::from(input.byte() % 8)];
        let block = |input: &mut Input<'_>| {
            if input.byte() % 16 == 0 {
                return (word(input), word(input));
            }
            let start = self.between(image, input);
            (start, start.wrapping_add(u32::from(input.byte()) * 100))
        };
        (0..count).map(|_| block(input)).collect()
    }
}

fn word(input: &mut Input<'_>) -> u32 {
    input.word() as u32
}
