//! What operators are told about the own identity.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use mesh_identity::rotation::Condition;

/// Shared status; written by the keeper, read by the admin listener.
#[derive(Debug)]
pub struct IdentityStatus {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next_rotation: Option<SystemTime>,
    condition: Condition,
    failure: Option<String>,
}

impl Default for IdentityStatus {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { next_rotation: None, condition: Condition::None, failure: None }) }
    }
}

impl IdentityStatus {
    /// When the certificate is to be renewed.
    #[must_use]
    pub fn next_rotation(&self) -> Option<SystemTime> {
        self.lock().next_rotation
    }

    /// How renewal stands.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.lock().condition
    }

    /// Why the last request failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    pub(super) fn observe(&self, next_rotation: Option<SystemTime>, condition: Condition) {
        let mut inner = self.lock();
        inner.next_rotation = next_rotation;
        inner.condition = condition;
    }

    pub(super) fn failed(&self, reason: String) {
        self.lock().failure = Some(reason);
    }

    pub(super) fn succeeded(&self) {
        self.lock().failure = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
