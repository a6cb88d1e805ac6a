//! Segments of a hostile peer against a live engine, in the order in which the bytes of an input say, between what program, timers and
//! changes of hands do.

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::ip::input::parse;
use underpass_stack::stats::Counter;
use underpass_stack::tcp::image::{Image, flag};
use underpass_stack::tcp::{Algorithm, Codepoint, Flags, Instant, Segment, State};
use underpass_stack::testkit::{A, Host, Setup};

use super::input::Input;
use super::invariants::Watch;

/// Frames that the engine may want to send at one point in time: fewer than the largest ring holds of the smallest segments.
const BURST_MAX: usize = 30_000;
/// Crumbs of one input; more only take time.
const CRUMBS: u32 = 1536;
/// What rings may grow to.
const LARGEST: usize = 1 << 20;
const MS: u64 = 1_000_000;

/// The byte of the stream from `side` whose sequence number is `seq`.
pub fn byte(side: usize, seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 21) as u8 ^ side as u8
}

/// An engine, and what its program and its peer know.
pub struct Player {
    pub(super) host: Host,
    pub(super) now: Instant,
    pub(super) flow: FlowKey,
    pub(super) mtu: usize,
    /// What the program will write, and read, next.
    written: u32,
    read: u32,
    closed: bool,
    /// The highest sequence number that the peer has seen, and our newest timestamp.
    pub(super) seen: u32,
    pub(super) echo: u32,
    /// Crumbs that may still come.
    pub(super) crumbs: u32,
    /// What the rings may grow to.
    largest: usize,
    /// ECE and CWR, if the engine ever said so.
    marks: u8,
    watch: Watch,
}

impl Player {
    /// The first bytes of the input say how the connection is.
    pub fn new(input: &mut Input<'_>) -> Self {
        let (setup, now) = (setup(input), Instant(1_000_000_000));
        let image = setup.image(A);
        let largest = setup.ring.max(setup.largest);
        Self::adopt(Host::new(&setup, A, now), &image, setup.mtu as usize, largest, now)
    }

    /// An engine that has taken over `image`, whose rings may grow to `largest` bytes.
    pub fn adopt(host: Host, image: &Image, mtu: usize, largest: usize, now: Instant) -> Self {
        let (written, read, seen) = (image.snd_end, image.rcv_read, image.snd_nxt);
        let closed = image.flags & (flag::FIN_QUEUED | flag::FIN_SENT | flag::FIN_ACKED) != 0;
        let watch = Watch::new(&host, now, largest);
        let (flow, echo, crumbs, marks) = (image.flow, 0, CRUMBS, 0);
        Self { host, now, flow, mtu, written, read, closed, seen, echo, crumbs, largest, marks, watch }
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

    /// Where it has been, for inputs that are kept because of it.
    pub fn reached(&self) -> Vec<&'static str> {
        let (v6, ecn) = (self.flow.remote.as_v4().is_none(), Flags(self.marks));
        let (records, pieces) = self.watch.most();
        let [rcv, snd] = self.watch.grown(&self.host);
        let all = [
            (true, self.host.tcb.algorithm().name()),
            (v6, "IPv6"),
            (ecn.has(Flags::ECE), "marked packets"),
            (ecn.has(Flags::CWR), "echoed marks"),
            (self.host.count(Counter::TooBigTaken) != 0, "packet too big, believed"),
            (self.host.count(Counter::TooBigIgnored) != 0, "packet too big, not believed"),
            (rcv, "a receive ring that grew"),
            (snd, "a send ring that grew"),
            (records > 1000, "as many records as there may be"),
            (pieces == 1024, "as many pieces out of order as there may be"),
        ];
        all.into_iter().filter(|(reached, _)| *reached).map(|(_, place)| place).collect()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 20 {
            0 | 1 => self.write(input),
            2 => self.read(input),
            3 | 4 => self.wait(input),
            5 => self.settings(input),
            6 => self.change_hands(),
            7 => self.damaged(input),
            8..=10 => self.honest(input),
            11 => self.transmit(),
            16 => self.packet_too_big(input),
            17 => self.marked(input),
            18 => self.sack_crumbs(input),
            19 => self.data_crumbs(input),
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
        // The owner of growing rings asks for no more than there may be.
        let limit = if self.host.grows() { amount.min(self.largest as u32) } else { amount };
        let mut connection = self.host.connection();
        match kind % 8 {
            0 => connection.set_nodelay(on),
            1 => connection.set_cork(on),
            2 => connection.set_quickack(on),
            3 => connection.set_keepalive(now, on, amount, amount / 4, u32::from(kind >> 3)),
            4 => connection.set_user_timeout(amount),
            5 => self.host.tcb.limit_queue(limit),
            6 => self.host.tcb.limit_window(limit),
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
    pub(super) fn transmit(&mut self) {
        for _ in 0..BURST_MAX {
            let (before, path_mtu) = (self.image(), self.host.tcb.path_mtu() as usize);
            let Some((_, frame)) = self.host.frame_out(self.now) else { return };
            assert!(frame.len() <= 14 + self.mtu, "a frame of {} bytes", frame.len());
            let sent = parse(&frame, 14 + self.mtu).expect("a frame that can be read").segment;
            for (i, got) in sent.payload.iter().enumerate() {
                let seq = sent.seq.0.wrapping_add(i as u32);
                // Probes repeat a byte that the peer has acknowledged.
                let is_old = seq.wrapping_sub(before.snd_una) >= 1 << 31;
                assert!(is_old || *got == byte(A, seq), "byte {i} of {:?}", sent.seq);
            }
            // Only new data may be larger, to try whether the path carries it.
            let is_new = sent.seq.0.wrapping_sub(before.snd_nxt) < 1 << 31 && !sent.payload.is_empty();
            assert!(is_new || frame.len() <= 14 + path_mtu, "{} bytes once more, {path_mtu} fit", frame.len());
            check_marks(&before, &sent);
            self.marks |= sent.flags.0 & (Flags::ECE.0 | Flags::CWR.0);
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

    pub(super) fn image(&self) -> Image {
        self.host.tcb.image(self.flow, self.now)
    }
}

/// What of ECN may be in a packet: nothing unless it was negotiated, and only new data may be marked (RFC 3168, sections 6.1.4 to 6.1.6).
fn check_marks(before: &Image, sent: &Segment<'_>) {
    let (seq, said) = (sent.seq.0, (sent.flags, sent.ecn));
    let speaks = sent.flags.has(Flags::ECE) || sent.flags.has(Flags::CWR) || sent.ecn != Codepoint::NotEct;
    assert!(!speaks || before.flags & flag::ECN != 0, "ECN was not negotiated: {said:?}");
    let is_new = !sent.payload.is_empty() && seq == before.snd_nxt;
    assert!(
        sent.ecn == Codepoint::NotEct || (is_new && sent.ecn == Codepoint::Ect0),
        "{seq} may not be marked: {said:?} {before:?}"
    );
}

/// How a connection is.
fn setup(input: &mut Input<'_>) -> Setup {
    let (path, kind) = (input.byte(), input.byte());
    let mut flags = if path & 2 != 0 { flag::ECN } else { 0 };
    for (bit, on) in [(flag::WSCALE, 1), (flag::SACK, 2), (flag::TIMESTAMPS, 4), (flag::NODELAY, 8)] {
        if kind & on == 0 {
            flags |= bit;
        }
    }
    let (v6, ring) = (path & 1 != 0, 1 << (12 + usize::from(kind >> 4) % 6));
    let largest = [0, ring << 1, ring << 3, LARGEST][usize::from(path >> 2) % 4];
    let wscale = if flags & flag::WSCALE == 0 { 0 } else { 1 + input.byte() % 14 };
    let near_wrap = |byte: u8| if byte < 128 { 1000 } else { u32::MAX - 500 * u32::from(byte) };
    let isn = [near_wrap(input.byte()), near_wrap(input.byte())];
    // Every IPv6 link carries 1280 bytes (RFC 8200, section 5).
    let mtus = if v6 { [1500, 1280, 9000, 1400] } else { [1500, 576, 9000, 200] };
    let mtu = mtus[usize::from(input.byte() % 4)];
    let congestion = Algorithm::ALL[usize::from(input.byte()) % Algorithm::ALL.len()];
    Setup { ring, isn, flags, largest, wscale, mtu, v6, congestion }
}
