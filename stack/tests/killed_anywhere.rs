//! The owner of a record may be killed between any two instructions. Here a child works on a shared record and is stopped
//! after every single instruction (ptrace(2)); each time, what the daemon would take over must be sound, and every byte
//! that it claims must be there.

use std::io::Error;

use underpass_stack::ip::flow::FlowKey;
use underpass_stack::mem::ring;
use underpass_stack::tcp::image::Image;
use underpass_stack::tcp::recovery::Pool;
use underpass_stack::tcp::{Codepoint, Connection, Flags, Instant, Recovery, Segment, SeqNr, State, Tcb};
use underpass_stack::testkit::{A, Setup};
use zerocopy::FromBytes;

const RING: usize = 64 << 10;
const PIECE: u32 = 150;
const ROUNDS: u32 = 4;
const NOW: Instant = Instant(5_000_000_000);
const TCB_AT: usize = 0;
const SND_AT: usize = 4096;
const RCV_AT: usize = SND_AT + RING;
const LEN: usize = RCV_AT + RING;

/// Both streams have this byte at sequence number `seq`.
fn byte(seq: u32) -> u8 {
    (seq.wrapping_mul(2_654_435_761) >> 24) as u8
}

fn bytes(start: u32, len: u32) -> Vec<u8> {
    (0..len).map(|i| byte(start.wrapping_add(i))).collect()
}

/// Both streams wrap around the ring and the sequence space on their way.
fn setup() -> Setup {
    Setup { isn: [u32::MAX - 200, u32::MAX - 500], ..Setup::default() }
}

/// One thing that happens to the connection.
enum Event {
    Segment { seq: u32, ack: u32, flags: Flags, data: Vec<u8> },
    Send(Vec<u8>),
    Read,
    Close,
}

/// In-order and out-of-order data, duplicates, sends, acknowledgements, reads, and both ways of closing.
fn script() -> Vec<Event> {
    let [own, peer] = setup().isn;
    let mut events = Vec::new();
    let data = |n: u32, ack: u32| Event::Segment {
        seq: peer.wrapping_add(n * PIECE),
        ack,
        flags: Flags::ACK,
        data: bytes(peer.wrapping_add(n * PIECE), PIECE),
    };
    for round in 0..ROUNDS {
        let sent = own.wrapping_add(round * PIECE);
        events.push(Event::Send(bytes(sent, PIECE)));
        // Second before first, the first twice.
        events.extend([2 * round + 1, 2 * round, 2 * round].map(|n| data(n, sent)));
        events.push(Event::Read);
    }
    let ack = own.wrapping_add(ROUNDS * PIECE);
    let seq = peer.wrapping_add(2 * ROUNDS * PIECE);
    events.push(Event::Segment { seq, ack, flags: Flags::ACK, data: Vec::new() });
    events.push(Event::Send(bytes(ack, PIECE)));
    events.push(Event::Close);
    let fin = Flags::ACK.with(Flags::FIN);
    events.push(Event::Segment { seq, ack: ack.wrapping_add(PIECE + 1), flags: fin, data: bytes(seq, PIECE) });
    events
}

/// What the child does. It allocates nothing, for it was forked from a process with threads.
fn work(connection: &mut Connection<'_>, events: &[Event]) {
    let mut out = [0; 4096];
    for event in events {
        match event {
            Event::Segment { seq, ack, flags, data } => {
                let segment = Segment {
                    seq: SeqNr(*seq),
                    ack: SeqNr(*ack),
                    flags: *flags,
                    window: 512,
                    ecn: Codepoint::NotEct,
                    timestamps: None,
                    sack: &[],
                    payload: data,
                };
                connection.on_segment(NOW, &segment);
            }
            Event::Send(data) => {
                connection.send(NOW, data, false);
            }
            Event::Read => {
                connection.recv(&mut out);
            }
            Event::Close => connection.shutdown_write(NOW),
        }
        while connection.poll_transmit(NOW).is_some() {}
    }
}

/// A mapping that parent and child share.
struct Shared(*mut u8);

impl Shared {
    fn new() -> Self {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), LEN, prot, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "{}", Error::last_os_error());
        Self(base.cast())
    }

    /// The connection in it.
    ///
    /// # Safety
    /// Nobody else may use the mapping meanwhile.
    unsafe fn connection<'a>(&'a self, recovery: &'a mut Recovery) -> Connection<'a> {
        // SAFETY: the three ranges are inside the mapping, aligned and disjoint; the caller excludes other users.
        unsafe {
            Connection {
                tcb: &mut *self.0.add(TCB_AT).cast::<Tcb>(),
                snd: std::slice::from_raw_parts_mut(self.0.add(SND_AT), RING),
                rcv: std::slice::from_raw_parts_mut(self.0.add(RCV_AT), RING),
                recovery,
            }
        }
    }

    /// A copy of `len` bytes at `at`.
    fn copy(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= LEN);
        // SAFETY: inside the mapping; the only other process is stopped.
        unsafe { std::slice::from_raw_parts(self.0.add(at), len) }.to_vec()
    }
}

/// Follows what a daemon would find, from instruction to instruction.
struct Auditor {
    flow: FlowKey,
    last: Option<Image>,
    changes: u64,
}

impl Auditor {
    fn look(&mut self, shared: &Shared) {
        let tcb = Tcb::read_from_bytes(&shared.copy(TCB_AT, size_of::<Tcb>())).expect("any bytes are a record");
        let image = tcb.image(self.flow, NOW);
        if self.last == Some(image) {
            return;
        }
        self.changes += 1;
        assert!(image.is_sound(RING as u32, RING as u32), "{image:?} after {:?}", self.last);
        assert!(SeqNr(image.rcv_wup).le(SeqNr(image.rcv_nxt)), "{image:?}");
        assert!(image.max_window >= image.snd_wnd, "{image:?}");
        let claims = [(RCV_AT, image.rcv_read, image.unread()), (SND_AT, image.snd_end, image.unacknowledged())];
        for (n, (at, place, len)) in claims.into_iter().enumerate() {
            let start = if n == 0 { place } else { place.wrapping_sub(len) };
            let mut held = vec![0; len as usize];
            let from = if n == 0 { tcb.rcv_place(start) } else { tcb.snd_place(start) };
            ring::read(&shared.copy(at, RING), from, &mut held);
            assert_eq!(held, bytes(start, len), "claim {n} of {image:?}");
        }
        if let Some(last) = self.last {
            for (before, after) in
                [(last.snd_una, image.snd_una), (last.snd_nxt, image.snd_nxt), (last.rcv_nxt, image.rcv_nxt)]
            {
                assert!(SeqNr(before).le(SeqNr(after)), "went back: {last:?} {image:?}");
            }
        }
        self.last = Some(image);
    }
}

/// Steps the child to its end; returns the number of instructions.
fn step_through(child: libc::pid_t, mut look: impl FnMut()) -> u64 {
    let mut steps = 0;
    loop {
        let mut status = 0;
        // SAFETY: waits for our own child; `status` is a valid place.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child, "{}", Error::last_os_error());
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0, "the child failed");
            return steps;
        }
        assert!(libc::WIFSTOPPED(status), "the child was killed: {status:x}");
        look();
        steps += 1;
        // SAFETY: the child is stopped and traced by us; no memory of ours is touched.
        let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0usize, 0usize) };
        assert_eq!(stepped, 0, "{}", Error::last_os_error());
    }
}

#[test]
fn every_instruction_leaves_a_sound_record() {
    let shared = Shared::new();
    let events = script();
    let image = setup().image(A);
    // The child needs no memory for it that is not there.
    let mut recovery = Recovery::default();
    Pool::default().lend(&mut recovery);
    {
        // SAFETY: there is no child yet.
        let Connection { tcb, snd, rcv, recovery } = unsafe { shared.connection(&mut recovery) };
        Connection::import(tcb, snd, rcv, recovery, &image, &[], &[], 1500, NOW).expect("a sound image");
    }
    // SAFETY: the child only runs the engine, which neither allocates nor locks, and leaves by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", Error::last_os_error());
    if child == 0 {
        // SAFETY: in the child; the parent only reads, and only while we are stopped.
        unsafe {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, 0usize, 0usize) != 0 {
                libc::_exit(3);
            }
            libc::raise(libc::SIGSTOP);
            work(&mut shared.connection(&mut recovery), &events);
            libc::_exit(0);
        }
    }
    let mut auditor = Auditor { flow: image.flow, last: None, changes: 0 };
    let steps = step_through(child, || auditor.look(&shared));
    println!("{steps} instructions, {} different images", auditor.changes);
    assert!(steps > 5_000 && auditor.changes > 30, "{steps} instructions, {} images", auditor.changes);
    // SAFETY: the child is gone.
    let connection = unsafe { shared.connection(&mut recovery) };
    assert_eq!(connection.tcb.state(), State::TimeWait, "the script ran to its end");
    assert_eq!(connection.tcb.readable() as u32, PIECE);
}
