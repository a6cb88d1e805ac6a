//! Starting the daemon on demand, from a privileged program. One of the files with `unsafe`: between fork and exec only
//! async-signal-safe system calls are made.

use std::ffi::{CString, c_char, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::errno::{Errno, Result, check};
use crate::{log, options, sys};

/// Where a package puts the command.
const PACKAGED: [&str; 2] = ["/usr/bin/underpass", "/usr/sbin/underpass"];
/// How long the daemon may take until it listens, ns.
const PATIENCE: u64 = 3_000_000_000;
/// How long another one that was faster may take to listen once ours has given up, ns.
const OTHER: u64 = 200_000_000;
/// After a daemon that did not come up the next is not started for so long, ns: a thread of the program's waits for it.
const PAUSE: u64 = 60_000_000_000;
/// The descriptor by whose end the daemon's end is noticed.
const LIFE: RawFd = 3;

/// No daemon is started before this time.
static NEXT_START: AtomicU64 = AtomicU64::new(0);

/// Is the program privileged, the command there, and the last failure long ago?
pub fn is_possible() -> bool {
    if sys::now().0 < NEXT_START.load(Relaxed) {
        return false;
    }
    // SAFETY: no arguments, no memory.
    let root = unsafe { libc::syscall(libc::SYS_geteuid) } == 0;
    root && command().is_some()
}

fn command() -> Option<PathBuf> {
    let beside = library().and_then(|path| Some(path.parent()?.join("underpass")));
    beside.into_iter().chain(PACKAGED.iter().map(PathBuf::from)).find(|path| path.is_file())
}

/// The path of this library.
fn library() -> Option<PathBuf> {
    // SAFETY: plain data.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: an address inside this library and a place for the result.
    let found = unsafe { libc::dladdr(library as fn() -> Option<PathBuf> as *const c_void, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own NUL-terminated string.
    let name = unsafe { std::ffi::CStr::from_ptr(info.dli_fname) };
    Some(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())).to_owned())
}

/// Starts the daemon as nobody's child and waits until it listens.
pub fn start_daemon() -> Result<()> {
    let socket = &options::get().socket;
    let started = spawn(socket).and_then(|life| await_listener(socket, &life));
    if let Err(Errno(errno)) = started {
        let socket = socket.display();
        log::warn(format_args!(
            "a daemon was started and does not listen on {socket} (errno {errno}): not again for a minute"
        ));
        NEXT_START.store(sys::now().after(PAUSE).0, Relaxed);
    }
    started
}

/// A pipe, of which the daemon holds the other end as long as it lives.
fn spawn(socket: &Path) -> Result<OwnedFd> {
    let path = command().ok_or(Errno(libc::ENOENT))?;
    let words = [
        path.as_os_str().as_bytes(),
        b"daemon",
        b"--on-demand",
        b"--foreground",
        b"--socket",
        socket.as_os_str().as_bytes(),
    ];
    let words: Vec<CString> = words
        .iter()
        .map(|w| CString::new(*w))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Errno(libc::EINVAL))?;
    let mut argv: Vec<*const c_char> = words.iter().map(|w| w.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(), std::ptr::null()];
    let [life, other] = pipe()?;
    // SAFETY: clone without flags is fork without an exit signal, so the program hears of no child; the child makes system calls
    // only (`become_daemon`), on values made before.
    let child = check(unsafe { libc::syscall(libc::SYS_clone, 0usize, 0usize, 0usize, 0usize, 0usize) })?;
    if child == 0 {
        become_daemon(&argv, &envp, other.as_raw_fd());
    }
    // SAFETY: waits for that child alone; __WCLONE because it has no exit signal.
    unsafe { libc::syscall(libc::SYS_wait4, child, 0usize, libc::__WCLONE, 0usize) };
    Ok(life)
}

fn pipe() -> Result<[OwnedFd; 2]> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: a place for two descriptors.
    check(unsafe { libc::syscall(libc::SYS_pipe2, fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made them for us.
    Ok(fds.map(|fd| sys::out_of_the_way(unsafe { OwnedFd::from_raw_fd(fd) })))
}

/// In the child: a grandchild in a session of its own, with no descriptor of the program but `life`, becomes the daemon.
fn become_daemon(argv: &[*const c_char], envp: &[*const c_char], life: RawFd) -> ! {
    // SAFETY: system calls on scalars and on NUL-terminated arrays that live in this frame's caller.
    unsafe {
        libc::syscall(libc::SYS_setsid);
        if libc::syscall(libc::SYS_clone, 0usize, 0usize, 0usize, 0usize, 0usize) == 0 {
            let null = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR, 0);
            for standard in 0..3 {
                libc::syscall(libc::SYS_dup3, null, standard, 0);
            }
            if life == LIFE {
                libc::syscall(libc::SYS_fcntl, LIFE, libc::F_SETFD, 0);
            } else {
                libc::syscall(libc::SYS_dup3, life, LIFE, 0);
            }
            libc::syscall(libc::SYS_close_range, LIFE as u32 + 1, u32::MAX, 0);
            libc::syscall(libc::SYS_chdir, c"/".as_ptr());
            let none = 0u64;
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0usize, 8usize);
            libc::syscall(libc::SYS_execve, argv[0], argv.as_ptr(), envp.as_ptr());
        }
        loop {
            libc::syscall(libc::SYS_exit_group, 0);
        }
    }
}

fn await_listener(socket: &Path, life: &OwnedFd) -> Result<()> {
    const INTERVAL: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let mut until = sys::now().after(PATIENCE);
    // Nobody writes: what is reported is that the other end is closed.
    let mut watched = vec![libc::pollfd { fd: life.as_raw_fd(), events: 0, revents: 0 }];
    loop {
        match sys::connect_seqpacket(socket) {
            Ok(_) => return Ok(()),
            Err(error) if sys::now() >= until => return Err(error),
            Err(_) if sys::ppoll(&mut watched, Some(INTERVAL), None) == Ok(1) => {
                watched.clear();
                until = until.min(sys::now().after(OTHER));
            }
            Err(_) => {}
        }
    }
}
