//! redis-server and redis-benchmark: how they are called, and what they print.

use std::net::Ipv4Addr;
use std::time::Duration;

use underpass_lab::{LabError, Process, wait_for};

use crate::table::Metric;

/// Columns of a section about redis; [`figures`] gives the first three.
pub const METRICS: &[Metric] = &[
    Metric { name: "requests/s", digits: 0 },
    Metric { name: "p50 ms", digits: 3 },
    Metric { name: "p99 ms", digits: 3 },
    Metric { name: "lane %", digits: 1 },
];

/// Longest run of redis-benchmark.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A server that keeps everything in memory.
pub fn server_args(address: Ipv4Addr, port: u16) -> Vec<String> {
    let (port, address) = (port.to_string(), address.to_string());
    ["--port", &port, "--bind", &address, "--save", "", "--appendonly", "no"].map(str::to_owned).to_vec()
}

/// Waits until the server can be connected to; an error if it ends instead.
pub fn await_server(process: &mut Process, mut connects: impl FnMut() -> bool) -> Result<(), LabError> {
    let mut ended = None;
    wait_for("redis-server to accept connections", Duration::from_secs(10), || {
        ended = process.exited();
        ended.is_some() || connects()
    })?;
    match ended {
        None => Ok(()),
        Some(status) => Err(LabError::new(format!("redis-server: {status}: {}{}", process.stdout(), process.stderr()))),
    }
}

/// Requests a second, median and 99th percentile in milliseconds, of one test (`GET`) in redis-benchmark's CSV.
pub fn figures(text: &str, test: &str) -> Result<[Option<f64>; 3], LabError> {
    let figure = |column: &str| {
        let value = figure(text, test, column);
        value.ok_or_else(|| LabError::new(format!("no {column} of {test} in what redis-benchmark printed: {text}")))
    };
    Ok([Some(figure("rps")?), Some(figure("p50_latency_ms")?), Some(figure("p99_latency_ms")?)])
}

fn figure(text: &str, test: &str, column: &str) -> Option<f64> {
    let mut rows = text.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')).collect::<Vec<_>>());
    let headings = rows.find(|row| row.first() == Some(&"test"))?;
    let at = headings.iter().position(|heading| *heading == column)?;
    rows.find(|row| row.first() == Some(&test))?.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_test_and_heading() {
        let text = "\"test\",\"rps\",\"p50_latency_ms\",\"p99_latency_ms\"\n\"SET\",\"9.5\",\"1\",\"2\"\n\
                    \"GET\",\"20000.00\",\"0.031\",\"0.04\"\n";
        assert_eq!(figures(text, "GET").unwrap(), [Some(20_000.0), Some(0.031), Some(0.04)]);
        assert_eq!(figures(text, "SET").unwrap()[0], Some(9.5));
        assert!(figures(text, "INCR").is_err());
        let error = figures("\"test\",\"rps\"\n\"GET\",\"1\"\n", "GET").unwrap_err().to_string();
        assert!(error.contains("no p50_latency_ms"), "{error}");
    }
}
