//! Gathers bursts: an editor, a `git pull` or a copy of a folder makes many events, and one look at the
//! folder afterwards is enough.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Quiet time that ends a burst.
pub const QUIET: Duration = Duration::from_millis(60);
/// Longest time that a burst may hold back the first of its events.
pub const LONGEST: Duration = Duration::from_millis(400);

/// Waits for an event, then for the burst around it to end: until nothing has come for [`QUIET`], and not
/// longer than [`LONGEST`]. Dropping the future loses nothing but the quiet time: the next call returns for
/// events that come after.
pub async fn burst(events: &Notify) {
    events.notified().await;
    settle(events).await;
}

/// Waits for a burst that has begun to end.
pub async fn settle(events: &Notify) {
    let latest = Instant::now() + LONGEST;
    loop {
        let quiet = (Instant::now() + QUIET).min(latest);
        if timeout_at(quiet, events.notified()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_single_event_is_passed_on_after_the_quiet_time() {
        let events = Notify::new();
        let start = Instant::now();
        events.notify_one();
        burst(&events).await;
        assert_eq!(start.elapsed(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_events_is_passed_on_after_the_longest_time() {
        let events = Notify::new();
        let start = Instant::now();
        let storm = async {
            loop {
                events.notify_one();
                tokio::time::sleep(QUIET / 3).await;
            }
        };
        tokio::select! {
            () = burst(&events) => {}
            () = storm => {}
        }
        assert!(start.elapsed() <= LONGEST + QUIET, "took {:?}", start.elapsed());
    }
}
