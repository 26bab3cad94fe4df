//! Sends proxies to other replicas before this one ends: every discovery stream at a moment of its own.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Tells streams when to end. Clones say the same.
#[derive(Debug, Clone)]
pub struct Farewell {
    until: watch::Sender<Option<Instant>>,
}

impl Default for Farewell {
    fn default() -> Self {
        Self { until: watch::Sender::new(None) }
    }
}

impl Farewell {
    /// Every stream ends within `window` from now, those that are opened meanwhile too.
    pub fn begin(&self, window: Duration) {
        self.until.send_replace(Some(Instant::now() + window));
    }

    /// Returns when one stream is to end. For ever, if this replica stays.
    pub async fn turn(&self) {
        let mut until = self.until.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let found = until.wait_for(Option::is_some).await.ok().and_then(|found| *found);
        let Some(until) = found else { return std::future::pending().await };
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.mul_f64(fastrand::f64())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn streams_end_spread_over_the_window_and_none_before_it_begins() {
        let farewell = Farewell::default();
        let early = tokio::time::timeout(Duration::from_secs(3_600), farewell.turn()).await;
        assert!(early.is_err(), "a stream ended although the replica stays");
        farewell.begin(Duration::from_secs(10));
        let start = Instant::now();
        let turns = join_all((0..1_000).map(|_| {
            let farewell = farewell.clone();
            async move {
                farewell.turn().await;
                start.elapsed()
            }
        }));
        let turns = turns.await;
        for second in 0..10 {
            let range = Duration::from_secs(second)..Duration::from_secs(second + 1);
            let ended = turns.iter().filter(|at| range.contains(*at)).count();
            assert!((50..200).contains(&ended), "{ended} streams ended in second {second}");
        }
        assert!(turns.iter().all(|at| *at <= Duration::from_millis(10_001)));
    }
}
