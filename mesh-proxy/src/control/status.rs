//! What operators are told about the connection to the control plane. Written by the discovery task, read
//! by the admin and status listeners; never touched by the data path.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_api::wire::TypeUrl;

/// Shared status.
#[derive(Debug, Default)]
pub struct Status {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    is_connected: bool,
    last_heard: Option<Instant>,
    missing: Vec<&'static str>,
    versions: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    rejection: Option<String>,
}

impl Status {
    /// The stream is open.
    pub fn connected(&self) {
        let mut inner = self.lock();
        inner.is_connected = true;
        inner.last_heard = Some(Instant::now());
    }

    /// The stream has ended.
    pub fn disconnected(&self) {
        let mut inner = self.lock();
        // Keep-alive held while it was open, so it was heard until now.
        if std::mem::replace(&mut inner.is_connected, false) {
            inner.last_heard = Some(Instant::now());
        }
    }

    /// What is had, and what is missing before the own workload is complete.
    pub fn observe(
        &self,
        versions: BTreeMap<TypeUrl, BTreeMap<String, String>>,
        missing: Vec<&'static str>,
        rejection: Option<String>,
    ) {
        let mut inner = self.lock();
        inner.versions = versions;
        inner.missing = missing;
        inner.rejection = rejection;
    }

    /// Whether the stream is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.lock().is_connected
    }

    /// Time since the control plane was last heard; zero while the stream is open, `None` before the first
    /// time.
    #[must_use]
    pub fn silent(&self) -> Option<Duration> {
        let inner = self.lock();
        if inner.is_connected {
            return Some(Duration::ZERO);
        }
        inner.last_heard.map(|heard| heard.elapsed())
    }

    /// What is missing before the own workload is complete.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().missing.clone()
    }

    /// Versions had, by type and name.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<TypeUrl, BTreeMap<String, String>> {
        self.lock().versions.clone()
    }

    /// Why the last response was rejected, until one is accepted.
    #[must_use]
    pub fn rejection(&self) -> Option<String> {
        self.lock().rejection.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
