//! The process ends, or becomes another program, with connections on the lane.

use std::sync::atomic::Ordering::*;

use super::Tx;
use super::channel::{channel, channels, numbers};
use super::leave::{PATIENCE, flush, send_through_kernel};
use crate::socket::Lane;
use crate::sys;

/// Time that a process which exits takes for all of its connections, ns.
const LAST_PATIENCE: u64 = 5_000_000_000;

/// The process ends in an orderly way: what was taken back from rings is given to the kernel while that takes any of it. What cannot be
/// delivered is not to look as if it had been: the connection then ends with a reset.
pub fn before_exit() {
    let last = sys::now().0 + LAST_PATIENCE;
    for channel in channels() {
        let Some(end) = channel.end() else { continue };
        let fd = end.socket.fd.load(Relaxed);
        let owed = || channel.tx().as_ref().map_or(0, Tx::owed);
        let mut before = usize::MAX;
        while (1..before).contains(&owed()) && sys::now().0 < last {
            before = owed();
            let _ = flush(channel, fd, last.min(sys::now().0 + PATIENCE));
        }
        if owed() > 0 {
            let _ = sys::set_linger(fd, true, 0);
        }
    }
}

/// The process ends without closing its sockets. What is in the rings is left for the readers, and in the kernel, too. Nothing is waited
/// for, no lock either, and nothing allocated: a signal handler may call _exit(2).
pub fn at_exit() {
    for channel in numbers().filter_map(channel) {
        let Some(whose) = channel.try_end() else { continue };
        if whose.socket.lane() != Some(Lane::Shm(channel.number())) {
            continue;
        }
        let fd = whose.socket.fd.load(Relaxed);
        if let Some(mut tx) = channel.try_tx()
            && let Some(tx) = tx.as_mut()
        {
            tx.leave(fd);
        }
        if let Some(mut rx) = channel.try_rx()
            && let Some(rx) = rx.as_mut()
        {
            rx.expects_copies(fd);
        }
    }
}

/// The same in front of an exec(3), which may fail, for sockets that do not outlive it.
pub fn before_exec() {
    for channel in channels() {
        let Some(end) = channel.end() else { continue };
        let _ = send_through_kernel(&end.socket, channel.number(), 0);
        if let Some(rx) = channel.rx().as_mut() {
            rx.expects_copies(end.socket.fd.load(Relaxed));
        }
    }
}
