//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

use crate::LabError;

const PAUSE: Duration = Duration::from_millis(2);

/// Looks at `condition` until it holds, at most for `limit`; the error says `what` was waited for.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<(), LabError> {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LabError::new(format!("waited {limit:?} in vain for: {what}")));
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_the_condition_or_with_the_limit() {
        let mut looks = 0;
        let third = wait_for("third look", Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        });
        assert!(third.is_ok() && looks == 3);
        let error = wait_for("the impossible", Duration::from_millis(10), || false).unwrap_err();
        assert!(error.to_string().contains("the impossible"));
    }
}
