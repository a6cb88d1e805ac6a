//! What `/proc` says of processes and their descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use underpass_stack::arena;

/// The descriptors of a process that matter here.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Sockets: descriptor → inode.
    pub sockets: BTreeMap<i32, u64>,
    /// Descriptors of memfds named as arenas are.
    pub arenas: Vec<i32>,
}

/// Every process of this pid namespace.
pub fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    let mut pids: Vec<u32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The descriptors of a process. Those that are closed while we look are left out.
pub fn descriptors(pid: u32) -> io::Result<Descriptors> {
    let mut found = Descriptors::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(entry) = entry else { continue };
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.as_os_str().as_bytes();
        if let Some(inode) = socket_inode(target) {
            found.sockets.insert(fd, inode);
        } else if is_arena_name(target) {
            found.arenas.push(fd);
        }
    }
    Ok(found)
}

/// The path under which another process's descriptor can be opened.
pub fn fd_path(pid: u32, fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
}

/// The pid in the process's own pid namespace: the last number of `NSpid`, proc_pid_status(5).
pub fn own_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().next_back()?.parse().ok()
}

/// The command line, fit for a terminal: arguments separated by blanks, control characters replaced.
pub fn command(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|&b| b == 0).filter(|word| !word.is_empty());
    let line: Vec<String> = words.map(|word| printable(&String::from_utf8_lossy(word))).collect();
    line.join(" ")
}

/// A NUL-padded text that another process wrote, fit for a terminal.
pub fn padded_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    printable(&String::from_utf8_lossy(&bytes[..end]))
}

/// Replaces what could move the cursor or change colours: the text comes from strangers.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn socket_inode(target: &[u8]) -> Option<u64> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn is_arena_name(target: &[u8]) -> bool {
    let name = target.strip_prefix(b"/memfd:").map(|rest| rest.strip_suffix(b" (deleted)").unwrap_or(rest));
    name == Some(arena::MEMFD_NAME.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_texts_are_told_apart() {
        assert_eq!(socket_inode(b"socket:[12345]"), Some(12345));
        assert_eq!(socket_inode(b"socket:[x]"), None);
        assert!(is_arena_name(b"/memfd:underpass-arena (deleted)"));
        assert!(!is_arena_name(b"/memfd:underpass-umem (deleted)"));
        assert!(!is_arena_name(b"/home/memfd:underpass-arena"));
    }

    #[test]
    fn strangers_texts_cannot_steer_the_terminal() {
        assert_eq!(padded_text(b"a\x1b[2Jb\0garbage"), "a?[2Jb");
        assert_eq!(padded_text(&[0xff; 4]), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn our_own_process_is_readable() {
        let me = std::process::id();
        assert!(pids().unwrap().contains(&me));
        assert!(own_pid(me).is_some());
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        assert!(descriptors(me).unwrap().sockets.contains_key(&fd));
    }
}
