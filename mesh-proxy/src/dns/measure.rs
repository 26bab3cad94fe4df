//! What became of each question, counted.

use std::sync::Arc;

use metrics::{Counter, counter};

use crate::telemetry::metrics::DNS_QUERIES;

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A name of the mesh, with addresses.
    Answered,
    /// A name of the mesh that has nothing of the kind asked for.
    NoData,
    /// A name under the mesh's own domain that does not exist.
    NoName,
    /// Relayed, and the upstream's answer relayed back.
    Relayed,
    /// No upstream resolver, or none that answered.
    UpstreamFailed,
    /// A name of the mesh's kind while the control plane did not answer.
    Unanswered,
    /// Not readable, or of a kind that is not served.
    Refused,
    /// More questions at once than are taken.
    Overloaded,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Answered,
        Self::NoData,
        Self::NoName,
        Self::Relayed,
        Self::UpstreamFailed,
        Self::Unanswered,
        Self::Refused,
        Self::Overloaded,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoData => "no_data",
            Self::NoName => "no_name",
            Self::Relayed => "relayed",
            Self::UpstreamFailed => "upstream_failed",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Counters by outcome, resolved once.
#[derive(Debug, Clone)]
pub(super) struct Counts(Arc<[Counter; 8]>);

impl Counts {
    pub(super) fn new() -> Self {
        Self(Arc::new(Outcome::ALL.map(|outcome| counter!(DNS_QUERIES, "outcome" => outcome.as_str()))))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_counter_and_label() {
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
        }
        let labels: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|one| one.as_str()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
    }
}
