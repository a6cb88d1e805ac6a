//! The functions that ours stand in front of.
//!
//! Resolved once, in the constructor. Before that (constructors of other libraries, allocators that read files while
//! `dlsym` runs) the raw system call does the work, so no lookup ever happens inside a call.
//! One of the files with `unsafe`: it calls through resolved pointers.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use libc::{epoll_event, fd_set, iovec, msghdr, nfds_t, off_t, pollfd, sigset_t, size_t, sockaddr};
use libc::{mmsghdr, pthread_t, sigaction as Action, sighandler_t, socklen_t, ssize_t, timespec, timeval};
use libc::{pid_t, posix_spawn_file_actions_t as Actions, posix_spawnattr_t as Attributes};

/// Returns a raw system call's result as libc would: -1 with errno.
macro_rules! raw {
    ($number:expr, $($arg:expr),*) => {
        // SAFETY: the caller vouches for the arguments, which go to the kernel unchanged.
        unsafe { libc::syscall($number, $($arg),*) as _ }
    };
}

/// Makes one of our own raw calls.
macro_rules! ours {
    ($($name:ident)::+($($arg:expr),*)) => {{
        // SAFETY: the caller vouches for the arguments, which go to the kernel unchanged.
        unsafe { $($name)::+($($arg),*) }
    }};
}

macro_rules! real_functions {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $fallback:expr;)*) => {
        #[repr(C, align(64))]
        struct Table { $($name: AtomicPtr<c_void>,)* }

        static TABLE: Table = Table { $($name: AtomicPtr::new(std::ptr::null_mut()),)* };

        /// Looks all of them up. Called from the constructor, before threads.
        pub fn resolve() {
            $(TABLE.$name.store(next(concat!(stringify!($name), "\0")), Relaxed);)*
        }

        $(
            /// The libc function of this name, or the system call before it is resolved.
            ///
            /// # Safety
            /// As the libc function.
            #[inline]
            #[allow(unused_unsafe, reason = "some fall-backs are safe expressions")]
            pub unsafe fn $name($($arg: $ty),*) -> $ret {
                let real = TABLE.$name.load(Relaxed);
                if real.is_null() {
                    return $fallback;
                }
                // SAFETY: dlsym found a function of this name, whose C prototype is the one given here.
                let real: unsafe extern "C-unwind" fn($($ty),*) -> $ret = unsafe { std::mem::transmute(real) };
                // SAFETY: the caller's promise.
                unsafe { real($($arg),*) }
            }
        )*
    };
}

fn next(name: &str) -> *mut c_void {
    // SAFETY: `name` ends with NUL (the macro adds it).
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) }
}

unsafe extern "C" {
    /// glibc's own name for sigaction(2), which needs no lookup.
    fn __sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int;
}

fn unavailable<T: From<i8>>() -> T {
    crate::errno::set(libc::ENOSYS);
    T::from(-1)
}

real_functions! {
    // Short connections need these: a cache line of the table.
    socket(domain: c_int, kind: c_int, proto: c_int) -> c_int = raw!(libc::SYS_socket, domain, kind, proto);
    accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int = raw!(libc::SYS_accept4, fd, addr, len, flags);
    connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = raw!(libc::SYS_connect, fd, addr, len);
    close(fd: c_int) -> c_int = raw!(libc::SYS_close, fd);
    read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t = raw!(libc::SYS_read, fd, buf, len);
    write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t = raw!(libc::SYS_write, fd, buf, len);
    recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t = raw!(libc::SYS_recvfrom, fd, buf, len, flags, 0usize, 0usize);
    send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t = raw!(libc::SYS_sendto, fd, buf, len, flags, 0usize, 0usize);

    bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = raw!(libc::SYS_bind, fd, addr, len);
    listen(fd: c_int, backlog: c_int) -> c_int = raw!(libc::SYS_listen, fd, backlog);
    accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = raw!(libc::SYS_accept4, fd, addr, len, 0);
    shutdown(fd: c_int, how: c_int) -> c_int = raw!(libc::SYS_shutdown, fd, how);
    close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int = raw!(libc::SYS_close_range, first, last, flags);
    readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t = raw!(libc::SYS_readv, fd, iov, count);
    recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr, alen: *mut socklen_t) -> ssize_t = raw!(libc::SYS_recvfrom, fd, buf, len, flags, addr, alen);
    recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t = raw!(libc::SYS_recvmsg, fd, msg, flags);
    recvmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int = raw!(libc::SYS_recvmmsg, fd, msgs, count, flags, timeout);
    writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t = raw!(libc::SYS_writev, fd, iov, count);
    sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr, alen: socklen_t) -> ssize_t = raw!(libc::SYS_sendto, fd, buf, len, flags, addr, alen);
    sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t = raw!(libc::SYS_sendmsg, fd, msg, flags);
    sendmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int = raw!(libc::SYS_sendmmsg, fd, msgs, count, flags);
    sendfile(out: c_int, input: c_int, offset: *mut off_t, len: size_t) -> ssize_t = raw!(libc::SYS_sendfile, out, input, offset, len);
    splice(input: c_int, in_off: *mut i64, out: c_int, out_off: *mut i64, len: size_t, flags: c_uint) -> ssize_t = raw!(libc::SYS_splice, input, in_off, out, out_off, len, flags);
    __read_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t = { let _ = room; raw!(libc::SYS_read, fd, buf, len) };
    __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t = { let _ = room; raw!(libc::SYS_recvfrom, fd, buf, len, flags, 0usize, 0usize) };
    __recvfrom_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int, addr: *mut sockaddr, alen: *mut socklen_t) -> ssize_t = { let _ = room; raw!(libc::SYS_recvfrom, fd, buf, len, flags, addr, alen) };
    poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = ours!(crate::sys::poll_raw(fds, count, timeout));
    __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int = { let _ = room; ours!(crate::sys::poll_raw(fds, count, timeout)) };
    ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int = ours!(crate::sys::ppoll_raw(fds, count, timeout, mask));
    __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: size_t) -> c_int = { let _ = room; ours!(crate::sys::ppoll_raw(fds, count, timeout, mask)) };
    select(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval) -> c_int = { let _ = (n, r, w, e, timeout); unavailable() };
    pselect(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int = { let _ = (n, r, w, e, timeout, mask); unavailable() };
    epoll_create(size: c_int) -> c_int = { let _ = size; raw!(libc::SYS_epoll_create1, 0) };
    epoll_create1(flags: c_int) -> c_int = raw!(libc::SYS_epoll_create1, flags);
    epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int = raw!(libc::SYS_epoll_ctl, ep, op, fd, event);
    epoll_wait(ep: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int = raw!(libc::SYS_epoll_pwait, ep, events, max, timeout, 0usize, 8usize);
    epoll_pwait(ep: c_int, events: *mut epoll_event, max: c_int, timeout: c_int, mask: *const sigset_t) -> c_int = raw!(libc::SYS_epoll_pwait, ep, events, max, timeout, mask, 8usize);
    epoll_pwait2(ep: c_int, events: *mut epoll_event, max: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int = raw!(libc::SYS_epoll_pwait2, ep, events, max, timeout, mask, 8usize);
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int = raw!(libc::SYS_getsockopt, fd, level, name, value, len);
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int = raw!(libc::SYS_setsockopt, fd, level, name, value, len);
    getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = raw!(libc::SYS_getsockname, fd, addr, len);
    getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = raw!(libc::SYS_getpeername, fd, addr, len);
    ioctl(fd: c_int, request: libc::c_ulong, arg: *mut c_void) -> c_int = raw!(libc::SYS_ioctl, fd, request, arg);
    fcntl(fd: c_int, command: c_int, arg: *mut c_void) -> c_int = raw!(libc::SYS_fcntl, fd, command, arg);
    dup(fd: c_int) -> c_int = raw!(libc::SYS_dup, fd);
    dup2(from: c_int, to: c_int) -> c_int = ours!(crate::sys::dup2_raw(from, to));
    dup3(from: c_int, to: c_int, flags: c_int) -> c_int = raw!(libc::SYS_dup3, from, to, flags);
    execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int = raw!(libc::SYS_execve, path, argv, envp);
    execveat(dir: c_int, path: *const c_char, argv: *const *const c_char, envp: *const *const c_char, flags: c_int) -> c_int = raw!(libc::SYS_execveat, dir, path, argv, envp, flags);
    fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int = raw!(libc::SYS_execveat, fd, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
    execvp(file: *const c_char, argv: *const *const c_char) -> c_int = { let _ = (file, argv); unavailable() };
    execvpe(file: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int = { let _ = (file, argv, envp); unavailable() };
    posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const Actions, attributes: *const Attributes, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = { let _ = (pid, path, actions, attributes, argv, envp); libc::ENOSYS };
    posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const Actions, attributes: *const Attributes, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = { let _ = (pid, file, actions, attributes, argv, envp); libc::ENOSYS };
    posix_spawn_file_actions_adddup2(actions: *mut Actions, from: c_int, to: c_int) -> c_int = { let _ = (actions, from, to); libc::ENOSYS };
    sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int = ours!(__sigaction(signal, new, old));
    signal(signal: c_int, handler: sighandler_t) -> sighandler_t = { let _ = (signal, handler); crate::errno::set(libc::ENOSYS); libc::SIG_ERR };
    __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = { let _ = (signal, handler); crate::errno::set(libc::ENOSYS); libc::SIG_ERR };
    siginterrupt(signal: c_int, on: c_int) -> c_int = { let _ = (signal, on); unavailable() };
    pthread_cancel(thread: pthread_t) -> c_int = { let _ = thread; libc::ENOSYS };
    fdopen(fd: c_int, mode: *const c_char) -> *mut c_void = { let _ = (fd, mode); crate::errno::set(libc::ENOSYS); std::ptr::null_mut() };
}
