//! Frames out, several of one connection at once: full segments whose departure is decided on together.

use super::transmit::{build_otherwise, count_frames};
use super::{Arena, SlotState, conn_parts, stats_of};
use crate::ip::template::Template;
use crate::mem::{Region, ring};
use crate::tcp::{Connection, Instant};
use crate::xsk::Desc;
use crate::xsk::queue::Queue;
use crate::xsk::umem::FramePool;

/// Where frames go.
pub(super) struct Outlet<'a> {
    pub umem: &'a mut Region,
    pub pool: &'a mut FramePool,
    pub queue: &'a mut Queue,
}

/// What [`send_train`] has done.
#[derive(Default)]
pub(super) struct Departed {
    /// Segments.
    pub count: usize,
    /// The connection has no more to say.
    pub is_last: bool,
}

/// Sends ordinary full segments, `most` at most. Nothing has happened if there are none that can be foreseen.
#[inline(never)]
pub(super) fn send_train(
    arena: &mut Arena,
    slot: u32,
    state: &mut SlotState,
    Outlet { umem, pool, queue }: Outlet<'_>,
    most: usize,
    now: Instant,
) -> Departed {
    let Some((record, rcv, snd)) = conn_parts(arena, slot, state) else { return Departed::default() };
    // What it may send has to find a frame and a place each.
    let most = pool.available().min(queue.tx_room_known()).min(most as u32);
    let frame_size = pool.frame_size();
    if !Template::fits(&record.flow, record.tcb.mss as usize, frame_size) {
        return Departed::default();
    }
    let mut connection = Connection { tcb: &mut record.tcb, snd, rcv, recovery: &mut state.recovery };
    let Some(train) = connection.foreseen_train(now, most) else { return Departed::default() };
    let is_last = train.is_last && !connection.may_transmit_calmly();
    let Some(headers) = Template::new(&record.path, &record.flow, &train.first) else { return Departed::default() };
    let (mut bytes, mut id) = (0, state.ip_id);
    for segment in train.segments() {
        id = id.wrapping_add(1);
        // What finds no frame or does not fit is lost like any other, and sent again by the retransmission timer.
        let Some(addr) = pool.take().map(|frame| pool.addr_of(frame)) else { break };
        let Some(frame) = umem.bytes_mut(addr as usize, frame_size) else {
            pool.give_addr(addr);
            break;
        };
        let len = match ring::piece(snd, record.tcb.snd_place(segment.seq.0), segment.len as usize) {
            Some(data) => headers.write(frame, &segment, data, id),
            None => build_otherwise(frame, record, segment, snd, id),
        };
        if len == 0 {
            pool.give_addr(addr);
            break;
        }
        queue.tx_push_known(Desc::new(addr, len as u32));
        bytes += len as u64;
    }
    let frames = id.wrapping_sub(std::mem::replace(&mut state.ip_id, id));
    count_frames(stats_of(arena), frames.into(), bytes);
    Departed { count: train.count as usize, is_last }
}
