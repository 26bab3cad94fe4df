//! What is asserted of policies: what becomes of *every* request of a set.
//!
//! These are plain values, read from a `PolicyAssertion` document by [`crate::manifest::policy_assertion`] and
//! answered by `mesh-policy`, which reads no files.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Origin, Rule};
use crate::name::{Labels, Namespace};
use crate::policy_test::{Traffic, Verdict, Workload};

/// One assertion.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// Its name, unique within its document.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// The workloads that it is about.
    pub workloads: WorkloadScope,
    /// What becomes of the requests.
    pub verdict: Verdict,
    /// HTTP or bytes alone; both unless stated.
    pub protocol: Option<Traffic>,
    /// The requests: those that one of these matches. All unless stated.
    pub requests: Vec<Rule>,
    /// Requests that nothing is asserted of.
    pub except: Vec<Rule>,
}

/// Which workloads an assertion is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WorkloadScope {
    /// All that the files speak of, or all that policies tell apart.
    #[default]
    All,
    /// Those of a namespace that carry these labels.
    Selected {
        /// The namespace.
        namespace: Namespace,
        /// The labels.
        labels: Labels,
    },
    /// These.
    Stated(Vec<StatedWorkload>),
}

/// A workload that an assertion states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatedWorkload {
    /// What policies select it by.
    pub workload: Workload,
    /// The ports that it has; every port unless stated.
    pub ports: Option<BTreeSet<u16>>,
    /// Those of which it is stated what they carry.
    pub declared: BTreeMap<u16, Traffic>,
}
