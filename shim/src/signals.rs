//! What a signal does to a blocked call (signal(7), "Interruption of system calls").
//!
//! Our sleep is a ppoll, which a handler always ends with EINTR; the call that the program made would have been restarted if the
//! handler was installed with SA_RESTART and no timeout is set on the socket.

use crate::sys;

/// Signals of the threading library, whose handlers the program does not see.
const INTERNAL: [i32; 2] = [32, 33];

/// Runs something long with signals held back. Returns whether a handler has run in the end because of one that came meanwhile.
pub fn held_back(long: impl FnOnce()) -> bool {
    let before = sys::block_signals();
    long();
    let came = sys::pending_signals() & !before;
    sys::set_signal_mask(before);
    let caught = |signal: i32| {
        came >> (signal - 1) & 1 == 1
            && sys::signal_action(signal)
                .is_some_and(|(handler, _)| handler != libc::SIG_DFL && handler != libc::SIG_IGN)
    };
    came != 0 && (1..=64).any(caught)
}

/// After an interrupted sleep of a restartable call: is it to be restarted? Only when every handler of the process was installed
/// with SA_RESTART: which one ran cannot be known, and a program that wants to be interrupted must be.
pub fn restarts() -> bool {
    (1..=64).filter(|signal| !INTERNAL.contains(signal)).filter_map(sys::signal_action).all(|(handler, flags)| {
        let caught = handler != libc::SIG_DFL && handler != libc::SIG_IGN;
        !caught || flags & libc::SA_RESTART as u64 != 0
    })
}
