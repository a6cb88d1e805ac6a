//! Switching a flow over while its peer talks: everything that XDP passed to the kernel must have been processed there
//! before the connection is read.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use underpass_stack::control::FlowValue;
use underpass_stack::ip::flow::FlowKey;
use underpass_stack::lane::Reason;

use super::repair;
use super::reply::Refusal;
use crate::steer::Steer;

/// How long frames are recorded before the flow is switched: longer than the XDP program runs for one frame.
const WATCH: Duration = Duration::from_micros(10);
/// How long a frame that XDP has passed may take to its socket, when nothing tells that it has arrived.
const DRAIN: Duration = Duration::from_micros(40);
/// How long it is worth to wait without sleeping.
const SPIN: Duration = Duration::from_micros(100);
/// After this the connection is left where it is. GRO on a busy queue holds a segment for a clock tick (1 to 4 ms); a
/// hole in the stream lasts longer.
const PATIENCE: Duration = Duration::from_millis(6);

/// Redirects `flow` to the XSKMAP slots from `xsk_base` on, and returns when the kernel's socket, which is in repair mode, has
/// seen everything that was passed before. The flow stays redirected only if this succeeds.
pub fn switch_over(steer: &mut Steer, flow: &FlowKey, xsk_base: u32, fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    // Read once: selecting the send queue makes the kernel believe that what it would send now has been sent.
    let write_seq = repair::write_seq(fd)?;
    steer.watch(flow)?;
    let settled = drain(steer, flow, xsk_base, &Socket { fd, write_seq });
    steer.unwatch(flow);
    if settled.is_err() {
        steer.release(flow);
    }
    settled
}

fn drain(steer: &mut Steer, flow: &FlowKey, xsk_base: u32, socket: &Socket<'_>) -> Result<(), Refusal> {
    spin(WATCH);
    steer.redirect(flow, xsk_base)?;
    let switched = Instant::now();
    let mut last = socket.position()?;
    loop {
        let elapsed = switched.elapsed();
        if elapsed < SPIN {
            spin(Duration::from_micros(5));
        } else {
            // Perhaps it is our own processor that the frames wait for.
            std::thread::sleep(Duration::from_micros(50));
        }
        let now = socket.position()?;
        let watched = steer.watched(flow)?;
        if elapsed >= DRAIN && now == last && has_reached(now, &watched) {
            return Ok(());
        }
        if elapsed > PATIENCE {
            tracing::debug!(
                "{flow:?}: not settled: rcv_nxt and snd_una {now:?} (before: {last:?}), passed {watched:?}"
            );
            return Err(Reason::Unsettled.into());
        }
        last = now;
    }
}

/// `rcv_nxt` and `snd_una`.
type Position = (u32, u32);

/// A socket in repair mode to which the program writes nothing meanwhile.
struct Socket<'a> {
    fd: BorrowedFd<'a>,
    write_seq: u32,
}

impl Socket<'_> {
    fn position(&self) -> io::Result<Position> {
        Ok((repair::rcv_nxt(self.fd)?, self.write_seq.wrapping_sub(repair::unacked(self.fd)?)))
    }
}

fn has_reached((rcv_nxt, snd_una): Position, watched: &FlowValue) -> bool {
    let reached = |at: u32, goal: u32| (at.wrapping_sub(goal) as i32) >= 0;
    watched.passed == 0 || (reached(rcv_nxt, watched.passed_end) && reached(snd_una, watched.passed_ack))
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
        let watched = |passed, end, ack| FlowValue { passed, passed_end: end, passed_ack: ack, ..FlowValue::default() };
        assert!(has_reached((5, 5), &watched(0, 900, 900)));
        assert!(has_reached((5, 9), &watched(1, 5, 9)));
        assert!(!has_reached((5, 8), &watched(1, 5, 9)));
        assert!(!has_reached((u32::MAX, 9), &watched(1, 2, 9)));
        assert!(has_reached((2, 9), &watched(1, u32::MAX, 9)));
    }
}
