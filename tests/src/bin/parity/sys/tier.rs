//! What the preloaded library, if there is one, says of a connection.

use std::ffi::c_int;
use std::os::fd::RawFd;

/// The tier of a connection between two programs of one host.
pub const SHM: c_int = 2;

/// The tier of a connection; -1 without the library.
pub fn of(fd: RawFd) -> c_int {
    // SAFETY: a name that ends with NUL; whoever exports it means `int underpass_tier(int)`.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"underpass_tier".as_ptr());
        if found.is_null() {
            return -1;
        }
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(c_int) -> c_int>(found)(fd)
    }
}

/// May both ends come to the shm lane, so that it is worth waiting for?
pub fn can_join() -> bool {
    std::env::var_os("UNDERPASS_LANES").is_some_and(|lanes| lanes == "shm")
}
