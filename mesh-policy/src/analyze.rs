//! What the author of a set of objects probably did not mean.
//!
//! Every object here is valid; these checks look at several together, or at a form that is admitted and does
//! something else than most readers expect. They change nothing and block nothing by themselves. Codes are
//! Istio's where Istio has one (`IST…`), otherwise ours (`MM…`); [`catalogue`] lists them.
//!
//! A finding must be certain. What depends on objects that were not given (workloads, services, namespaces) is
//! only said when some of their kind were, and patterns are compared soundly ([`cover`]), never by trying
//! values. Cost is linear in the objects but for a bounded number of comparisons of rules.

mod annotations;
mod authentication;
mod authorization;
pub mod catalogue;
mod cover;
mod destinations;
mod document;
mod finding;
mod gateways;
mod kubernetes;
mod presumed;
mod routes;
mod survey;
mod traffic;

use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, MeshSettings, PeerAuthentication, RequestAuthentication, Service,
    VirtualService, Workload,
};
use mesh_api::problem::Problem;

pub use document::Document;
pub use finding::{Finding, Named};
use survey::Survey;

/// All that is looked at together.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// Settings of the mesh.
    pub mesh: &'a MeshSettings,
    /// Services and ServiceEntries.
    pub services: &'a [Arc<Service>],
    /// Workloads; those that a ServiceEntry lists itself need not be repeated.
    pub workloads: &'a [Arc<Workload>],
    /// AuthorizationPolicies.
    pub authorization: &'a [Arc<AuthorizationPolicy>],
    /// PeerAuthentications.
    pub peer: &'a [Arc<PeerAuthentication>],
    /// RequestAuthentications.
    pub request: &'a [Arc<RequestAuthentication>],
    /// VirtualServices.
    pub virtual_services: &'a [Arc<VirtualService>],
    /// DestinationRules.
    pub destination_rules: &'a [Arc<DestinationRule>],
    /// Objects as they are written, of every kind: also of those above, of which they say more. With none,
    /// VirtualServices and DestinationRules are judged by what the model holds of them.
    pub documents: &'a [Document],
}

/// Checks a model. Problems come in a fixed order, whatever the order of the objects.
#[must_use]
pub fn analyze(model: &Model<'_>) -> Vec<Problem> {
    findings(model).into_iter().map(Finding::into_problem).collect()
}

/// Checks a model, and says what to write where. In a fixed order, whatever the order of the objects.
#[must_use]
pub fn findings(model: &Model<'_>) -> Vec<Finding> {
    let made = presumed::workloads(model);
    let survey = Survey::of(*model, &made);
    let mut findings = Vec::new();
    authorization::check(&survey, &mut findings);
    authentication::check(&survey, &mut findings);
    traffic::check_ages(&survey, &mut findings);
    if model.documents.is_empty() {
        traffic::check(&survey, &mut findings);
    } else {
        routes::check(&survey, &mut findings);
        destinations::check(&survey, &mut findings);
        gateways::check(&survey, &mut findings);
        kubernetes::check(&survey, &mut findings);
    }
    findings.sort_by(|a, b| key(a).cmp(&key(b)));
    findings
}

fn key(finding: &Finding) -> (&Named, &str, &str, &str) {
    (&finding.subject, &finding.field, finding.code.id, &finding.message)
}

/// What of a set of objects could not be judged, because what it would be held against is not among them.
#[must_use]
pub fn unjudged(model: &Model<'_>) -> Vec<&'static str> {
    let has_workloads =
        !model.workloads.is_empty() || model.documents.iter().any(|it| it.workload().is_some());
    let has_policies = !model.authorization.is_empty() || !model.peer.is_empty() || !model.request.is_empty();
    let has_routes = !model.virtual_services.is_empty() || !model.destination_rules.is_empty();
    let mut remarks = Vec::new();
    if has_policies && !has_workloads {
        remarks.push("there are no workloads: whether selectors pick any was not judged");
    }
    if has_routes && model.services.is_empty() {
        remarks.push("there are no services: whether hosts of routes exist was not judged");
    }
    remarks
}

/// The known name that is so like one that is not known that it was probably meant.
fn nearest<'n>(written: &str, known: &[&'n str]) -> Option<&'n str> {
    const LENGTH_MAX: usize = 80;
    if written.len() > LENGTH_MAX {
        return None;
    }
    let likeness = |name: &'n str| {
        let edits = distance(written.as_bytes(), name.as_bytes());
        (edits <= (written.len().max(name.len()) / 4).max(1) && edits < written.len())
            .then_some((edits, name))
    };
    known.iter().copied().filter_map(likeness).min().map(|(_, name)| name)
}

/// Bytes to insert, delete, replace or swap with their neighbour to make one of the other.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut edits = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i - 1] == *b && right[j - 1] == *a {
                edits = edits.min(before_last[j - 1] + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests;
