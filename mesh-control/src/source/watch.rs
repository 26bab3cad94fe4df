//! Says when to look at the folders again: the kernel's notifications, and the clock.
//!
//! Notifications make changes felt at once but are not relied on: they do not reach through links, over
//! network file systems, or past a folder that was replaced. So time stamps are compared every few seconds
//! and content once a minute, which alone is enough.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::scan::Depth;
use crate::push::debounce;

/// How often time stamps are compared.
pub const STAMPS_EVERY: Duration = Duration::from_secs(2);
/// How often content is compared.
pub const CONTENT_EVERY: Duration = Duration::from_secs(60);

/// Watches folders.
#[derive(Debug)]
pub struct Watch {
    events: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Folders by path, with device and inode of what is watched under that name.
    watched: HashMap<PathBuf, Option<(u64, u64)>>,
    tick: tokio::time::Interval,
    content_at: Instant,
}

impl Watch {
    /// Watches `paths`. Without notifications (no inotify instance left, for instance) the clock remains.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let events = Arc::new(Notify::new());
        let bell = Arc::clone(&events);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Looking at the folder is itself an access.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                bell.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no file notifications; folders are polled"))
            .ok();
        let mut tick = tokio::time::interval(STAMPS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        let watched = paths.into_iter().map(|path| (path, None)).collect();
        let content_at = Instant::now() + CONTENT_EVERY;
        let mut watch = Self { events, watcher, watched, tick, content_at };
        watch.follow();
        watch
    }

    /// The bell that notifications ring; ringing it makes the next look happen soon.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.events)
    }

    /// Waits until it is time to look. Dropping the future may put off a look until the next tick.
    pub async fn next(&mut self) -> Depth {
        tokio::select! {
            () = self.events.notified() => debounce::settle(&self.events).await,
            _ = self.tick.tick() => {}
        }
        self.follow();
        if Instant::now() >= self.content_at {
            self.content_at = Instant::now() + CONTENT_EVERY;
            return Depth::Content;
        }
        Depth::Stamps
    }

    /// Watches what stands under each path now: a folder that was replaced is another one.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for (path, watched) in &mut self.watched {
            let now = identity(path);
            if now == *watched {
                continue;
            }
            if watched.is_some()
                && let Err(error) = watcher.unwatch(path)
            {
                tracing::debug!(%error, path = %path.display(), "the former folder was not watched any more");
            }
            *watched = match now.map(|_| watcher.watch(path, RecursiveMode::Recursive)) {
                Some(Ok(())) => now,
                Some(Err(error)) => {
                    tracing::debug!(%error, path = %path.display(), "no notifications for this folder");
                    None
                }
                None => None,
            };
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
