//! How many descriptors we may have. One of the files with `unsafe`: std has not got the call.

use std::io;

/// Descriptors that are open beside those asked for: standard streams, listener, epoll set, and a preloaded library's few.
const OTHERS: u64 = 64;

/// Raises the soft limit (RLIMIT_NOFILE, getrlimit(2)) as far as an ordinary program may, up to the hard limit; an error if that is not
/// enough for `wanted` descriptors.
pub fn allow(wanted: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, which is ours.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let hard = limit.rlim_max;
    if hard < wanted + OTHERS {
        return Err(format!(
            "{wanted} connections need {} descriptors, but the hard limit (RLIMIT_NOFILE, 'ulimit -Hn') is {hard}: raise it, or ask for \
             fewer connections",
            wanted + OTHERS
        )
        .into());
    }
    limit.rlim_cur = hard;
    // SAFETY: the kernel reads one rlimit, which is ours.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_is_an_error_that_says_so() {
        allow(1).unwrap();
        let error = allow(u64::from(u32::MAX)).unwrap_err().to_string();
        assert!(error.contains("ulimit -Hn"), "{error}");
    }
}
