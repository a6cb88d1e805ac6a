//! What a call on a descriptor costs that is no socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Instant;

use clap::Args;
use underpass_bench::Calls;

use crate::{Outcome, print_json};

/// Bytes written at once; less than a pipe holds.
const BATCH: usize = 4096;

/// Reads single bytes from a pipe that never runs dry.
#[derive(Args)]
pub struct PipeRead {
    /// Reads.
    #[arg(long, default_value_t = 1 << 20)]
    count: u64,
}

impl PipeRead {
    /// Runs to its end and prints [`Calls`].
    pub fn run(&self) -> Outcome {
        let (mut reader, mut writer) = pipe()?;
        let mut byte = [0; 1];
        let (mut count, mut nanos) = (0, 0);
        while count < self.count {
            writer.write_all(&[1; BATCH])?;
            let begin = Instant::now();
            for _ in 0..BATCH {
                reader.read_exact(&mut byte)?;
            }
            nanos += begin.elapsed().as_nanos();
            count += BATCH as u64;
        }
        print_json(&Calls { count, ns_per_call: nanos as f64 / count as f64 })
    }
}

fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just returned to us and nobody else owns them.
    let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    Ok((reader.into(), writer.into()))
}
