//! The steps of a meeting once the two have come: call, offer, agreement.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use underpass_stack::lane::Reason;
use underpass_stack::lane::shm::layout::{
    CHANNEL_NAME, CHANNELS, LINE_WORDS, PLACES, TRUNK_LEN, TRUNK_NAME, channel_len, flag, is_ring_size, line, line_at,
};
use underpass_stack::lane::shm::meeting::{Agreed, Call, Offer, Step};
use underpass_stack::mem::Shared;

use super::super::address::Ends;
use super::super::bells::{self, Bells};
use super::super::channel::{Channel, End};
use super::super::places;
use super::super::trunk::{Trunk, trunks};
use super::proof::{is_mirror, our_end};
use super::{Candidate, Meetings, Offered, Outcome, TRUNK};
use crate::fd::{Own, Ref};
use crate::options;
use crate::socket::Socket;
use crate::sys;

/// The side of a channel and of a trunk that made it, and the other.
const MAKER: usize = 0;
const TAKER: usize = 1;

impl Meetings {
    /// We were called: the channel is made and offered.
    pub(super) fn offer(
        &mut self,
        socket: &Ref<Socket>,
        ends: Ends,
        caller: &Own,
        call: &Call,
        mut fds: Vec<OwnedFd>,
    ) -> Outcome<Offered> {
        let mine = our_end(socket)?;
        let raw = mine.as_raw_fd();
        let [theirs] = &mut fds[..] else { return Err(Reason::ProtocolError) };
        is_mirror(theirs, raw, ends)?;
        drop(fds);
        let wished = usize::try_from(call.ring).unwrap_or(0);
        let own = options::get().shm_ring as usize;
        let ring = if is_ring_size(wished) { wished.max(own) } else { own };
        let (channel, channel_fd) = Shared::create(CHANNEL_NAME, channel_len(ring)).map_err(|_| Reason::StackFull)?;
        let mut passed = vec![raw, channel_fd.as_raw_fd()];
        let (trunk, number, trunk_fd) = self.candidate(call.process, caller)?;
        passed.extend(trunk_fd.as_ref().map(|fd| fd.as_raw_fd()));
        let id = match &trunk {
            Candidate::Known(trunk) => trunk.id,
            Candidate::New { id, ours, .. } => {
                passed.extend(ours.fds());
                *id
            }
        };
        let offer = Offer {
            ring: ring as u64,
            trunk: id,
            process: self.process,
            is_new: u32::from(trunk_fd.is_some()),
            channel: number as u32,
        };
        sys::send_with_fds(caller.as_fd(), &offer.encode(), &passed).map_err(|_| Reason::PeerSilent)?;
        Ok(Offered { channel, ring, number, trunk })
    }

    /// A trunk with that process that has a number left, or a new one.
    fn candidate(&mut self, process: [u64; 2], caller: &Own) -> Outcome<(Candidate, usize, Option<OwnedFd>)> {
        for trunk in trunks().iter().filter(|trunk| trunk.process == process && trunk.is_alive()) {
            if let Some(number) = trunk.number() {
                return Ok((Candidate::Known(trunk.clone()), number, None));
            }
        }
        let (shared, fd) = Shared::create(TRUNK_NAME, TRUNK_LEN).map_err(|_| Reason::StackFull)?;
        let ours = self.bells(caller)?;
        // The maker gives even numbers, beginning at the first.
        Ok((Candidate::New { id: sys::random(), process, shared, ours }, 0, Some(fd)))
    }

    /// Bells for the process at the other end of `socket`; the general place's are heard here.
    fn bells(&mut self, socket: &Own) -> Outcome<Bells> {
        let user = sys::peer_user(socket.as_fd()).map_err(|_| Reason::PeerSilent)?;
        let made = Bells::made_for(user).map_err(|_| Reason::StackFull)?;
        for bell in bells::of(places::GENERAL).into_iter().filter(|&bell| bell >= 0) {
            self.watch(bell, super::BELL)?;
        }
        Ok(made)
    }

    /// We called and were offered a channel: agreed, if the offer comes from the other end of our connection.
    pub(super) fn agree(
        &mut self,
        socket: &Ref<Socket>,
        ends: Ends,
        place: Own,
        offer: &Offer,
        fds: Vec<OwnedFd>,
    ) -> Outcome<u32> {
        let mut fds = fds.into_iter();
        let (Some(theirs), Some(channel)) = (fds.next(), fds.next()) else { return Err(Reason::ProtocolError) };
        is_mirror(&theirs, our_end(socket)?.as_raw_fd(), ends)?;
        drop(theirs);
        let ring = usize::try_from(offer.ring).ok().filter(|&ring| is_ring_size(ring)).ok_or(Reason::ProtocolError)?;
        let channel = Shared::open(channel, channel_len(ring)).map_err(|_| Reason::ProtocolError)?;
        let number = offer.channel as usize;
        let agreed = Agreed { channel: offer.channel, pad: 0 }.encode();
        let trunk = if offer.is_new == 1 {
            // The maker gives even numbers.
            let memory =
                fds.next().filter(|_| number < CHANNELS && number % 2 == MAKER).ok_or(Reason::ProtocolError)?;
            let theirs: Vec<OwnedFd> = fds.map(sys::out_of_the_way).collect();
            let shared = Shared::open(memory, TRUNK_LEN).map_err(|_| Reason::ProtocolError)?;
            let ours = self.bells(&place)?;
            sys::send_with_fds(place.as_fd(), &agreed, &ours.fds()).map_err(|_| Reason::PeerSilent)?;
            self.join_trunk(offer.trunk, offer.process, shared, TAKER, (theirs, ours), place)?
        } else {
            // A process that holds both ends has both sides of one trunk: ours is the one that the number is new to.
            let known = |trunk: &&Arc<Trunk>| trunk.id == offer.trunk && trunk.is_alive() && trunk.accepts(number);
            let known = trunks().iter().find(known).cloned().ok_or(Reason::ProtocolError)?;
            sys::send_with_fds(place.as_fd(), &agreed, &[]).map_err(|_| Reason::PeerSilent)?;
            known
        };
        open(socket, channel, TAKER, ring, number, trunk)
    }

    /// Our offer was accepted.
    pub(super) fn agreed(
        &mut self,
        socket: &Ref<Socket>,
        place: Own,
        offered: Offered,
        fds: Vec<OwnedFd>,
    ) -> Outcome<u32> {
        let Offered { channel, ring, number, trunk } = offered;
        let trunk = match trunk {
            Candidate::Known(trunk) => trunk,
            Candidate::New { id, process, shared, ours } => {
                let theirs = fds.into_iter().map(sys::out_of_the_way).collect();
                self.join_trunk(id, process, shared, MAKER, (theirs, ours), place)?
            }
        };
        open(socket, channel, MAKER, ring, number, trunk)
    }

    fn join_trunk(
        &mut self,
        id: [u64; 2],
        process: [u64; 2],
        shared: Shared,
        side: usize,
        (bells, ours): (Vec<OwnedFd>, Bells),
        socket: Own,
    ) -> Outcome<Arc<Trunk>> {
        // Ringing must neither wait nor raise a signal, whatever the other side calls a bell.
        if bells.len() != PLACES || !bells.iter().all(|bell| sys::is_eventfd(bell.as_raw_fd())) {
            return Err(Reason::ProtocolError);
        }
        let token = self.token();
        let raw = socket.as_raw_fd();
        sys::epoll_del(self.epoll.as_raw_fd(), raw).map_err(|_| Reason::Failed)?;
        self.watch(raw, TRUNK | token)?;
        let bells = bells.into_iter().map(Own::new).collect();
        let trunk = Trunk::open(id, process, shared, side, bells, ours, socket).ok_or(Reason::StackFull)?;
        self.trunks.insert(token, trunk.clone());
        Ok(trunk)
    }
}

fn open(
    socket: &Ref<Socket>,
    channel: Shared,
    side: usize,
    ring: usize,
    number: usize,
    trunk: Arc<Trunk>,
) -> Outcome<u32> {
    let end = End { socket: socket.clone(), trunk: trunk.clone(), place: number };
    match Channel::open(channel, side, ring, end) {
        Ok(channel) => Ok(channel.number()),
        Err(channel) => {
            // The other side has to know that nobody comes.
            channel.words(line_at(side, ring), LINE_WORDS)[line::FLAGS].store(flag::ENDED, Release);
            trunk.leave(number);
            trunk.post(places::GENERAL, number);
            Err(Reason::StackFull)
        }
    }
}
