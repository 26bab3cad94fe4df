//! Whether this replica is to be asked: what it still waits for, and whether it is about to end.
//!
//! A Kubernetes Service sends proxies and admission reviews to replicas that say they are ready. One that
//! cannot sign, does not know the whole configuration or has no certificate for its webhooks would give
//! wrong answers, so it names what is missing instead; one that ends says so before it stops answering.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// What a replica needs before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The authority, loaded or made.
    Authority,
    /// The first complete configuration.
    Configuration,
    /// The certificate of the webhooks.
    Webhooks,
    /// The listener for proxies.
    Discovery,
}

impl Part {
    /// What is waited for, in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "the authority",
            Self::Configuration => "the first complete configuration",
            Self::Webhooks => "the certificate of the webhooks",
            Self::Discovery => "the listener for proxies",
        }
    }
}

/// Why a replica is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It starts.
    #[error("waiting for {}", .0.iter().map(|part| part.as_str()).collect::<Vec<_>>().join(", "))]
    Waiting(Vec<Part>),
    /// It ends.
    #[error("stopping")]
    Stopping,
}

#[derive(Debug)]
struct State {
    missing: BTreeSet<Part>,
    is_stopping: bool,
}

/// Readiness of one replica.
#[derive(Debug)]
pub struct Readiness {
    state: Mutex<State>,
}

impl Readiness {
    /// A replica that waits for `parts`.
    #[must_use]
    pub fn waiting_for(parts: impl IntoIterator<Item = Part>) -> Self {
        Self { state: Mutex::new(State { missing: parts.into_iter().collect(), is_stopping: false }) }
    }

    /// A part is there.
    pub fn have(&self, part: Part) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.missing.remove(&part) && state.missing.is_empty() && !state.is_stopping {
            tracing::info!("this replica is ready");
        }
    }

    /// The replica is not to be asked any more.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_stopping = true;
    }

    /// Whether the replica serves.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self) -> Result<(), NotReady> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_stopping {
            Err(NotReady::Stopping)
        } else if state.missing.is_empty() {
            Ok(())
        } else {
            Err(NotReady::Waiting(state.missing.iter().copied().collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_ready_once_nothing_is_missing_and_until_it_stops() {
        let readiness = Readiness::waiting_for([Part::Webhooks, Part::Authority]);
        readiness.have(Part::Authority);
        let missing = readiness.check().expect_err("not yet");
        assert_eq!(missing.to_string(), "waiting for the certificate of the webhooks");
        readiness.have(Part::Webhooks);
        assert_eq!(readiness.check(), Ok(()));
        readiness.stop();
        assert_eq!(readiness.check(), Err(NotReady::Stopping));
        readiness.have(Part::Webhooks);
        assert_eq!(readiness.check(), Err(NotReady::Stopping));
    }
}
