//! How much memory a process costs.

use underpass_lab::LabError;

/// Memory that is resident for the sake of one process, KiB.
#[derive(Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub all: u64,
    /// The part that the library maps: its own file, the arena, the UMEM.
    pub library: u64,
}

impl Memory {
    /// Adds up /proc/PID/smaps. Private pages count in full, shared ones (libc, the program's own file) by the proportional
    /// share (Pss), since they are there without us. What the library maps counts in full although the daemon maps arena and UMEM
    /// too: it is there because of this program.
    pub fn of(pid: u32) -> Result<Self, LabError> {
        let path = format!("/proc/{pid}/smaps");
        let text = std::fs::read_to_string(&path).map_err(|error| LabError::new(format!("{path}: {error}")))?;
        // A process that has ended, but was not waited for yet, has no lines.
        add_up(&text)
            .filter(|memory| memory.all > 0)
            .ok_or_else(|| LabError::new(format!("{path}: no figures: '{text}'")))
    }
}

/// Resident memory of a process, KiB: pages that several processes map count in each by its share of them (Pss of
/// /proc/PID/smaps_rollup), so that a sum over processes counts each page once.
pub fn proportional_kib(pid: u32) -> Result<u64, LabError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(|error| LabError::new(format!("{path}: {error}")))?;
    pss(&text).ok_or_else(|| LabError::new(format!("{path}: no Pss: '{text}'")))
}

fn pss(rollup: &str) -> Option<u64> {
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}

/// `None` if a figure cannot be read.
fn add_up(smaps: &str) -> Option<Memory> {
    let (mut others, mut library, mut ours) = (0, 0, false);
    for line in smaps.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let kib = || rest.split_whitespace().next()?.parse::<u64>().ok();
        match word {
            "Rss:" if ours => library += kib()?,
            "Pss:" if !ours => others += kib()?,
            _ if word.ends_with(':') => {}
            // The first line of a mapping: addresses, rights, offset, device, inode, path.
            _ => ours = rest.contains("/libunderpass.so") || rest.contains("/memfd:underpass"),
        }
    }
    Some(Memory { all: others + library, library })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_count_by_their_share_except_ours() {
        let text = "7f00-7f10 r-xp 00000000 08:01 11 /usr/lib/libc.so.6\nRss:  800 kB\nPss:  8 kB\nPss_Dirty:  5 kB\nVmFlags: rd\n\
                    7f10-7f20 r-xp 00000000 08:01 12 /x/libunderpass.so\nRss:  40 kB\nPss:  4 kB\n\
                    7f20-7f30 rw-s 00000000 00:01 13 /memfd:underpass-umem (deleted)\nRss:  2000 kB\nPss:  1000 kB\n\
                    7f30-7f40 rw-p 00000000 00:00 0\nRss:  100 kB\nPss:  100 kB\n";
        assert_eq!(add_up(text), Some(Memory { all: 8 + 40 + 2000 + 100, library: 2040 }));
        assert_eq!(add_up("7f00-7f10 r-xp 00000000 08:01 11 /usr/lib/libc.so.6\nPss:  many kB\n"), None);
    }

    #[test]
    fn the_share_is_found_in_a_rollup() {
        let text = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:    2000 kB\nPss:     314 kB\nPss_Dirty:   99 kB\n";
        assert_eq!((pss(text), pss("Rss: 3 kB\nPss_Dirty: 4 kB\n")), (Some(314), None));
        assert!(proportional_kib(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn a_process_without_memory_is_an_error() {
        assert!(Memory::of(std::process::id()).unwrap().all > 0);
        assert!(Memory::of(u32::MAX).is_err());
    }
}
