//! A client of the daemon as small as can be: the stack, without a preloaded library around it.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use underpass_stack::arena::{self, PortEntry};
use underpass_stack::control::{
    self, Attach, Attached, Demote, Demoted, Done, FrameRef, Hello, Inject, MAX_INJECT, MAX_MESSAGE, Message, NeedPort,
    Promote, Promoted, Refused, Welcome,
};
use underpass_stack::lane::Reason;
use underpass_stack::mem::Region;
use underpass_stack::stack::{ImportRequest, PortConfig, Stack};
use underpass_stack::tcp::{self, image::Image};
use underpass_stack::xsk::RingSizes;

const FRAMES: u32 = 1024;
const RING: u32 = 256;

pub struct Client {
    pub socket: OwnedFd,
    pub events: OwnedFd,
    pub stack: Stack,
    /// What the daemon wants to have again after a restart.
    pub attached: Option<(Attach, Attached)>,
    pub umem: Option<OwnedFd>,
}

pub struct Answer {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Answer {
    pub fn as_message<M: Message>(&self) -> Result<M, Reason> {
        match control::decode::<Refused>(&self.bytes) {
            Ok(refused) => Err(Reason::from_raw(refused.reason)),
            Err(_) => Ok(control::decode(&self.bytes).expect("the answer's kind")),
        }
    }
}

pub fn now() -> tcp::Instant {
    tcp::Instant(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64)
}

pub fn open_session(path: &Path) -> io::Result<OwnedFd> {
    let session = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&session, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
    connect(session.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(session)
}

pub fn tell(session: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let controls: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<()>(session.as_raw_fd(), &[io::IoSlice::new(bytes)], controls, MsgFlags::MSG_NOSIGNAL, None)
}

/// The next datagram; empty when the daemon has hung up.
pub fn hear(session: BorrowedFd<'_>) -> nix::Result<Answer> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut room = nix::cmsg_space!([RawFd; control::MAX_FDS]);
    let mut slices = [io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(session.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just given us these descriptors; nobody else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let len = message.bytes;
    bytes.truncate(len);
    Ok(Answer { bytes, fds })
}

/// The next event of the daemon's.
pub fn hear_event<M: Message>(events: BorrowedFd<'_>) -> M {
    let mut watched = [PollFd::new(events, PollFlags::POLLIN)];
    assert_eq!(poll(&mut watched, 10_000u16), Ok(1), "no event came");
    hear(events).expect("an event").as_message().expect("the event's kind")
}

pub fn ask(session: BorrowedFd<'_>, message: &impl Message, fds: &[BorrowedFd<'_>]) -> Answer {
    tell(session, &message.encode(), fds).expect("the daemon takes a request");
    hear(session).expect("the daemon answers")
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let mut stack = Stack::new("test", std::process::id(), 0, |fd| fd).expect("a stack");
        stack.header_mut().expect("a header").ports = 0;
        let (socket, events) = hello(path, &stack);
        Self { socket, events, stack, attached: None, umem: None }
    }

    /// Another session with the same stack, as after a restart of the daemon.
    pub fn reconnect(&mut self, path: &Path) {
        (self.socket, self.events) = hello(path, &self.stack);
    }

    pub fn ask(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) -> Answer {
        ask(self.socket.as_fd(), message, fds)
    }

    /// Asks for a promotion, attaches to the interface if need be, and imports the connection.
    pub fn promote(&mut self, stream: &TcpStream) -> Result<u32, Reason> {
        self.promote_changed(stream, |_| ())
    }

    /// As [`Client::promote`], with another image than the daemon's.
    pub fn promote_changed(&mut self, stream: &TcpStream, change: impl FnOnce(&mut Image)) -> Result<u32, Reason> {
        let (slot, generation, mut promoted, bytes) =
            self.promote_only(stream).inspect_err(|_| self.return_strays())?;
        change(&mut promoted.image);
        let (recv, send) = bytes.split_at(promoted.recv_len as usize);
        let request = ImportRequest {
            scoreboard: Default::default(),
            image: &promoted.image,
            recv,
            send,
            port: promoted.port,
            path: promoted.path,
            fd: stream.as_raw_fd(),
            inode: 0,
            rings: (1 << 20, 1 << 20),
            largest: (0, 0),
            congestion: Default::default(),
            learnt: Default::default(),
            pacing_limit: u64::MAX,
        };
        if let Err(reason) = self.stack.import(slot, &request, now()) {
            self.ask(&Demote { slot, generation }, &[])
                .as_message::<Demoted>()
                .expect("what was not taken over goes back");
            self.stack.unreserve(slot, now());
            return Err(reason);
        }
        Ok(slot)
    }

    /// Asks for a promotion, but does not take the connection over.
    pub fn promote_only(&mut self, stream: &TcpStream) -> Result<(u32, u32, Promoted, Vec<u8>), Reason> {
        let (slot, generation) = self.stack.reserve().expect("a slot");
        let mut answer = self.ask(&Promote { slot, generation }, &[stream.as_fd()]);
        if let Ok(need) = control::decode::<NeedPort>(&answer.bytes) {
            self.attach(&need, stream.as_fd()).inspect_err(|_| self.stack.unreserve(slot, now()))?;
            answer = self.ask(&Promote { slot, generation }, &[stream.as_fd()]);
        }
        let promoted = answer.as_message::<Promoted>().inspect_err(|_| self.stack.unreserve(slot, now()))?;
        let len = (promoted.recv_len + promoted.send_len) as usize;
        let bytes = match answer.fds.into_iter().next() {
            Some(memfd) => Region::open_reader(memfd).unwrap().bytes(0, len).unwrap().to_vec(),
            None => Vec::new(),
        };
        assert_eq!(bytes.len(), len);
        Ok((slot, generation, promoted, bytes))
    }

    pub fn attach(&mut self, need: &NeedPort, socket: BorrowedFd<'_>) -> Result<(), Reason> {
        let frame_size = if need.mtu <= 1500 { 2048 } else { 4096 };
        let umem = Region::create(c"underpass-test-frames", (FRAMES * frame_size) as usize).unwrap();
        umem.seal().unwrap();
        let attach = Attach {
            ifindex: need.ifindex,
            frame_size,
            frame_count: FRAMES,
            rx_ring: RING,
            tx_ring: RING,
            port: self.stack.free_port().unwrap(),
        };
        let answer = self.ask(&attach, &[umem.fd().unwrap(), socket]);
        let attached = answer.as_message::<Attached>()?;
        assert_eq!(attached.queues as usize, answer.fds.len());
        let config = PortConfig {
            ifindex: need.ifindex,
            mtu: need.mtu,
            frame_size,
            frame_count: FRAMES,
            rings: RingSizes { fill: RING, completion: RING, rx: RING, tx: RING },
            xsk_base: attached.xsk_base,
            netns: u64::from(need.netns_high) << 32 | u64::from(need.netns_low),
        };
        self.umem = Some(umem.fd().unwrap().try_clone_to_owned().unwrap());
        self.stack.attach(attach.port, config, umem, answer.fds, PortEntry::default()).unwrap();
        self.attached = Some((attach, attached));
        Ok(())
    }

    pub fn freeze(&mut self, slot: u32) -> u32 {
        self.stack.freeze(slot).expect("a live connection").generation
    }

    /// Gives a connection back and has its leftovers injected.
    pub fn demote(&mut self, slot: u32) -> Result<(), Reason> {
        self.stack.pass(now());
        let generation = self.freeze(slot);
        self.ask(&Demote { slot, generation }, &[]).as_message::<Demoted>()?;
        self.stack.release(slot);
        self.return_strays();
        Ok(())
    }

    /// Has the kernel receive what was redirected while the connection was, or was to become, the lane's; some may still be on its way into the ring.
    fn return_strays(&mut self) {
        let settled = Instant::now() + Duration::from_micros(100);
        while Instant::now() < settled {
            self.stack.pass(now());
            self.inject_leftovers();
        }
    }

    pub fn inject_leftovers(&mut self) -> u32 {
        let leftovers = self.stack.take_leftovers();
        let mut injected = 0;
        for batch in leftovers.chunks(MAX_INJECT) {
            let frames: Vec<FrameRef> = batch.iter().map(|leftover| leftover.frame).collect();
            injected += self.inject(batch[0].port, &frames).expect("injection is not refused");
        }
        leftovers.into_iter().for_each(|leftover| self.stack.recycle(leftover));
        injected
    }

    pub fn inject(&self, port: u32, frames: &[FrameRef]) -> Result<u32, Reason> {
        let mut ask = Inject { port, count: frames.len() as u32, frames: [FrameRef::default(); MAX_INJECT] };
        ask.frames[..frames.len()].copy_from_slice(frames);
        self.ask(&ask, &[]).as_message::<Done>().map(|done| done.count)
    }

    /// Sends over the lane.
    pub fn send(&mut self, slot: u32, bytes: &[u8]) {
        let mut rest = bytes;
        let limit = Instant::now() + Duration::from_secs(10);
        while !rest.is_empty() {
            assert!(Instant::now() < limit, "the lane does not take {} bytes", rest.len());
            let taken = self.stack.send(slot, now(), rest, false).expect("a live connection");
            rest = &rest[taken..];
            self.stack.send_touched(now());
            self.stack.pass(now());
        }
    }

    /// Bytes that can be received at once.
    pub fn readable(&mut self, slot: u32) -> usize {
        let unread = self.stack.with_connection(slot, now(), |connection| {
            let (first, second) = connection.unread();
            first.len() + second.len()
        });
        unread.expect("a live connection")
    }

    /// Receives exactly `out.len()` bytes over the lane.
    pub fn recv(&mut self, slot: u32, out: &mut [u8]) {
        let mut have = 0;
        let limit = Instant::now() + Duration::from_secs(10);
        while have < out.len() {
            assert!(Instant::now() < limit, "{have} of {} bytes received", out.len());
            self.stack.pass(now());
            have += self.stack.recv(slot, &mut out[have..], None).expect("a live connection");
            self.stack.send_touched(now());
        }
    }
}

fn hello(path: &Path, stack: &Stack) -> (OwnedFd, OwnedFd) {
    let socket = open_session(path).expect("a session");
    let hello = Hello { pid: std::process::id(), pad: 0, name: [0; 32] };
    let _ = stack.arena().seal();
    let mut answer = ask(socket.as_fd(), &hello, &[stack.arena().fd().unwrap()]);
    answer.as_message::<Welcome>().expect("a welcome");
    let events = answer.fds.pop().expect("the events socket");
    assert_eq!(stack.arena().len(), arena::ARENA_LEN);
    (socket, events)
}
