//! Starting the daemon on demand, from a privileged program. One of the files with `unsafe`: between fork and exec only
//! async-signal-safe system calls are made.

use std::ffi::{CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::errno::{Errno, Result, check};
use crate::{options, sys};

/// Where a package puts the command.
const PACKAGED: [&str; 2] = ["/usr/bin/underpass", "/usr/sbin/underpass"];
/// How long the daemon may take until it listens, ns.
const PATIENCE: u64 = 3_000_000_000;

/// Is the program privileged, and the command there?
pub fn is_possible() -> bool {
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
    let path = command().ok_or(Errno(libc::ENOENT))?;
    let socket = &options::get().socket;
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
    // SAFETY: clone without flags is fork without an exit signal, so the program hears of no child; the child makes system calls
    // only (`become_daemon`), on values made before.
    let child = check(unsafe { libc::syscall(libc::SYS_clone, 0usize, 0usize, 0usize, 0usize, 0usize) })?;
    if child == 0 {
        become_daemon(&argv, &envp);
    }
    // SAFETY: waits for that child alone; __WCLONE because it has no exit signal.
    unsafe { libc::syscall(libc::SYS_wait4, child, 0usize, libc::__WCLONE, 0usize) };
    await_listener(socket)
}

/// In the child: a grandchild in a session of its own, with no descriptor of the program, becomes the daemon.
fn become_daemon(argv: &[*const c_char], envp: &[*const c_char]) -> ! {
    // SAFETY: system calls on scalars and on NUL-terminated arrays that live in this frame's caller.
    unsafe {
        libc::syscall(libc::SYS_setsid);
        if libc::syscall(libc::SYS_clone, 0usize, 0usize, 0usize, 0usize, 0usize) == 0 {
            let null = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR, 0);
            for standard in 0..3 {
                libc::syscall(libc::SYS_dup3, null, standard, 0);
            }
            libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0);
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

fn await_listener(socket: &Path) -> Result<()> {
    let until = sys::now().after(PATIENCE);
    loop {
        match sys::connect_seqpacket(socket) {
            Ok(_) => return Ok(()),
            Err(error) if sys::now() >= until => return Err(error),
            Err(_) => {
                let pause = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                let _ = sys::ppoll(&mut [], Some(pause), None);
            }
        }
    }
}
