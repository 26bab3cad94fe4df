//! The one signal that the process is draining: given once, never taken back.
//!
//! It is asked for with every response, so the question is one read of a value that changes once in the life
//! of the process; only those who wait for the begin go through a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Begins the drain.
#[derive(Debug, Clone)]
pub struct Drain {
    is_draining: Arc<AtomicBool>,
    signal: watch::Sender<()>,
}

/// Watches for the drain; cheap to clone.
#[derive(Debug, Clone)]
pub struct DrainWatch {
    is_draining: Arc<AtomicBool>,
    signal: watch::Receiver<()>,
}

/// The two ends of one drain.
#[must_use]
pub fn channel() -> (Drain, DrainWatch) {
    let is_draining = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = watch::channel(());
    let drain = Drain { is_draining: Arc::clone(&is_draining), signal: sender };
    (drain, DrainWatch { is_draining, signal: receiver })
}

impl Drain {
    /// Begins it; further calls change nothing.
    pub fn begin(&self) {
        if !self.is_draining.swap(true, Ordering::SeqCst) {
            self.signal.send_replace(());
        }
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// A further watch.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch { is_draining: Arc::clone(&self.is_draining), signal: self.signal.subscribe() }
    }
}

impl DrainWatch {
    /// Whether the drain has begun. Costs one read.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Waits for the begin of the drain. Dropping the future loses nothing.
    pub async fn draining(&self) {
        let mut signal = self.signal.clone();
        signal.mark_unchanged();
        // Subscribed before the flag is read, so a begin in between is not missed.
        while !self.is_draining.load(Ordering::SeqCst) {
            if signal.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_learns_of_the_begin_also_later() {
        let (drain, watch) = channel();
        assert!(!watch.is_draining());
        let (waiting, ()) = tokio::join!(
            async {
                watch.draining().await;
                watch.is_draining()
            },
            async { drain.begin() }
        );
        assert!(waiting);
        drain.begin();
        drain.watch().draining().await;
        watch.clone().draining().await;
    }
}
