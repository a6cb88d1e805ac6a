//! A bad link between the hosts of a lab: every frame passes through a thread of ours, which delays, loses, reorders and queues it.
//!
//! The two hosts' cables end in a namespace of their own; a frame that comes out of one goes into the other after what the simulation's
//! [`Link`] makes of it, so that link and simulation mean the same by the same words. Whoever sends it, kernel or Underpass, is
//! treated alike: segmentation and checksum offload of the hosts are off.

mod forwarder;
mod lateness;
mod marks;
mod packet;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use underpass_stack::testkit::{Link, LinkSpec};

use self::forwarder::Forwarder;
pub use self::lateness::Lateness;
pub use self::marks::marked;
use self::packet::PacketSocket;
use crate::LabError;
use crate::error::Doing;
use crate::namespace::Namespace;

/// What happened on the link since [`BadLink::set`].
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    /// Frames that hosts have sent, by the sending side.
    pub offered: [u64; 2],
    /// Of these, lost because the queue was full.
    pub overflowed: [u64; 2],
    /// Frames lost because the forwarder itself was too slow: should be none.
    pub dropped: u64,
    /// How late frames left.
    pub lateness: Lateness,
}

/// What the forwarder and its owner tell each other.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Links to use from now on, by the sending side; taken by the forwarder.
    next: Option<[Link; 2]>,
    /// Segments that carry a mark are lost once.
    lose_marked: bool,
    report: LinkReport,
}

/// A running forwarder; stops when dropped.
#[derive(Debug)]
pub struct BadLink {
    board: Arc<Mutex<Board>>,
    bell: UnixStream,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl BadLink {
    /// Forwards between two interfaces of `namespace`, the ends of the server's and of the client's cable.
    pub(crate) fn start(namespace: &Namespace, interfaces: [u32; 2], spec: LinkSpec) -> Result<Self, LabError> {
        let [server, client] = interfaces;
        let open = || Ok([PacketSocket::open(server)?, PacketSocket::open(client)?]);
        let sockets = namespace.inside(open)?.map_err(|error: std::io::Error| error);
        let sockets = sockets.doing("open packet sockets")?;
        let (bell, heard) = UnixStream::pair().doing("make a pair of sockets")?;
        heard.set_nonblocking(true).doing("make a bell")?;
        let board = Arc::new(Mutex::new(Board::default()));
        let forwarder = Forwarder::new(sockets, heard, board.clone());
        let thread = std::thread::Builder::new().name("bad-link".into()).spawn(move || forwarder.run());
        let link = Self { board, bell, thread: Some(thread.doing("start the forwarder")?) };
        link.set(spec, 1)?;
        Ok(link)
    }

    /// Both directions are like this from now on, with fresh random numbers; what is under way is lost.
    pub fn set(&self, spec: LinkSpec, seed: u64) -> Result<(), LabError> {
        self.set_each([spec, spec], seed)
    }

    /// The same, by the side that sends: server, client.
    pub fn set_each(&self, specs: [LinkSpec; 2], seed: u64) -> Result<(), LabError> {
        let [server, client] = specs;
        let seed = seed.wrapping_mul(2);
        self.write(|board| board.next = Some([Link::new(server, seed), Link::new(client, seed.wrapping_add(1))]))?;
        crate::wait_for("the link to change", std::time::Duration::from_secs(5), || {
            self.write(|board| board.next.is_none()).unwrap_or(false) || self.has_ended()
        })?;
        self.check()
    }

    /// Whether segments whose data ends with a [`marked`] message are lost, each once.
    pub fn lose_marked(&self, on: bool) -> Result<(), LabError> {
        self.write(|board| board.lose_marked = on)
    }

    /// What happened since the link was last set.
    pub fn report(&self) -> Result<LinkReport, LabError> {
        self.check()?;
        self.write(|board| board.report.clone())
    }

    fn check(&self) -> Result<(), LabError> {
        if self.has_ended() { Err(LabError::new("the bad link's forwarder has failed")) } else { Ok(()) }
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Board) -> T) -> Result<T, LabError> {
        let told = change(&mut *self.board.lock().map_err(|_| LabError::new("the forwarder has panicked"))?);
        (&self.bell).write_all(&[1]).doing("ring the forwarder")?;
        Ok(told)
    }
}

impl Drop for BadLink {
    fn drop(&mut self) {
        // The forwarder ends when it hears that the bell is gone.
        let _ = self.bell.shutdown(std::net::Shutdown::Both);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("underpass lab: bad link: {error}"),
            Some(Err(_)) => eprintln!("underpass lab: the bad link's forwarder has panicked"),
            Some(Ok(Ok(()))) | None => (),
        }
    }
}
