//! What policies that are tried on live traffic would decide otherwise: `GET /policy/differences` of a proxy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ObjectRef;

/// What was found since the trial began, or what it is held against changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyDifferences {
    /// What is tried at this workload; nothing when it is empty.
    pub tried: Vec<TriedObject>,
    /// Since when, in RFC 3339; empty when nothing is tried.
    pub since: String,
    /// Requests, and connections that carry none, that were judged by both.
    pub judged: u64,
    /// Those of them that would have ended otherwise. What the entries do not account for differed in more ways
    /// than are kept.
    pub differing: u64,
    /// The differences, the most frequent first.
    pub differences: Vec<PolicyDifference>,
}

/// One object that is tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TriedObject {
    /// The object.
    pub object: ObjectRef,
    /// What would become of it.
    pub change: TriedChange,
}

/// What would become of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriedChange {
    /// It would be there.
    Added,
    /// It would be another.
    Edited,
    /// It would be gone.
    Deleted,
}

impl TriedChange {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Edited => "edited",
            Self::Deleted => "deleted",
        }
    }
}

/// Requests that are alike, and would end otherwise in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDifference {
    /// SPIFFE id of the caller, `none` without one.
    pub caller: String,
    /// Method, empty for a connection.
    pub method: String,
    /// Path with `{*}` for identifiers, empty for a connection.
    pub path: String,
    /// Target port.
    pub port: u16,
    /// How many.
    pub count: u64,
    /// How they end.
    pub now: TrialOutcome,
    /// How they would.
    pub then: TrialOutcome,
    /// Time of the first, in RFC 3339.
    pub first: String,
    /// Time of the last.
    pub last: String,
}

/// How a request ends, by one set of policies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrialOutcome {
    /// Whether it passes.
    pub verdict: TrialVerdict,
    /// The stage that decided.
    pub stage: TrialStage,
    /// Status of the answer to a request that is refused; 0 otherwise.
    pub status: u16,
    /// The rule or policy that decided; `none` when none did.
    pub by: String,
}

/// Whether a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialVerdict {
    /// It passes.
    Allowed,
    /// It does not.
    Refused,
    /// An external authorizer would decide, which was not asked.
    Asked,
}

/// Where a request's way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialStage {
    /// Mutual TLS. What is allowed there is admitted, and was not judged further because nobody could read it.
    Mtls,
    /// An external authorizer.
    External,
    /// The token.
    Token,
    /// AuthorizationPolicies.
    Policy,
}

impl fmt::Display for TrialOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, stage, status, by } = self;
        match (verdict, stage) {
            (TrialVerdict::Allowed, TrialStage::Mtls) => f.write_str("plaintext is admitted")?,
            (TrialVerdict::Allowed, _) => f.write_str("allowed")?,
            (TrialVerdict::Refused, TrialStage::Mtls) => f.write_str("refused, mutual TLS")?,
            (TrialVerdict::Refused, _) => {
                f.write_str("refused")?;
                if *status != 0 {
                    write!(f, " {status}")?;
                }
                match stage {
                    TrialStage::Token => f.write_str(", token")?,
                    TrialStage::External => f.write_str(", external authorizer")?,
                    TrialStage::Policy | TrialStage::Mtls => {}
                }
            }
            (TrialVerdict::Asked, _) => f.write_str("an external authorizer decides")?,
        }
        if by == "none" { Ok(()) } else { write!(f, " ({by})") }
    }
}
