//! Who really carried the load? The kernel's own TCP counters tell: what a lane carries, they do not see.

use underpass_lab::{Host, LabError};

/// Segments that kernel TCP of this host has received so far (`InSegs` of RFC 4022, /proc/net/snmp).
pub fn received_by_kernel(host: &Host) -> Result<u64, LabError> {
    let text = host
        .namespace
        .inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?
        .map_err(|error| LabError::new(format!("/proc/thread-self/net/snmp: {error}")))?;
    in_segs(&text).ok_or_else(|| LabError::new("no Tcp InSegs in /proc/net/snmp"))
}

/// Per cent of `expected` segments that did not pass through the kernel.
pub fn lane_share(kernel: u64, expected: u64) -> f64 {
    100.0 * (1.0 - (kernel as f64 / expected.max(1) as f64).min(1.0))
}

fn in_segs(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "InSegs")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: RtoAlgorithm InSegs OutSegs\nTcp: 1 77 99\n";
        assert_eq!(in_segs(text), Some(77));
        assert_eq!(in_segs("Tcp: OutSegs\nTcp: 3\n"), None);
    }

    #[test]
    fn the_share_stays_between_nothing_and_all() {
        assert_eq!((lane_share(0, 1000), lane_share(250, 1000), lane_share(2000, 1000)), (100.0, 75.0, 0.0));
    }
}
