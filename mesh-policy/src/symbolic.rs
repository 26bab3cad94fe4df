//! What policies decide about *all* requests, exactly, with an example where it matters.
//!
//! [`verify()`] says whether every request of a set is denied, or allowed, or shows one that is not.
//! [`differences`] shows what one set of policies decides otherwise than another. Nothing is sampled: the
//! tests that policies make are taken as languages of texts, blocks of addresses and sets of ports, and a
//! request is searched that meets some and escapes others ([`search`](self)). Attributes that depend on each
//! other are one unknown, so that what is found can be sent.
//!
//! The requests are those that can reach a proxy of the mesh: callers without a certificate, and callers with
//! an identity of the mesh's trust domains in the form that its authority issues; HTTP, CONNECT and bytes;
//! normalised paths; tokens of configured issuers or none. One whose token is refused is answered before any
//! policy, so nothing is said about it. The verdict is that of the whole way: mutual TLS, CUSTOM, tokens,
//! DENY, ALLOW.
//!
//! Every example is put before the evaluator that the proxies run before it is given away. Work is bounded:
//! where it does not suffice, or a rule tests what is not reasoned about, the answer is [`Undecided`], never a
//! guess.

mod atom;
mod classes;
mod confirm;
mod diff;
mod domain;
mod lang;
mod net;
mod request;
mod scenario;
mod search;
mod side;
mod space;
#[cfg(test)]
mod tests;
mod text;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::model::{ObjectRef, Origin};
use mesh_api::name::{Labels, Namespace, ServiceAccount};
use mesh_api::policy_test::{Request, Traffic};
use serde::Serialize;

pub use classes::{classes, namespaces};
pub use diff::{Change, Differences, Policed, differences};
pub use verify::{Answer, CounterExample, Question, verify};

/// Steps of work for one question about one workload; about a second of a release build.
const BUDGET: u64 = 20_000_000;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// It would take more work than is spent on one question.
    #[error("the policies combine in more ways than are looked through for one question")]
    TooLarge,
    /// Something is tested that is not reasoned about.
    #[error("{0}")]
    Untold(String),
}

/// A workload, or all that policies do not tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its labels, as far as policies look at them.
    pub labels: Labels,
    /// Its service account.
    pub service_account: ServiceAccount,
    /// The ports that it has, when no others are to be thought of.
    pub only: Option<BTreeSet<u16>>,
    /// Ports with a declared protocol.
    pub declared: BTreeMap<u16, Traffic>,
    /// What it is called.
    pub told: String,
}

/// What becomes of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// It reaches the application.
    Allowed,
    /// It does not.
    Denied,
    /// An external authorizer has the last word.
    Asked,
}

impl Fate {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Asked => "left to an external authorizer",
        }
    }
}

/// What becomes of an example, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// What becomes of it.
    pub fate: Fate,
    /// Why, in one sentence.
    pub reason: String,
    /// The policy that decides, if one does.
    pub policy: Option<ObjectRef>,
    /// Position of the deciding rule in it, from 0.
    pub rule: Option<u32>,
    /// Where the policy stands.
    pub origin: Option<Origin>,
}

/// An example, and what made it one.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// A request that can be sent.
    pub request: Request,
    /// The tests that every request of its class meets, as rules write them.
    pub class: Vec<String>,
}
