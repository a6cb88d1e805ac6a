//! epoll.

use std::ffi::c_int;
use std::sync::atomic::Ordering::SeqCst;

use libc::{epoll_event, sigset_t, timespec};

use super::args::{deadline_ms, deadline_timespec};
use super::{after, run};
use crate::call::epoll::{Room, ctl, fall_asleep, glance, wait};
use crate::call::{Act, conn};
use crate::errno::check;
use crate::{carry, fd as table, guard, options};

/// epoll_create(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_create(size: c_int) -> c_int {
    let fd = pass!(epoll_create(size));
    after(|| conn::made_epoll(fd));
    fd
}

/// epoll_create1(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_create1(flags: c_int) -> c_int {
    let fd = pass!(epoll_create1(flags));
    after(|| conn::made_epoll(fd));
    fd
}

/// epoll_ctl(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    if !table::is_plain(fd) {
        let own = run(|| {
            // SAFETY: null or valid by the program's promise to epoll_ctl(2).
            let asked = unsafe { event.as_ref() }.copied();
            ctl(ep, op, fd, asked, &mut |mut sent| {
                let sent = sent.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
                check(i64::from(pass!(epoll_ctl(ep, op, fd, sent)))).map(|n| n as c_int)
            })
        });
        if let Some(result) = own {
            return result;
        }
    }
    pass!(epoll_ctl(ep, op, fd, event))
}

/// Can the wait have anything to do with lanes?
fn is_plain(ep: c_int) -> bool {
    table::is_plain(ep) || (carry::live() == 0 && !options::promotes())
}

/// The program's records. `None`: the kernel is to judge them.
fn records<'a>(events: *mut epoll_event, max: c_int) -> Option<&'a mut [epoll_event]> {
    if events.is_null() || max <= 0 {
        return None;
    }
    // SAFETY: the program's promise to epoll_wait(2).
    Some(unsafe { std::slice::from_raw_parts_mut(events, max as usize) })
}

fn wait_ms(ep: c_int, events: *mut epoll_event, max: c_int, timeout: c_int, mask: *const sigset_t) -> Option<c_int> {
    if is_plain(ep) {
        return None;
    }
    let mut deadline = None;
    run(|| {
        let Some(events) = records(events, max) else { return Act::Real };
        let mut room = Room { events };
        if timeout != 0
            && mask.is_null()
            && let Some(found) = glance(ep, &mut room)
        {
            return Act::Done(Ok(found as c_int));
        }
        // Once, however often the call is made again.
        let deadline = *deadline.get_or_insert_with(|| deadline_ms(timeout));
        // SAFETY: null or valid by the program's promise to epoll_pwait(2).
        wait(ep, &mut room, deadline, unsafe { mask.as_ref() })
    })
}

/// Our wait, or the real one, during which no socket of the set goes to a lane.
fn own_or_asleep(ep: c_int, valid: bool, own: impl Fn() -> Option<c_int>, real: impl Fn() -> c_int) -> c_int {
    if !valid || guard::inside() || table::is_plain(ep) || !options::promotes() && carry::live() == 0 {
        return real();
    }
    loop {
        if let Some(n) = own() {
            return n;
        }
        if let Ok(set) = fall_asleep(ep) {
            let n = real();
            if let Some(set) = set {
                set.asleep.fetch_sub(1, SeqCst);
            }
            return n;
        }
    }
}

/// epoll_wait(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_wait(ep: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int {
    let own = || wait_ms(ep, events, max, timeout, std::ptr::null());
    own_or_asleep(ep, !events.is_null() && max > 0, own, || pass!(epoll_wait(ep, events, max, timeout)))
}

/// epoll_pwait(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_pwait(
    ep: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let own = || wait_ms(ep, events, max, timeout, mask);
    own_or_asleep(ep, !events.is_null() && max > 0, own, || pass!(epoll_pwait(ep, events, max, timeout, mask)))
}

/// epoll_pwait2(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn epoll_pwait2(
    ep: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let own = || {
        if is_plain(ep) {
            return None;
        }
        run(|| {
            // SAFETY: null or valid by the program's promise to epoll_pwait2(2).
            let (deadline, mask) = unsafe { (deadline_timespec(timeout), mask.as_ref()) };
            let (Ok(deadline), Some(events)) = (deadline, records(events, max)) else { return Act::Real };
            wait(ep, &mut Room { events }, deadline, mask)
        })
    };
    own_or_asleep(ep, !events.is_null() && max > 0, own, || pass!(epoll_pwait2(ep, events, max, timeout, mask)))
}
