//! Clients that have hung up but live: a daemon that stood still for too long, a message that it could not read. Their lanes go on, so
//! nothing of theirs may go to the kernel until they come back, in a new session, or die.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::{fstat, major, minor};
use underpass_stack::mem::Region;

use super::session::{Conn, Session};
use super::state::Daemon;

/// Time between looks at what has become of them.
const INTERVAL: Duration = Duration::from_secs(1);

impl Daemon {
    /// The conversation with a client is over. If it is dead, what it had goes back to the kernel; if it lives, its lanes stay its own.
    pub fn hung_up(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.absent_since.is_none()) else { return };
        if !session.lives() {
            return self.end_session(id);
        }
        // Whether it has heard of these or not, it does not count on them.
        for slot in session.untaken() {
            if let Err(refusal) = self.give_back_untaken(id, slot) {
                tracing::warn!("session {id}: {refusal}");
            }
        }
        self.poller_forgets(id);
        self.waiting.retain(|waiting| waiting.session != id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.absent_since = Some(Instant::now());
        session.events = None;
        // A client that does not know of it yet finds out.
        let _ = shutdown(session.socket.as_raw_fd(), Shutdown::Both);
        let (pid, count) = (session.peer.pid, session.conns.len());
        tracing::warn!("session {id}: pid {pid} has hung up but lives, {count} connections stay on its lane");
    }

    fn poller_forgets(&self, id: u32) {
        if let Some(session) = self.sessions.get(&id) {
            self.poller.remove(&session.socket);
        }
    }

    /// When to look after the absent next; `None` while there are none.
    pub fn absent_due(&self) -> Option<Instant> {
        self.sessions.values().filter_map(|session| session.absent_since).min().map(|since| since + INTERVAL)
    }

    /// What the absent have left: everything if they have died meanwhile, else the connections that have ended on the lane.
    pub fn look_after_absent(&mut self, now: Instant) {
        let due = |session: &&Session| session.absent_since.is_some_and(|since| since + INTERVAL <= now);
        let ids: Vec<u32> = self.sessions.values().filter(due).map(|session| session.id).collect();
        for id in ids {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if !session.lives() {
                self.end_session(id);
                continue;
            }
            session.absent_since = Some(now);
            for slot in session.untaken() {
                self.ended(id, slot);
            }
            self.dismiss_if_empty(id);
        }
    }

    /// A client has come (back): what it hung up on before is to be known as such.
    pub fn notice_return(&mut self, pid: i32) {
        let gone =
            |session: &&Session| session.peer.pid == pid && session.absent_since.is_none() && session.has_hung_up();
        let ids: Vec<u32> = self.sessions.values().filter(gone).map(|session| session.id).collect();
        for id in ids {
            self.hung_up(id);
        }
    }

    /// A client that has come back hands over an attachment: the absent session lets go of it.
    pub fn take_port_back(&mut self, pid: i32, netns: u64, ifindex: u32) {
        let found = self.absent_of(pid).find_map(|session| Some((session.id, session.port_on(netns, ifindex)?.0)));
        if let Some((id, number)) = found {
            self.drop_port(id, number);
            self.dismiss_if_empty(id);
        }
    }

    /// The same with a connection.
    pub fn take_conn_back(&mut self, pid: i32, cookie: u64) {
        let of = |session: &Session| {
            let slot = session.conns.iter().find(|(_, conn)| conn.cookie == cookie).map(|(slot, _)| *slot)?;
            Some((session.id, slot))
        };
        let found = self.absent_of(pid).find_map(of);
        if let Some((id, slot)) = found {
            self.remove_conn(id, slot);
            self.dismiss_if_empty(id);
        }
    }

    fn absent_of(&self, pid: i32) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(move |session| session.absent_since.is_some() && session.peer.pid == pid)
    }

    fn remove_conn(&mut self, id: u32, slot: u32) -> Option<Conn> {
        self.sessions.get_mut(&id)?.conns.remove(&slot)
    }

    /// A connection that nobody holds any more: closed by its program meanwhile, it has come to its end on the lane. The kernel's socket,
    /// closed in repair mode, says nothing to the peer.
    fn ended(&mut self, id: u32, slot: u32) {
        let Some(conn) = self.remove_conn(id, slot) else { return };
        tracing::debug!("session {id}: {:?} has ended on the lane", conn.flow);
        if let Some(interface) = self.interface(conn.netns, conn.path.ifindex) {
            interface.steer.release(&conn.flow);
        }
    }

    /// An absent session without connections is over. Its queues are a living client's: nobody else may read them.
    fn dismiss_if_empty(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.conns.is_empty()) else { return };
        if let Some(pidfd) = &session.pidfd {
            self.poller.remove(pidfd);
        }
        let ports: Vec<u32> = session.ports.keys().copied().collect();
        for number in ports {
            self.drop_port(id, number);
        }
        self.sessions.remove(&id);
        self.tidy();
    }
}

impl Session {
    /// Has the client closed its end? Then nobody waits for answers.
    pub fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let ended = |events: PollFlags| events.contains(PollFlags::POLLHUP);
        poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(ended)
    }

    /// Does the client run on, with connections on lanes? A process that has ended, or become another program, has its arena mapped no more.
    fn lives(&self) -> bool {
        let in_use = self.conns.len() > self.untaken().len();
        in_use
            && self.arena.as_ref().and_then(Region::fd).is_some_and(|arena| maps(self.peer.pid, arena).unwrap_or(false))
    }

    /// Connections that the stack has not taken over, or has ended.
    fn untaken(&self) -> Vec<u32> {
        let taken = |slot: u32, conn: &Conn| self.taken_over(slot, conn.generation).is_some();
        self.conns.iter().filter(|(slot, conn)| !taken(**slot, conn)).map(|(slot, _)| *slot).collect()
    }
}

/// Is this file mapped in a process, proc_pid_maps(5)?
fn maps(pid: i32, file: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = fstat(file)?;
    let wanted = (format!("{:02x}:{:02x}", major(stat.st_dev), minor(stat.st_dev)), stat.st_ino.to_string());
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Empty where the thread has ended, although others may run on.
        let maps = fs::read_to_string(task?.path().join("maps")).unwrap_or_default();
        if !maps.is_empty() {
            return Ok(maps.lines().any(|line| is_mapping_of(line, &wanted)));
        }
    }
    Ok(false)
}

fn is_mapping_of(line: &str, (device, inode): &(String, String)) -> bool {
    let mut words = line.split_ascii_whitespace().skip(3);
    words.next() == Some(device) && words.next() == Some(inode)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_maps_an_arena_runs_on_and_who_has_become_another_program_does_not() {
        let own = std::process::id() as i32;
        let arena = Region::create(c"an-arena", 4096).unwrap();
        let file = arena.fd().unwrap().try_clone_to_owned().unwrap();
        assert!(maps(own, file.as_fd()).unwrap());
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!maps(other.id() as i32, file.as_fd()).unwrap());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(maps(other.id() as i32, file.as_fd()).is_err(), "nobody has this number any more");
        drop(arena);
        assert!(!maps(own, file.as_fd()).unwrap(), "only held, not mapped");
    }
}
