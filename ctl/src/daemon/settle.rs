//! Switching a flow over while its peer talks: everything that XDP passed to the kernel must have been processed there
//! before the connection is read.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use underpass_stack::control::FlowValue;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::lane::Reason;

use super::gap::Look;
use super::repair;
use super::reply::Refusal;
use crate::steer::Steer;

/// How long frames are recorded before the flow is switched: longer than the XDP program runs for one frame.
const WATCH: Duration = Duration::from_micros(10);
/// How long a frame that XDP has passed may take to its socket, when nothing tells that it has arrived.
const DRAIN: Duration = Duration::from_micros(40);
/// How long it is worth to wait without sleeping.
const SPIN: Duration = Duration::from_micros(100);
/// How long to wait for a moment in which the stream has no hole.
const WHOLE: Duration = Duration::from_millis(2);
/// After this the connection is left where it is. GRO on a busy queue holds a segment for a clock tick (1 to 4 ms); a
/// hole in the stream lasts longer.
const PATIENCE: Duration = Duration::from_millis(6);

/// Redirects `flow` to the XSKMAP slots from `xsk_base` on, and returns when the kernel's socket, which is in repair mode, has
/// seen everything that was passed before and has no gap in its stream. The flow stays redirected only if this succeeds.
pub fn switch_over(
    steer: &mut Steer,
    flow: &FlowKey,
    xsk_base: u32,
    socket: BorrowedFd<'_>,
    gap: &mut Look,
) -> Result<(), Refusal> {
    steer.watch(flow)?;
    let settled = wait_for_whole(steer, flow, socket, gap).and_then(|()| drain(steer, flow, xsk_base, socket, gap));
    steer.unwatch(flow);
    if settled.is_err() {
        steer.release(flow);
    }
    settled
}

/// Waits until the socket has everything that was passed a moment ago. While a segment is missing, what came after it is only
/// in the kernel's out-of-order queue, which nobody can read out; and nothing is lost by a promotion that is refused
/// before the switch.
fn wait_for_whole(steer: &Steer, flow: &FlowKey, socket: BorrowedFd<'_>, gap: &mut Look) -> Result<(), Refusal> {
    let start = Instant::now();
    spin(WATCH);
    while start.elapsed() < WHOLE {
        let watched = steer.watched(flow)?;
        spin(Duration::from_micros(5));
        if has_reached(repair::rcv_nxt(socket)?, &watched) && gap.is_whole(socket)? {
            return Ok(());
        }
    }
    tracing::debug!("{flow:?}: no moment without a hole");
    Err(Reason::Unsettled.into())
}

fn drain(
    steer: &mut Steer,
    flow: &FlowKey,
    xsk_base: u32,
    socket: BorrowedFd<'_>,
    gap: &mut Look,
) -> Result<(), Refusal> {
    steer.redirect(flow, xsk_base)?;
    let switched = Instant::now();
    let mut last = Position::of(socket)?;
    loop {
        let elapsed = switched.elapsed();
        if elapsed < SPIN {
            spin(Duration::from_micros(5));
        } else {
            // Perhaps it is our own processor that the frames wait for.
            std::thread::sleep(Duration::from_micros(50));
        }
        let now = Position::of(socket)?;
        let watched = steer.watched(flow)?;
        // An acknowledgement alone that comes still later is made up for by the next, or by a probe.
        if elapsed >= DRAIN && now == last && has_reached(now.rcv_nxt, &watched) && gap.is_whole(socket)? {
            return Ok(());
        }
        if elapsed > PATIENCE {
            tracing::debug!("{flow:?}: not settled: {now:?} (before: {last:?}), passed {watched:?}");
            return Err(Reason::Unsettled.into());
        }
        last = now;
    }
}

/// How far a socket in repair mode has processed what its peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    rcv_nxt: u32,
    unacked: u32,
}

impl Position {
    fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { rcv_nxt: repair::rcv_nxt(socket)?, unacked: repair::unacked(socket)? })
    }
}

fn has_reached(rcv_nxt: u32, watched: &FlowValue) -> bool {
    watched.passed == 0 || (rcv_nxt.wrapping_sub(watched.passed_end) as i32) >= 0
}

/// Waits without sleeping: a sleep costs more than all of this.
pub fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passed_is_reached_and_numbers_wrap() {
        let watched = |passed, passed_end| FlowValue { passed, passed_end, ..FlowValue::default() };
        assert!(has_reached(5, &watched(0, 900)));
        assert!(has_reached(5, &watched(1, 5)));
        assert!(!has_reached(5, &watched(1, 6)));
        assert!(!has_reached(u32::MAX, &watched(1, 2)));
        assert!(has_reached(2, &watched(1, u32::MAX)));
    }
}
