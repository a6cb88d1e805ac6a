//! exec, spawn, vfork and _exit. (fork(2) is followed by pthread_atfork(3) handlers, see `fork`; a process that ends is given back by the daemon.)

use std::ffi::{c_char, c_int};

use libc::{pid_t, posix_spawn_file_actions_t as Actions, posix_spawnattr_t as Attributes};

use super::after;
use crate::call::conn;
use crate::{init, sys};

/// execve(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execve(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> c_int {
    after(conn::before_exec);
    pass!(execve(path, argv, envp))
}

/// execv(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execv(path: *const c_char, argv: *const *const c_char) -> c_int {
    after(conn::before_exec);
    // SAFETY: libc's own variable.
    let envp = unsafe { environ };
    pass!(execve(path, argv, envp.cast_const().cast()))
}

/// execvp(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int {
    after(conn::before_exec);
    pass!(execvp(file, argv))
}

/// execvpe(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execvpe(
    file: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> c_int {
    after(conn::before_exec);
    pass!(execvpe(file, argv, envp))
}

/// fexecve(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    after(conn::before_exec);
    pass!(fexecve(fd, argv, envp))
}

/// execveat(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execveat(
    dir: c_int,
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    flags: c_int,
) -> c_int {
    after(conn::before_exec);
    pass!(execveat(dir, path, argv, envp, flags))
}

/// posix_spawn(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const Actions,
    attributes: *const Attributes,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    after(conn::before_spawn);
    pass!(posix_spawn(pid, path, actions, attributes, argv, envp))
}

/// posix_spawnp(3).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const Actions,
    attributes: *const Attributes,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    after(conn::before_spawn);
    pass!(posix_spawnp(pid, file, actions, attributes, argv, envp))
}

/// posix_spawn_file_actions_adddup2(3): the descriptor is going to be the child's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn posix_spawn_file_actions_adddup2(actions: *mut Actions, from: c_int, to: c_int) -> c_int {
    after(|| conn::passed_on(&[from]));
    pass!(posix_spawn_file_actions_adddup2(actions, from, to))
}

/// vfork(2), as fork(2): a child that shares our memory would close and replace descriptors in our table while ours are open.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn vfork() -> pid_t {
    // SAFETY: the program expects a child, and does in it what it may do after vfork(2).
    unsafe { libc::fork() }
}

/// _exit(2).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _exit(status: c_int) -> ! {
    init::finish_at_once();
    sys::exit(status)
}

/// _Exit(3), the same.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _Exit(status: c_int) -> ! {
    // SAFETY: the same call.
    unsafe { _exit(status) }
}

unsafe extern "C" {
    static environ: *mut *mut c_char;
}
