//! What a call on a descriptor costs that is no socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Instant;

use clap::Args;
use underpass_bench::{Calls, median};

use crate::{Outcome, print_json};

/// Reads timed together. So many bytes are written at once; less than a pipe holds.
const BATCH: usize = 4096;

/// Reads single bytes from a pipe that never runs dry.
#[derive(Args)]
pub struct PipeRead {
    /// Reads; whole batches, one at least.
    #[arg(long, default_value_t = 1 << 20)]
    count: u64,
}

impl PipeRead {
    /// Runs to its end and prints [`Calls`].
    pub fn run(&self) -> Outcome {
        let (mut reader, mut writer) = pipe()?;
        let batches = self.count.div_ceil(BATCH as u64).max(1);
        let nanos = (0..batches).map(|_| batch(&mut reader, &mut writer)).collect::<io::Result<Vec<f64>>>()?;
        let ns_per_call = median(nanos).ok_or("nothing was measured")?;
        print_json(&Calls { count: batches * BATCH as u64, ns_per_call })
    }
}

/// Nanoseconds a read, in the mean.
fn batch(reader: &mut File, writer: &mut File) -> io::Result<f64> {
    let mut byte = [0; 1];
    writer.write_all(&[1; BATCH])?;
    let begin = Instant::now();
    for _ in 0..BATCH {
        reader.read_exact(&mut byte)?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / BATCH as f64)
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
