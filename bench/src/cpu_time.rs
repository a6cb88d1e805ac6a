//! CPU time of another process. One of the files with `unsafe`: a clock that std has not got.

use std::io;
use std::time::Duration;

use underpass_lab::LabError;

/// CPU time used so far by process `pid`, user and system, by the scheduler's own count: of all its threads, those that have
/// ended included (clock_getcpuclockid(3)). The same as utime and stime of /proc/PID/stat, but not in hundredths of a second, of which a
/// hundredth of a CPU makes three in three seconds. An error if there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration, LabError> {
    let failed = |error: io::Error| LabError::new(format!("CPU time of process {pid}: {error}"));
    let mut clock: libc::clockid_t = 0;
    // SAFETY: one integer is written, to a place of ours.
    let errno = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if errno != 0 {
        return Err(failed(io::Error::from_raw_os_error(errno)));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one timespec is written, to a place of ours.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_have_ended_count() {
        let me = std::process::id();
        let now = || cpu_time(me).unwrap();
        let before = now();
        let goal = before + Duration::from_millis(20);
        let worked = std::thread::spawn(move || while cpu_time(me).unwrap() < goal {}).join();
        assert!(worked.is_ok() && now() >= goal, "{before:?} {:?}", now());
    }

    #[test]
    fn no_process_is_an_error() {
        // All process ids are smaller (PID_MAX_LIMIT).
        assert!(cpu_time(1 << 22).is_err());
    }
}
