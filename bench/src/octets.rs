//! Who really carried the load? The kernel's own IP counters tell: what a lane carries, they do not see.
//!
//! Octets, not segments: the kernel counts a super-packet of segmentation offload as one.

use underpass_lab::{Host, LabError};

/// Headers of a TCP segment with timestamps over IPv4, bytes.
const HEADERS: u64 = 20 + 32;

/// Bytes of IP packets that the kernel of this host has received and sent so far (`InOctets` and `OutOctets` of
/// /proc/net/netstat and /proc/net/snmp6, RFC 4293).
pub fn carried_by_kernel(host: &Host) -> Result<u64, LabError> {
    let read = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        let text = host.namespace.inside(|| std::fs::read_to_string(&path))?;
        text.map_err(|error| LabError::new(format!("{path}: {error}")))
    };
    let v4 = both_ways(&read("netstat")?);
    // A kernel without IPv6 has no such file.
    let v6 = read("snmp6").map_or(Some(0), |text| both_ways_v6(&text));
    let sum = v4.zip(v6).map(|(v4, v6)| v4 + v6);
    sum.ok_or_else(|| LabError::new("no InOctets and OutOctets in /proc/net/netstat and /proc/net/snmp6"))
}

fn both_ways_v6(text: &str) -> Option<u64> {
    let figure = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(figure("Ip6InOctets")? + figure("Ip6OutOctets")?)
}

/// Bytes of IP packets that the loopback interface of our namespace has carried so far. It sends what it receives: each counts once.
pub fn carried_by_loopback() -> Result<u64, LabError> {
    let path = "/proc/thread-self/net/dev";
    let text = std::fs::read_to_string(path).map_err(|error| LabError::new(format!("{path}: {error}")))?;
    received_by(&text, "lo").ok_or_else(|| LabError::new(format!("no interface lo in {path}")))
}

/// The bytes of so many messages there and back, each in a segment of its own, without what is in them.
pub fn of_exchanges(count: u64) -> u64 {
    2 * count * HEADERS
}

/// Per cent of `expected` bytes that did not pass through the kernel.
pub fn lane_share(kernel: u64, expected: u64) -> f64 {
    100.0 * (1.0 - (kernel as f64 / expected.max(1) as f64).min(1.0))
}

/// The first figure of an interface's line: bytes received.
fn received_by(text: &str, interface: &str) -> Option<u64> {
    let figures = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    figures.split_whitespace().next()?.parse().ok()
}

fn both_ways(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| -> Option<u64> {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    Some(value("InOctets")? + value("OutOctets")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: X OutOctets InOctets\nIpExt: 1 77 99\n";
        assert_eq!(both_ways(text), Some(176));
        assert_eq!(both_ways("IpExt: OutOctets\nIpExt: 3\n"), None);
    }

    #[test]
    fn those_of_ipv6_stand_a_line_each() {
        let text = "Ip6InOctets   \t20\nIp6OutOctets\t 3\nIp6InMcastOctets 100\n";
        assert_eq!(both_ways_v6(text), Some(23));
        assert_eq!(both_ways_v6("Ip6InOctets 5\n"), None);
    }

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive\n face |bytes    packets\n  lo1: 5 1\n    lo: 314 3 0\n  eth0:99 1\n";
        assert_eq!((received_by(text, "lo"), received_by(text, "eth0")), (Some(314), Some(99)));
        assert_eq!(received_by(text, "eth"), None);
    }

    #[test]
    fn the_share_stays_between_nothing_and_all() {
        assert_eq!((lane_share(0, 1000), lane_share(250, 1000), lane_share(2000, 1000)), (100.0, 75.0, 0.0));
    }
}
