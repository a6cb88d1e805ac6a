//! System calls as safe functions: a result of zero or more, or minus errno. All `unsafe` of this program is in here.

pub mod cancel;
pub mod fds;
pub mod io;
pub mod process;
pub mod ready;
pub mod sock;
pub mod tier;

/// What a call returned; errno, negated, if it failed.
pub fn outcome(value: impl Into<i64>) -> i64 {
    let value = value.into();
    if value < 0 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { value }
}

/// An outcome for people: errors by name.
pub fn shown(outcome: i64) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::EAGAIN, "EAGAIN"),
        (libc::EBADF, "EBADF"),
        (libc::ECHILD, "ECHILD"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::EDESTADDRREQ, "EDESTADDRREQ"),
        (libc::EEXIST, "EEXIST"),
        (libc::EFAULT, "EFAULT"),
        (libc::EINTR, "EINTR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EISCONN, "EISCONN"),
        (libc::ELOOP, "ELOOP"),
        (libc::EMSGSIZE, "EMSGSIZE"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOENT, "ENOENT"),
        (libc::ENOPROTOOPT, "ENOPROTOOPT"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::ENOTSOCK, "ENOTSOCK"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EPERM, "EPERM"),
        (libc::EPIPE, "EPIPE"),
        (libc::ESPIPE, "ESPIPE"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
    ];
    if outcome >= 0 {
        return outcome.to_string();
    }
    let found = NAMES.iter().find(|(number, _)| -i64::from(*number) == outcome);
    found.map_or_else(|| format!("errno {}", -outcome), |(_, name)| (*name).to_owned())
}
