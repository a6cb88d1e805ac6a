//! errno, as a value inside and as the thread's variable at the edge. One of the files with `unsafe`.

use std::ffi::c_int;

/// An error number, `<errno.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub c_int);

/// A call's result inside the shim.
pub type Result<T> = std::result::Result<T, Errno>;

/// The calling thread's errno.
pub fn get() -> c_int {
    // SAFETY: the address is valid for the thread's life.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's errno.
pub fn set(value: c_int) {
    // SAFETY: as in `get`.
    unsafe { *libc::__errno_location() = value }
}

/// A raw system call's result: errno where it is negative.
pub fn check(result: i64) -> Result<i64> {
    if result < 0 { Err(Errno(get())) } else { Ok(result) }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
