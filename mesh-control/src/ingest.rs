//! From documents to the objects in force (pure): one version of each object, the settings of the mesh, and
//! what is wrong.
//!
//! The first document of an object in path order wins, and a readable one goes before one that is held. The
//! trust domain is that of the authority once there is one: a mesh cannot change its name while certificates
//! are in use.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::model::{Kind, MeshSettings, ObjectRef};
use mesh_api::name::TrustDomain;
use mesh_api::problem::{Problem, Severity};

use crate::registry::{Change, Entry};
use crate::source::{InForce, Payload};

/// The objects in force.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Every object, by name.
    pub documents: BTreeMap<ObjectRef, InForce>,
    /// Settings of the mesh.
    pub settings: Arc<MeshSettings>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What became of events that were taken in.
#[derive(Debug, Default)]
pub struct Advance {
    /// What is different for the registry.
    pub changes: Vec<Change>,
    /// The settings, when they may be others now.
    pub settings: Option<Arc<MeshSettings>>,
}

/// Takes in what happened at a source that has one version of each object. Costs what happened, whatever the
/// number of objects; only settings of the mesh are looked at anew together.
#[must_use]
pub fn advance(
    objects: &mut Objects,
    set: Vec<InForce>,
    removed: Vec<ObjectRef>,
    trust_domain: Option<&TrustDomain>,
) -> Advance {
    let mut advance = Advance::default();
    let mut is_unsettled = objects.documents.is_empty();
    for object in removed {
        is_unsettled |= object.kind == Kind::MeshConfig;
        let former = objects.documents.remove(&object);
        if former.as_ref().and_then(entry).is_some() {
            advance.changes.push(Change::Remove(object));
        }
    }
    for document in set {
        is_unsettled |= document.object.kind == Kind::MeshConfig;
        let former = objects.documents.get(&document.object).and_then(entry);
        match (former, entry(&document)) {
            (Some(before), Some(after)) if is_same(before, after) => {}
            (_, Some(after)) => advance.changes.push(Change::Set(after.clone())),
            (Some(_), None) => advance.changes.push(Change::Remove(document.object.clone())),
            (None, None) => {}
        }
        objects.documents.insert(document.object.clone(), document);
    }
    if is_unsettled {
        objects.problems.clear();
        settle_settings(objects, trust_domain);
        advance.settings = Some(Arc::clone(&objects.settings));
    }
    advance
}

/// Takes documents in. `trust_domain` is the authority's, once there is one.
#[must_use]
pub fn ingest(documents: &[InForce], trust_domain: Option<&TrustDomain>) -> Objects {
    let mut objects = Objects::default();
    let (readable, held): (Vec<_>, Vec<_>) = documents.iter().partition(|document| !document.is_held);
    for document in readable.into_iter().chain(held) {
        match objects.documents.get(&document.object) {
            None => drop(objects.documents.insert(document.object.clone(), document.clone())),
            // A held version beside a readable one has moved to another file.
            Some(_) if document.is_held => {}
            Some(first) => objects.problems.push(problem(
                "MM0105",
                Severity::Error,
                document,
                format!("is defined twice; the one at {} is in force", first.origin),
                "Remove one of the two.",
            )),
        }
    }
    settle_settings(&mut objects, trust_domain);
    objects
}

/// Of several settings the oldest is in force (SEMANTICS 1.4), as for every kind of which there can be one.
fn settle_settings(objects: &mut Objects, trust_domain: Option<&TrustDomain>) {
    let mut candidates: Vec<(&InForce, &Arc<MeshSettings>)> = objects
        .documents
        .values()
        .filter_map(|document| match &document.payload {
            Payload::Settings(settings) => Some((document, settings)),
            Payload::Entry(_) | Payload::Noted(_) => None,
        })
        .collect();
    candidates.sort_by_key(|(document, _)| (document.object.name.clone(), document.object.namespace.clone()));
    let mut settings = candidates.first().map_or_else(MeshSettings::default, |(_, s)| MeshSettings::clone(s));
    for (other, _) in candidates.iter().skip(1) {
        let message = format!("has no effect: {} is in force", candidates[0].0.object);
        objects.problems.push(problem("MM0106", Severity::Warning, other, message, "Keep one MeshConfig."));
    }
    if let Some(ours) = trust_domain {
        if let Some((document, _)) = candidates.first()
            && settings.trust_domain != *ours
        {
            let mut refusal = problem(
                "MM0107",
                Severity::Error,
                document,
                format!("the authority is of trust domain {ours}, which stays in force"),
                "A mesh keeps its trust domain; to change it, begin with a new state directory.",
            );
            refusal.field = "spec.trustDomain".to_owned();
            objects.problems.push(refusal);
        }
        settings.trust_domain = ours.clone();
    }
    objects.settings = Arc::new(settings);
}

/// What is different between two sets of objects.
#[must_use]
pub fn changes(former: &Objects, next: &Objects) -> Vec<Change> {
    let mut changes = Vec::new();
    for (object, document) in &former.documents {
        if entry(document).is_some() && next.documents.get(object).and_then(entry).is_none() {
            changes.push(Change::Remove(object.clone()));
        }
    }
    for (object, document) in &next.documents {
        let Some(after) = entry(document) else { continue };
        let before = former.documents.get(object).and_then(entry);
        if before.is_none_or(|before| !is_same(before, after)) {
            changes.push(Change::Set(after.clone()));
        }
    }
    changes
}

fn entry(document: &InForce) -> Option<&Entry> {
    match &document.payload {
        Payload::Entry(entry) => Some(entry),
        Payload::Settings(_) | Payload::Noted(_) => None,
    }
}

/// Documents of files that did not change share their objects, so most comparisons are of pointers.
fn is_same(a: &Entry, b: &Entry) -> bool {
    match (a, b) {
        (Entry::Service(a), Entry::Service(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::Workload(a), Entry::Workload(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::Authorization(a), Entry::Authorization(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::Peer(a), Entry::Peer(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::Request(a), Entry::Request(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::Telemetry(a), Entry::Telemetry(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::VirtualService(a), Entry::VirtualService(b)) => Arc::ptr_eq(a, b) || a == b,
        (Entry::DestinationRule(a), Entry::DestinationRule(b)) => Arc::ptr_eq(a, b) || a == b,
        (
            Entry::Service(_)
            | Entry::Workload(_)
            | Entry::Authorization(_)
            | Entry::Peer(_)
            | Entry::Request(_)
            | Entry::Telemetry(_)
            | Entry::VirtualService(_)
            | Entry::DestinationRule(_),
            _,
        ) => false,
    }
}

fn problem(code: &str, severity: Severity, document: &InForce, message: String, hint: &str) -> Problem {
    Problem {
        code: code.to_owned(),
        severity,
        object: Some(document.object.clone()),
        origin: document.origin.clone(),
        field: String::new(),
        message,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests;
