//! What a program that knows of the library may ask it.

use std::ffi::c_int;

use underpass_stack::lane::Tier;

use super::run;
use crate::call::{Act, socket_of};
use crate::errno::Errno;
use crate::socket::Lane;

/// The tier of a TCP socket: 0 kernel, 1 xdp, 2 shm. -1 with ENOTSOCK for anything else, and while the library is switched off.
///
/// Found with dlsym(3) (`underpass_tier`), so that a program needs not be linked to a library that may not be preloaded.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn underpass_tier(fd: c_int) -> c_int {
    let tier = run(|| {
        Act::Done(match socket_of(fd) {
            Some(socket) => Ok(match socket.lane() {
                Some(Lane::Xdp(_)) => Tier::Xdp,
                Some(Lane::Shm(_)) => Tier::Shm,
                None => Tier::Kernel,
            } as c_int),
            None => Err(Errno(libc::ENOTSOCK)),
        })
    });
    tier.unwrap_or(-1)
}
