//! Waiting for what a cluster does in its own time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Looks until it is so, and fails with the last reason why it is not.
///
/// # Errors
/// When it is not so within the limit.
pub fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() >= limit => {
                return Err(error).with_context(|| format!("not within {} s: {what}", limit.as_secs()));
            }
            Err(_not_yet) => pause(PAUSE),
        }
    }
}

/// Looks again and again for a time, and fails when it is not so once.
///
/// # Errors
/// At the first look that fails.
pub fn holds_for(time: Duration, what: &str, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let at = begun.elapsed().as_secs_f64();
        look().with_context(|| format!("after {at:.1} s: {what}"))?;
        pause(PAUSE);
    }
    Ok(())
}

/// Lets time pass, where the time itself is what is tried.
#[expect(
    clippy::disallowed_methods,
    reason = "a cluster is looked at from outside; there is no event to wait for"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
