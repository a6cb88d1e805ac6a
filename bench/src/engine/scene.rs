//! The work, the same for every engine.

use std::io;
use std::time::Instant;

use underpass_stack::testkit::crowd::Peer;

use super::{Engine, FULL, Run};
use crate::median;

/// Bytes of a request and of a response.
const MESSAGE: usize = 64;
/// Times the work is done between two looks at the clock.
pub const GROUP: usize = 64;
/// Groups before the first that counts, at least; every connection has its turn before, and its memory.
const WARM_UP: usize = 16;
/// Connections are visited in steps of this, a prime: each as often as the others, neighbours in memory not one after the other.
const STEP: usize = 7919;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A full segment arrives in order, and the program reads it.
    Receive,
    /// An acknowledgement of a full segment arrives.
    Ack,
    /// The program writes a full segment, which is sent.
    Send,
    /// A request of 64 bytes arrives, the program reads it and writes a response, which is sent.
    RequestResponse,
}

/// All of them.
pub const SCENES: [Scene; 4] = [Scene::Receive, Scene::Ack, Scene::Send, Scene::RequestResponse];

impl Scene {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive 1460 B",
            Self::Ack => "pure ACK",
            Self::Send => "send 1460 B",
            Self::RequestResponse => "64 B request/response",
        }
    }
}

/// What a scene has cost.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Nanoseconds each time, the median of the groups' means.
    pub ns: f64,
    /// Segments that the engine sent, each time.
    pub sent: f64,
    /// Times that were measured.
    pub count: usize,
}

/// Plays `groups` groups, and some as a warm-up before.
pub fn run<E: Engine>(engine: &mut E, run: Run, groups: usize) -> io::Result<Figures> {
    let Run { scene, connections, burst, .. } = run;
    // A single connection has all of a pass.
    let (each, at_once) = if connections == 1 { (burst, 1) } else { (1, burst) };
    let mut hands = Hands { data: pattern(each), out: vec![0; FULL * each], each, at_once, next: 0, sent: 0 };
    let mut times = Vec::with_capacity(groups);
    let warm_up = WARM_UP.max(connections.div_ceil(GROUP));
    for group in 0..warm_up + groups {
        if group == warm_up {
            hands.sent = 0;
        }
        let visited: Vec<usize> = (0..GROUP / each).map(|n| (hands.next + n) * STEP % connections).collect();
        hands.next += GROUP / each;
        let ns = hands.group(engine, scene, &visited, group >= warm_up)?;
        if group >= warm_up {
            times.push(ns / GROUP as f64);
        }
    }
    let count = groups * GROUP;
    let ns = median(times).unwrap_or(f64::NAN);
    Ok(Figures { ns, sent: hands.sent as f64 / count as f64, count })
}

fn pattern(burst: usize) -> Vec<u8> {
    (0..FULL * burst).map(|n| (n * 31 + 7) as u8).collect()
}

struct Hands {
    data: Vec<u8>,
    out: Vec<u8>,
    /// Times that each visit of a connection does the work, and visits in one pass.
    each: usize,
    at_once: usize,
    next: usize,
    sent: u64,
}

impl Hands {
    fn group<E: Engine>(&mut self, engine: &mut E, scene: Scene, visited: &[usize], counts: bool) -> io::Result<f64> {
        self.before(engine, scene, visited)?;
        let region = if counts { measured_region::<E> } else { warming_region::<E> };
        let start = Instant::now();
        let moved = region(engine, scene, visited, self);
        let ns = start.elapsed().as_nanos() as f64;
        let size = match scene {
            Scene::Receive | Scene::Send => FULL,
            Scene::Ack => 0,
            Scene::RequestResponse => 2 * MESSAGE,
        };
        expect(moved, size * GROUP)?;
        self.after(engine, scene, visited)?;
        Ok(ns)
    }

    fn before<E: Engine>(&mut self, engine: &mut E, scene: Scene, visited: &[usize]) -> io::Result<()> {
        for &connection in visited {
            match scene {
                Scene::Receive => self.data.chunks(FULL).for_each(|data| engine.stage(connection, false, data)),
                Scene::Ack => expect(engine.write(connection, &self.data), self.data.len())?,
                Scene::Send => (),
                Scene::RequestResponse => {
                    let requests = &self.data[..self.each * MESSAGE];
                    requests.chunks(MESSAGE).for_each(|data| engine.stage(connection, true, data));
                    // The next request of the same connection comes after the response.
                    engine.foresee(connection, requests.len());
                }
            }
        }
        if scene == Scene::Ack {
            for &connection in visited {
                for _ in 0..self.each {
                    engine.foresee(connection, FULL);
                    engine.stage(connection, false, &[]);
                }
            }
            self.check(engine, FULL * GROUP)?;
        }
        Ok(())
    }

    fn after<E: Engine>(&mut self, engine: &mut E, scene: Scene, visited: &[usize]) -> io::Result<()> {
        match scene {
            Scene::Receive => {
                expect_same(&self.out, &self.data)?;
                self.sent += self.check(engine, 0)?;
            }
            Scene::Ack => self.sent += self.check(engine, 0)?,
            Scene::Send => {
                self.sent += self.check(engine, FULL * GROUP)?;
                for &connection in visited {
                    engine.foresee(connection, self.data.len());
                    engine.stage(connection, false, &[]);
                    engine.receive(1);
                }
                self.check(engine, 0)?;
            }
            Scene::RequestResponse => {
                let size = self.each * MESSAGE;
                expect_same(&self.out[..size], &self.data[..size])?;
                self.sent += self.check(engine, MESSAGE * GROUP)?;
            }
        }
        Ok(())
    }

    /// The peers take what was sent: so much data, in so many segments.
    fn check<E: Engine>(&mut self, engine: &mut E, bytes: usize) -> io::Result<u64> {
        let (segments, data) = engine.collect()?;
        expect(data as usize, bytes)?;
        Ok(segments)
    }
}

/// All that is timed and counted; its name is what callgrind is told to look for. Returns the bytes that the program moved.
#[inline(never)]
fn measured_region<E: Engine>(engine: &mut E, scene: Scene, visited: &[usize], hands: &mut Hands) -> usize {
    work(engine, scene, visited, hands)
}

/// The same as a warm-up: what connections need the first time, memory for instance, is not counted.
#[inline(never)]
fn warming_region<E: Engine>(engine: &mut E, scene: Scene, visited: &[usize], hands: &mut Hands) -> usize {
    // So that the two are not taken for one.
    std::hint::black_box(work(engine, scene, visited, hands))
}

#[inline(always)]
fn work<E: Engine>(engine: &mut E, scene: Scene, visited: &[usize], hands: &mut Hands) -> usize {
    let Hands { data, out, each, at_once, .. } = hands;
    let (mut moved, each, at_once) = (0, *each, *at_once);
    let messages = each * MESSAGE;
    match scene {
        Scene::Receive => {
            for some in visited.chunks(at_once) {
                engine.receive(each * some.len());
                some.iter().for_each(|&connection| moved += engine.read(connection, out));
            }
        }
        Scene::Ack => visited.chunks(at_once).for_each(|some| engine.receive(each * some.len())),
        Scene::Send => {
            for &connection in visited {
                moved += engine.write(connection, data);
            }
        }
        Scene::RequestResponse => {
            for some in visited.chunks(at_once) {
                engine.receive(each * some.len());
                for &connection in some {
                    moved += engine.read(connection, &mut out[..messages]);
                    moved += engine.write(connection, &data[..messages]);
                }
            }
        }
    }
    moved
}

fn expect(found: usize, wanted: usize) -> io::Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(io::Error::other(format!("{found} bytes instead of {wanted}")))
}

fn expect_same(found: &[u8], wanted: &[u8]) -> io::Result<()> {
    if found == wanted { Ok(()) } else { Err(io::Error::other("other bytes than were sent")) }
}

/// Reads what an engine has sent, frame by frame: addressed to one of the peers, checksums right, data the next that it has not
/// taken yet. Returns segments and bytes.
pub(super) fn collect(
    drain: impl FnOnce(&mut dyn FnMut(&[u8])) -> usize,
    peers: &[Peer],
    taken: &mut [u32],
) -> io::Result<(u64, u64)> {
    let (mut bytes, mut wrong) = (0, 0);
    let segments = drain(&mut |frame| {
        let number = Peer::number(frame).filter(|&number| number < peers.len());
        let data = number.and_then(|number| {
            let mut peer = peers[number];
            peer.ack = taken[number];
            let data = peer.receive(frame)?;
            taken[number] = peer.ack;
            Some(data.len())
        });
        bytes += data.unwrap_or(0) as u64;
        wrong += u64::from(data.is_none());
    });
    if wrong == 0 { Ok((segments as u64, bytes)) } else { Err(io::Error::other(format!("{wrong} wrong segments"))) }
}
