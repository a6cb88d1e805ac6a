//! The functions that stand in front of libc's. Each looks at its descriptor, lets `call` decide, and makes the real call if
//! there is nothing for us to do.
//!
//! With `real`, `sys`, `fd` and `launch` the files with `unsafe`: hooks turn the program's pointers into slices. They are
//! `extern "C-unwind"`, and the real call is made with no destructor pending, so that the forced unwinding of
//! pthread_cancel(3) passes through; a panic of ours is caught before.

/// Makes the real call.
macro_rules! pass {
    ($name:ident($($arg:expr),*)) => {{
        // SAFETY: the program's own call, with its own arguments, unchanged.
        unsafe { crate::real::$name($($arg),*) }
    }};
}

/// Makes a real call that may sleep: while it does, its socket stays in the kernel.
macro_rules! sleep {
    ($name:ident($fd:expr $(, $arg:expr)*)) => {{
        let asleep = crate::hooks::take_asleep();
        let result = pass!($name($fd $(, $arg)*));
        if let Some((sleepers, flow)) = asleep {
            crate::hooks::woken(sleepers, flow.map(|flow| ($fd as usize as _, flow)), result as isize);
        }
        result
    }};
}

/// Makes the real call and returns, if the descriptor is nothing of ours or the connection a young one.
macro_rules! young {
    ($flow:ident $name:ident($fd:expr $(, $arg:expr)*)) => {
        match crate::call::young::Young::begin($fd, crate::call::Flow::$flow) {
            crate::call::young::First::Young(young) => {
                let result = pass!($name($fd $(, $arg)*));
                crate::hooks::aged(young, $fd, result);
                return result;
            }
            crate::call::young::First::Plain => return pass!($name($fd $(, $arg)*)),
            crate::call::young::First::Other => {}
        }
    };
}

mod args;
mod epoll;
mod fds;
mod poll;
mod process;
mod query;
mod recv;
mod send;
mod signal;
mod socket;

use std::cell::Cell;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::ssize_t;
use underpass_stack::stats::Counter;

use crate::call::young::Young;
use crate::call::{Act, Flow, slept};
use crate::errno::{self, Errno};
use crate::guard::{self, Guard};
use crate::policy::{self, Seen};
use crate::socket::Sleepers;
use crate::{engine, log, options, signals};

unsafe extern "C-unwind" {
    /// pthread_testcancel(3).
    fn pthread_testcancel();
}

thread_local! {
    /// Between a hook's own part and its real call.
    static ASLEEP: Cell<Option<(Sleepers, Option<Flow>)>> = const { Cell::new(None) };
}

/// The sockets on which the real call to come may sleep.
fn take_asleep() -> Option<(Sleepers, Option<Flow>)> {
    ASLEEP.with(Cell::take)
}

/// The real call is over.
fn woken(sleepers: Sleepers, call: Option<(RawFd, Flow)>, result: isize) {
    sleepers.wake();
    if let (Some((fd, flow)), Ok(moved @ 1..)) = (call, usize::try_from(result)) {
        let seen = flow.seen(moved);
        if !sleepers.only().is_some_and(|socket| policy::is_young(socket) && policy::note_young(socket, seen)) {
            after(|| slept(fd, seen));
        }
    }
}

/// A hook's return type.
trait Returned: Copy {
    /// What a failed call returns.
    const FAILED: Self;
}

impl Returned for i32 {
    const FAILED: Self = -1;
}

impl Returned for isize {
    const FAILED: Self = -1;
}

/// The real call on a young connection is over.
#[inline(always)]
fn aged(young: Young, fd: RawFd, result: isize) {
    if let Some(seen) = young.end(result) {
        grown(fd, seen);
    }
}

/// It is young no more, or the call was a large one.
#[cold]
fn grown(fd: RawFd, seen: Seen) {
    after(|| slept(fd, seen));
}

/// Runs a hook's own part. `None`: the real call is to be made.
fn run<T: Returned>(mut body: impl FnMut() -> Act<T>) -> Option<T> {
    if guard::inside() || options::is_off() {
        return None;
    }
    if signals::cancels() {
        // SAFETY: no destructor is pending in this frame nor in the hook's; a cancelled thread unwinds from here.
        unsafe { pthread_testcancel() };
    }
    let saved = errno::get();
    loop {
        let act = {
            let _guard = Guard::enter();
            let act = catch_unwind(AssertUnwindSafe(&mut body));
            if engine::has_work() && catch_unwind(engine::settle).is_err() {
                engine::count(Counter::Panics, 1);
            }
            act
        };
        match act {
            Ok(Act::Done(Ok(value))) => {
                errno::set(saved);
                return Some(value);
            }
            Ok(Act::Done(Err(Errno(errno)))) => {
                errno::set(errno);
                return Some(T::FAILED);
            }
            Ok(Act::Real) => {
                errno::set(saved);
                return None;
            }
            Ok(Act::Sleep(sleepers, flow)) => {
                ASLEEP.with(|cell| {
                    // One call may have several own parts (splice, sendmmsg).
                    let all = match cell.take() {
                        Some((before, _)) => before.and(sleepers),
                        None => sleepers,
                    };
                    cell.set(Some((all, flow)));
                });
                errno::set(saved);
                return None;
            }
            Ok(Act::Again) => {
                // SAFETY: no destructor is pending in this frame; a cancelled thread unwinds from here.
                unsafe { pthread_testcancel() };
            }
            Err(_) => {
                engine::count(Counter::Panics, 1);
                let _guard = Guard::enter();
                log::error(format_args!("a bug was caught in a hook; the kernel does the call"));
                errno::set(saved);
                return None;
            }
        }
    }
}

/// What a data call returns.
fn count(act: Act<usize>) -> Act<ssize_t> {
    match act {
        Act::Done(result) => Act::Done(result.map(|n| n as ssize_t)),
        Act::Real => Act::Real,
        Act::Sleep(sleepers, flow) => Act::Sleep(sleepers, flow),
        Act::Again => Act::Again,
    }
}

/// Runs something after a real call, keeping its errno.
fn after(body: impl FnOnce()) {
    if guard::inside() || options::is_off() {
        return;
    }
    let saved = errno::get();
    let _guard = Guard::enter();
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        engine::count(Counter::Panics, 1);
    }
    errno::set(saved);
}
