//! Wakes the streams that a change concerns.
//!
//! Each stream has one mailbox: the set of resources that may be different for it, and a notification. A
//! change adds to the set and rings; the stream takes the whole set when it gets around to it and reads
//! the latest content from the snapshot. So the queue is bounded by what the stream subscribes to, however
//! slow it is, and nothing stale is ever sent.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::snapshot::{ResourceKey, SubscriberId, Updates};

/// The mailbox of one stream.
#[derive(Debug, Default)]
pub struct Mailbox {
    dirty: Mutex<BTreeSet<ResourceKey>>,
    bell: Notify,
}

impl Mailbox {
    /// Waits until something may be different, and takes it. The set may be empty: then the stream's own
    /// workload has changed. Dropping the future loses nothing.
    pub async fn changed(&self) -> BTreeSet<ResourceKey> {
        self.bell.notified().await;
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn deliver(&self, keys: BTreeSet<ResourceKey>) {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        self.bell.notify_one();
    }
}

/// The mailboxes of all streams.
#[derive(Debug, Default)]
pub struct Fanout {
    mailboxes: Mutex<HashMap<SubscriberId, Arc<Mailbox>>>,
}

impl Fanout {
    /// Opens a mailbox.
    pub fn open(&self, subscriber: SubscriberId) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        self.lock().insert(subscriber, Arc::clone(&mailbox));
        mailbox
    }

    /// Closes a mailbox.
    pub fn close(&self, subscriber: SubscriberId) {
        self.lock().remove(&subscriber);
    }

    /// Delivers updates.
    pub fn deliver(&self, updates: Updates) {
        let mailboxes = self.lock();
        for (subscriber, keys) in updates {
            if let Some(mailbox) = mailboxes.get(&subscriber) {
                mailbox.deliver(keys);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SubscriberId, Arc<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
