//! The meetings in progress, and the trunks they have led to: what the helper watches, and what it does when something comes.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use underpass_stack::lane::Reason;
use underpass_stack::lane::shm::meeting::{self, Agreed, Call, MAX_MESSAGE, Offer, Step};
use underpass_stack::mem::Shared;

use super::super::address::Ends;
use super::super::bells::Bells;
use super::super::trunk::Trunk;
use super::proof::{is_owner, our_end};
use super::{NEWS, Outcome, PATIENCE, Work, refuse};
use crate::errno::Errno;
use crate::fd::{Own, Ref};
use crate::socket::Socket;
use crate::{options, sys};

/// Meetings at which we wait for the other end to come, at most (and no more than an eighth of the descriptors).
const PATIENT: u64 = 1024;

/// What an event of the helper's epoll set is about.
const MEETING: u64 = 1 << 56;
pub(super) const TRUNK: u64 = 2 << 56;
pub(super) const BELL: u64 = 3 << 56;
pub(super) const FLUSH: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;

/// How far a meeting has come.
pub(super) enum Stage {
    /// Bound to the name, waiting for the other end.
    Listening,
    /// Called, waiting for the offer.
    Called,
    /// Was called, waiting for the call's words.
    Answering,
    /// Has offered, waiting for the agreement.
    Offered(Offered),
}

pub(super) struct Offered {
    pub(super) channel: Shared,
    pub(super) ring: usize,
    pub(super) number: usize,
    pub(super) trunk: Candidate,
}

/// The trunk of an offer.
pub(super) enum Candidate {
    Known(Arc<Trunk>),
    New { id: [u64; 2], process: [u64; 2], shared: Shared, ours: Bells },
}

pub(super) struct Meeting {
    pub(super) socket: Ref<Socket>,
    pub(super) ends: Ends,
    pub(super) fd: Own,
    pub(super) stage: Stage,
    pub(super) since: u64,
}

pub(super) struct Meetings {
    pub(super) epoll: Own,
    pub(super) next: u64,
    pub(super) meetings: HashMap<u64, Meeting, foldhash::fast::RandomState>,
    pub(super) trunks: HashMap<u64, Arc<Trunk>, foldhash::fast::RandomState>,
    /// Channels whose sockets have not been switched over yet.
    pub(super) arrived: Vec<u32>,
    pub(super) process: [u64; 2],
}

impl Meetings {
    pub(super) fn new() -> Option<Self> {
        let epoll = Own::new(sys::epoll_create().ok()?);
        NEWS.store(epoll.as_raw_fd(), Release);
        Some(Self {
            epoll,
            next: 0,
            meetings: HashMap::default(),
            trunks: HashMap::default(),
            arrived: Vec::new(),
            process: sys::random(),
        })
    }

    pub(super) fn watch(&self, fd: RawFd, token: u64) -> Outcome<()> {
        sys::epoll_set(self.epoll.as_raw_fd(), fd, libc::EPOLLIN as u32, token).map_err(|_| Reason::Failed)
    }

    pub(super) fn token(&mut self) -> u64 {
        self.next += 1;
        self.next & !KIND
    }

    /// Goes to the meeting place: calls if somebody is there, else waits there.
    pub(super) fn begin(&mut self, socket: &Ref<Socket>) -> Outcome<()> {
        let mine = our_end(socket)?;
        let raw = mine.as_raw_fd();
        let ends = Ends::of(raw).map_err(|_| Reason::NotConnected)?;
        let name = meeting::name(ends.local, ends.remote).ok_or(Reason::Loopback)?;
        for _ in 0..3 {
            match sys::connect_abstract(&name) {
                Ok(place) => {
                    is_owner(&place, ends)?;
                    let call = Call { process: self.process, ring: options::get().shm_ring.into() };
                    sys::send_with_fds(place.as_fd(), &call.encode(), &[raw]).map_err(|_| Reason::PeerSilent)?;
                    return self.enter(socket, ends, place, Stage::Called);
                }
                Err(Errno(libc::ECONNREFUSED)) => {}
                Err(_) => return Err(Reason::PeerSilent),
            }
            match sys::listen_abstract(&name) {
                Ok(place) => {
                    self.make_room();
                    return self.enter(socket, ends, place, Stage::Listening);
                }
                // The other end has come in between.
                Err(Errno(libc::EADDRINUSE)) => {}
                Err(_) => return Err(Reason::Failed),
            }
        }
        Err(Reason::NoPeer)
    }

    fn enter(&mut self, socket: &Ref<Socket>, ends: Ends, place: OwnedFd, stage: Stage) -> Outcome<()> {
        let place = Own::new(place);
        let id = self.token();
        self.watch(place.as_raw_fd(), MEETING | id)?;
        let meeting = Meeting { socket: socket.clone(), ends, fd: place, stage, since: sys::now().0 };
        self.meetings.insert(id, meeting);
        Ok(())
    }

    /// Of those who wait for a peer to come, the one who has waited longest gives up.
    fn make_room(&mut self) {
        let listening = || self.meetings.iter().filter(|(_, m)| matches!(m.stage, Stage::Listening));
        let patient = (sys::descriptor_limit() / 8).min(PATIENT);
        if listening().count() as u64 >= patient
            && let Some(id) = listening().min_by_key(|(_, m)| m.since).map(|(id, _)| *id)
        {
            self.give_up(id, Reason::NoPeer);
        }
    }

    fn give_up(&mut self, id: u64, reason: Reason) {
        if let Some(meeting) = self.meetings.remove(&id) {
            refuse(&meeting.socket, reason);
        }
    }

    pub(super) fn expire(&mut self) {
        let now = sys::now().0;
        let late = |m: &Meeting| !matches!(m.stage, Stage::Listening) && now.saturating_sub(m.since) > PATIENCE;
        let late: Vec<u64> = self.meetings.iter().filter(|(_, m)| late(m)).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.give_up(id, Reason::PeerSilent));
    }

    /// Looks at every socket here.
    pub(super) fn news(&mut self) -> Vec<Work> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let mut work = Vec::new();
        while let Ok(count @ 1..) = sys::epoll_look(self.epoll.as_raw_fd(), &mut events) {
            for event in &events[..count] {
                let (kind, id) = (event.u64 & KIND, event.u64 & !KIND);
                match kind {
                    MEETING => self.step(id),
                    TRUNK => work.extend(self.hung_up(id)),
                    BELL => work.push(Work::Collect),
                    _ => work.push(Work::Flush(id as u32)),
                }
            }
            if count < events.len() || !work.is_empty() {
                break;
            }
        }
        work
    }

    fn hung_up(&mut self, id: u64) -> Option<Work> {
        let trunk = self.trunks.remove(&id)?;
        let _ = sys::epoll_del(self.epoll.as_raw_fd(), trunk.socket());
        Some(Work::HangUp(trunk))
    }

    /// Something has come for a meeting.
    fn step(&mut self, id: u64) {
        let Some(meeting) = self.meetings.get(&id) else { return };
        if matches!(meeting.stage, Stage::Listening) {
            self.accept(id);
            return;
        }
        let mut bytes = [0; MAX_MESSAGE];
        let (len, fds) = match sys::recv_with_fds(meeting.fd.as_fd(), &mut bytes, libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return,
            Ok((0, _)) | Err(_) => return self.give_up(id, Reason::PeerSilent),
            Ok(received) => received,
        };
        let Some(meeting) = self.meetings.remove(&id) else { return };
        let socket = meeting.socket.clone();
        match self.advance(id, meeting, &bytes[..len], fds) {
            Ok(Some(number)) => self.arrived.push(number),
            Ok(None) => {}
            Err(reason) => refuse(&socket, reason),
        }
    }

    /// One step on. Returns the number of the channel when the meeting is over.
    fn advance(&mut self, id: u64, meeting: Meeting, bytes: &[u8], fds: Vec<OwnedFd>) -> Outcome<Option<u32>> {
        let Meeting { socket, ends, fd, stage, since } = meeting;
        match stage {
            Stage::Called => {
                let offer = Offer::decode(bytes).ok_or(Reason::ProtocolError)?;
                self.agree(&socket, ends, fd, &offer, fds).map(Some)
            }
            Stage::Answering => {
                let call = Call::decode(bytes).ok_or(Reason::ProtocolError)?;
                let stage = Stage::Offered(self.offer(&socket, ends, &fd, &call, fds)?);
                self.meetings.insert(id, Meeting { socket, ends, fd, stage, since });
                Ok(None)
            }
            Stage::Offered(offered) => {
                Agreed::decode(bytes).ok_or(Reason::ProtocolError)?;
                self.agreed(&socket, fd, offered, fds).map(Some)
            }
            Stage::Listening => Ok(None),
        }
    }

    /// The other end has come to our place.
    fn accept(&mut self, id: u64) {
        let Some(meeting) = self.meetings.remove(&id) else { return };
        let socket = meeting.socket.clone();
        let came = sys::accept_seqpacket(meeting.fd.as_fd()).map_err(|_| Reason::PeerSilent);
        let entered = came.and_then(|caller| {
            our_end(&socket)?;
            is_owner(&caller, meeting.ends)?;
            self.enter(&socket, meeting.ends, caller, Stage::Answering)
        });
        if let Err(reason) = entered {
            refuse(&socket, reason);
        }
    }
}
