//! Signal handlers, in front of which a function of ours counts, and thread cancellation.

use std::ffi::{c_int, c_void};

use libc::{pthread_t, sighandler_t, siginfo_t};

use crate::signals::{self, Installed};
use crate::{options, wait};

/// What stands in front of the program's handlers. Async-signal-safe.
unsafe extern "C-unwind" fn deliver(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(installed) = signals::installed(signal) else { return };
    signals::note_handler(!installed.restarts);
    // SAFETY: the program's own handler, called as the kernel would have; one without SA_SIGINFO ignores the last two arguments.
    let handler: unsafe extern "C-unwind" fn(c_int, *mut siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(installed.handler) };
    // SAFETY: as above.
    unsafe { handler(signal, info, context) }
}

fn front() -> sighandler_t {
    deliver as *const () as sighandler_t
}

/// Is this a function, not SIG_DFL, SIG_IGN or SIG_ERR?
fn is_function(handler: sighandler_t) -> bool {
    ![libc::SIG_DFL, libc::SIG_IGN, libc::SIG_ERR].contains(&handler)
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == front()
}

/// Puts our function in front of a handler. What it is to call goes into the table; `None`: nothing to stand in front of.
fn stand_in_front(action: &mut libc::sigaction) -> Option<Installed> {
    if !is_function(action.sa_sigaction) || is_ours(action) {
        return None;
    }
    let has = |flag| action.sa_flags & flag != 0;
    let installed =
        Installed { handler: action.sa_sigaction, restarts: has(libc::SA_RESTART), siginfo: has(libc::SA_SIGINFO) };
    action.sa_sigaction = front();
    action.sa_flags |= libc::SA_SIGINFO;
    Some(installed)
}

/// What the program is told of a disposition: its own handler instead of our function.
fn unmask(old: &mut libc::sigaction, before: Option<Installed>) {
    let Some(before) = before.filter(|_| is_ours(old)) else { return };
    old.sa_sigaction = before.handler;
    if !before.siginfo {
        old.sa_flags &= !libc::SA_SIGINFO;
    }
}

/// sigaction(2) with our function in front of the handler.
fn change(signal: c_int, new: Option<&libc::sigaction>) -> Result<libc::sigaction, ()> {
    signals::changing(|| {
        let before = signals::installed(signal);
        let mut new = new.copied();
        let asked = new.as_mut().and_then(stand_in_front);
        if let Some(asked) = asked {
            // Before the kernel knows: a signal that comes at once finds its handler.
            signals::install(signal, asked, front());
        }
        // SAFETY: all zeroes is a valid sigaction.
        let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
        let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        if pass!(sigaction(signal, new, &mut old)) != 0 {
            if let Some(before) = before {
                signals::install(signal, before, front());
            }
            return Err(());
        }
        unmask(&mut old, before);
        Ok(old)
    })
}

/// sigaction(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    if options::is_off() {
        return pass!(sigaction(signal, new, old));
    }
    // SAFETY: null or valid by the program's promise to sigaction(2).
    let asked = unsafe { new.as_ref() };
    match change(signal, asked) {
        Ok(was) => {
            // SAFETY: as above.
            if let Some(place) = unsafe { old.as_mut() } {
                *place = was;
            }
            0
        }
        Err(()) => -1,
    }
}

/// signal(2) in one of its meanings.
fn set_handler(signal: c_int, handler: sighandler_t, flags: c_int) -> sighandler_t {
    // SAFETY: all zeroes is a valid sigaction, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    if handler == libc::SIG_ERR {
        crate::errno::set(libc::EINVAL);
        return libc::SIG_ERR;
    }
    if flags & libc::SA_NODEFER == 0 {
        // SAFETY: a valid set; a number that is no signal is refused, and then by sigaction too.
        unsafe { libc::sigaddset(&mut action.sa_mask, signal) };
    }
    change(signal, Some(&action)).map_or(libc::SIG_ERR, |old| old.sa_sigaction)
}

/// signal(2) with BSD's meaning, which is glibc's default.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    if options::is_off() {
        return pass!(signal(signal, handler));
    }
    set_handler(signal, handler, if signals::interrupts(signal) { 0 } else { libc::SA_RESTART })
}

/// bsd_signal(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the program's promise to bsd_signal(3).
    unsafe { signal(number, handler) }
}

/// signal(2) with System V's meaning.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    if options::is_off() {
        return pass!(__sysv_signal(signal, handler));
    }
    set_handler(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER)
}

/// sysv_signal(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: the program's promise to sysv_signal(3).
    unsafe { __sysv_signal(number, handler) }
}

/// siginterrupt(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn siginterrupt(signal: c_int, on: c_int) -> c_int {
    if options::is_off() {
        return pass!(siginterrupt(signal, on));
    }
    let Ok(mut action) = change(signal, None) else { return -1 };
    signals::note_interrupts(signal, on != 0);
    match on {
        0 => action.sa_flags |= libc::SA_RESTART,
        _ => action.sa_flags &= !libc::SA_RESTART,
    }
    if change(signal, Some(&action)).is_ok() { 0 } else { -1 }
}

/// pthread_cancel(3): the thread may be waiting in the library, where the threading library does not reach it.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pthread_cancel(thread: pthread_t) -> c_int {
    let result = pass!(pthread_cancel(thread));
    if result == 0 && !options::is_off() {
        signals::note_cancel();
        wait::wake_all();
    }
    result
}
