//! Sees connections on the shm lane while the programs work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use underpass_lab::{Connection, Neighbourhood, wait_for};

use crate::run::LIMIT;

/// The tier, as `underpass ss` names it.
const LANE: &str = "shm";

/// A way that bytes take on the host, named by the port of its server, and what is to be seen at both its ends.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    port: u16,
    wanted: Wanted,
}

/// When a connection is to be on the lane, and which.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Now,
    Once,
    Newest(usize),
}

impl Leg {
    /// A connection is on the lane.
    pub fn on_lane(port: u16) -> Self {
        Self { port, wanted: Wanted::Now }
    }

    /// A connection is, or has been, on the lane: what the program does may take it away at once.
    pub fn has_been_on_lane(port: u16) -> Self {
        Self { port, wanted: Wanted::Once }
    }

    /// The connections made last, so many of them, are on the lane, and there is an older one.
    pub fn newest_on_lane(port: u16, count: usize) -> Self {
        Self { port, wanted: Wanted::Newest(count) }
    }

    fn is_as_wanted(self, mut connections: Vec<&Connection>) -> bool {
        connections.sort_by_key(|connection| std::cmp::Reverse(connection.socket.fd));
        let on_lane = |connection: &&Connection| connection.socket.tier == LANE;
        match self.wanted {
            Wanted::Now => connections.iter().any(on_lane),
            Wanted::Once => connections.iter().any(|c| on_lane(c) || c.socket.promoted > 0),
            Wanted::Newest(count) => connections.len() > count && connections[..count].iter().all(on_lane),
        }
    }
}

/// The side that a preloaded program is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Server,
    Client,
}

impl End {
    /// Is this that end of a connection to the server at `port`?
    fn is_of(self, connection: &Connection, port: u16) -> bool {
        let (Some(local), Some(peer)) = (connection.local, connection.peer) else { return false };
        port == if self == Self::Server { local.port() } else { peer.port() }
    }
}

/// What has not been seen yet, and what has been seen so far.
pub struct Watch {
    legs: Vec<Leg>,
    sight: Mutex<Sight>,
}

#[derive(Default)]
struct Sight {
    unseen: Vec<(Leg, End)>,
    /// Which connections were met how often, in which tier and why.
    met: BTreeMap<String, u32>,
    looks: u32,
    error: Option<String>,
}

impl Watch {
    /// Both ends of these are to be seen.
    pub fn new(legs: &[Leg]) -> Self {
        let unseen = legs.iter().flat_map(|&leg| [(leg, End::Server), (leg, End::Client)]).collect();
        Self { sight: Mutex::new(Sight { unseen, ..Sight::default() }), legs: legs.to_vec() }
    }

    /// Was everything seen?
    pub fn is_over(&self) -> bool {
        self.sight().unseen.is_empty()
    }

    /// Looks at the host's connections, until all was seen, while the work is done.
    pub fn during<T>(&self, place: &Neighbourhood, work: impl Fn() -> T) -> T {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let over = || self.is_over() || done.load(Ordering::Relaxed);
                // The work has deadlines of its own.
                let _ = wait_for("connections on the lane", LIMIT, || {
                    if !over() {
                        self.look(place);
                    }
                    over()
                });
            });
            let _done = Done(&done);
            work()
        })
    }

    fn look(&self, place: &Neighbourhood) {
        let found = place.connections();
        let mut sight = self.sight();
        sight.looks += 1;
        match found {
            // A process may have ended while it was looked at.
            Err(error) => sight.error = Some(error.to_string()),
            Ok(all) => self.legs.iter().for_each(|leg| sight.see(*leg, &all)),
        }
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sight {
    fn see(&mut self, leg: Leg, all: &[Connection]) {
        for end in [End::Server, End::Client] {
            let found: Vec<&Connection> = all.iter().filter(|one| end.is_of(one, leg.port)).collect();
            for Connection { socket, .. } in &found {
                let (port, tier, reason, state) = (leg.port, &socket.tier, &socket.reason, &socket.state);
                let moves = format!("{} times promoted, {} demoted", socket.promoted, socket.demoted);
                let line = format!("port {port}, {end:?}: {tier} ({reason}), {state}, {moves}");
                *self.met.entry(line).or_insert(0) += 1;
            }
            if leg.is_as_wanted(found) {
                self.unseen.retain(|(other, side)| (other.port, *side) != (leg.port, end));
            }
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sight = self.sight();
        writeln!(f, "not seen, in {} looks: {:?}", sight.looks, sight.unseen)?;
        sight.met.iter().try_for_each(|(line, times)| writeln!(f, "  {line}: {times} times"))?;
        sight.error.iter().try_for_each(|error| writeln!(f, "  {error}"))
    }
}

/// Says so when it is dropped, by a panic too.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
