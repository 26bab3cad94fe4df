//! Processes of the machine, and waiting for what must come true by itself.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time for what must come true by itself. What is waited for takes milliseconds; a machine that builds
/// something else at the same time may need this long.
const EVENTUALLY: Duration = Duration::from_secs(30);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Repeats until `attempt` succeeds, and returns what it found.
///
/// # Panics
/// When it does not within half a minute; the message has the last reason.
#[track_caller]
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(reason) => {
                assert!(
                    begun.elapsed() < EVENTUALLY,
                    "not within {} s: {what}: {reason}",
                    EVENTUALLY.as_secs()
                );
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// Sends a signal by name to a process that the test started.
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn signal(name: &str, pid: i32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// Whether a process runs; one that ended and was not yet waited for does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
