//! How far an object has come: to which of this replica's proxies it applies, and which of them enforce it.
//!
//! A policy applies to the proxies of the workloads that it selects; what says how destinations are reached
//! applies to the proxies that have asked for one of those destinations. A proxy enforces the object when what
//! it has acknowledged was built with the object as it is now ([`crate::snapshot`] knows). Only connected
//! proxies count: one that is away is told when it comes back, before anything else.

use std::collections::BTreeMap;

use mesh_api::admin::ObjectStatus;
use mesh_api::model::{ObjectRef, Workload};
use mesh_api::name::Namespace;
use mesh_api::problem::Severity;
use mesh_api::wire::TypeUrl;

use super::{ObjectFilter, ProxyRecord};
use crate::plane::Plane;
use crate::registry::{Entry, Registry, subject};
use crate::snapshot::{ResourceKey, Snapshot, SubscriberId};
use crate::source::{InForce, Payload};

/// Most proxies that are named as laggards.
pub const LAGGARDS_MAX: usize = 5;
/// Most objects of one answer.
const OBJECTS_MAX: usize = 50_000;

/// Where an object is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// Connected proxies that it applies to.
    pub applies: usize,
    /// Those of them that enforce it.
    pub enforced: usize,
    /// The first of the others, by name.
    pub laggards: Vec<String>,
}

impl Spread {
    fn count(&mut self, name: &str, enforces: bool) {
        self.applies += 1;
        if enforces {
            self.enforced += 1;
        } else if self.laggards.len() < LAGGARDS_MAX {
            self.laggards.push(name.to_owned());
        }
    }

    /// Adds what another replica says.
    pub fn add(&mut self, applies: usize, enforced: usize, laggards: &[String]) {
        self.applies += applies;
        self.enforced += enforced;
        let left = LAGGARDS_MAX.saturating_sub(self.laggards.len());
        self.laggards.extend(laggards.iter().take(left).cloned());
    }
}

/// Where an object in force is enforced, at this replica. Takes the locks of snapshot and proxies.
#[must_use]
pub fn spread(plane: &Plane, entry: &Entry) -> Spread {
    let snapshot = plane.snapshot();
    let proxies = plane.proxies();
    let Some(taken) = snapshot.taken_at(&entry.meta().object) else { return Spread::default() };
    match is_policy(entry) {
        true => of_policy(&snapshot, &proxies, entry, taken),
        false => of_route(&snapshot, &proxies, entry, taken),
    }
}

/// Whether an object is a policy of workloads; others say how destinations are reached.
#[must_use]
pub fn is_policy(entry: &Entry) -> bool {
    match entry {
        Entry::Authorization(_) | Entry::Request(_) | Entry::Telemetry(_) | Entry::Peer(_) => true,
        Entry::Service(_) | Entry::Workload(_) | Entry::VirtualService(_) | Entry::DestinationRule(_) => {
            false
        }
    }
}

fn of_policy(
    snapshot: &Snapshot,
    proxies: &BTreeMap<String, ProxyRecord>,
    entry: &Entry,
    taken: u64,
) -> Spread {
    let mut spread = Spread::default();
    let registry = snapshot.registry();
    for (name, record) in proxies.iter().filter(|(_, record)| record.is_connected) {
        let Some(workload) = registry.workload(&record.workload) else { continue };
        if !selects(registry, entry, workload) {
            continue;
        }
        let key = ResourceKey::WorkloadPolicies(record.workload.clone());
        let version = record.policies_version.as_deref();
        let until = version.and_then(|version| snapshot.holds_until(&key, version));
        spread.count(name, until.is_some_and(|until| until >= taken));
    }
    spread
}

fn of_route(
    snapshot: &Snapshot,
    proxies: &BTreeMap<String, ProxyRecord>,
    entry: &Entry,
    taken: u64,
) -> Spread {
    let destinations = snapshot.destinations_of(entry);
    if destinations.is_empty() {
        return Spread::default();
    }
    let mut behind: BTreeMap<SubscriberId, bool> = BTreeMap::new();
    let connected = || proxies.iter().filter(|(_, record)| record.is_connected);
    let records: BTreeMap<SubscriberId, &ProxyRecord> =
        connected().map(|(_, record)| (record.subscriber, record)).collect();
    for (key, subscribers) in destinations {
        let name = key.wire_name();
        for subscriber in subscribers {
            let Some(record) = records.get(subscriber) else { continue };
            let version = record.destinations.get(&name);
            let until = version.and_then(|version| snapshot.holds_until(key, version));
            // The answer that there is no such destination has no version, and no route is in it.
            let is_absent = snapshot.desired(key).is_some_and(|desired| desired.version().is_none());
            let enforces = is_absent || until.is_some_and(|until| until >= taken);
            *behind.entry(*subscriber).or_default() |= !enforces;
        }
    }
    let mut spread = Spread::default();
    for (name, record) in connected() {
        if let Some(is_behind) = behind.get(&record.subscriber) {
            spread.count(name, !is_behind);
        }
    }
    spread
}

fn selects(registry: &Registry, entry: &Entry, workload: &Workload) -> bool {
    let (settings, subject) = (registry.settings(), subject(workload));
    let is_near =
        |namespace: &Namespace| *namespace == settings.root_namespace || namespace == subject.namespace;
    let applies = mesh_policy::select::applies;
    match entry {
        Entry::Authorization(policy) => {
            applies(settings, &subject, &policy.meta, &policy.selector, &policy.targets)
        }
        Entry::Request(policy) => {
            applies(settings, &subject, &policy.meta, &policy.selector, &policy.targets)
        }
        Entry::Telemetry(policy) => {
            applies(settings, &subject, &policy.meta, &policy.selector, &policy.targets)
        }
        Entry::Peer(policy) => {
            is_near(&policy.meta.object.namespace) && policy.selector.selects(subject.labels)
        }
        Entry::Service(_) | Entry::Workload(_) | Entry::VirtualService(_) | Entry::DestinationRule(_) => {
            false
        }
    }
}

/// `GET /objects/status`: how far objects have come at this replica. Objects that were refused and are not in
/// force are among them.
#[must_use]
pub fn object_statuses(plane: &Plane, filter: &ObjectFilter) -> Vec<ObjectStatus> {
    let (documents, refused) = {
        let configuration = plane.configuration();
        let documents: Vec<InForce> = configuration
            .objects
            .documents
            .values()
            .filter(|document| is_reported(document) && filter.matches(&document.object))
            .take(OBJECTS_MAX)
            .cloned()
            .collect();
        let mut refused: BTreeMap<ObjectRef, String> = BTreeMap::new();
        for problem in configuration.read_problems.iter().chain(&configuration.objects.problems) {
            let Some(object) = problem.object.as_ref().filter(|object| filter.matches(object)) else {
                continue;
            };
            if problem.severity == Severity::Error {
                refused.entry(object.clone()).or_insert_with(|| super::said(problem));
            }
        }
        (documents, refused)
    };
    let mut refused = refused;
    let mut statuses: Vec<ObjectStatus> = documents
        .iter()
        .map(|document| {
            let spread = match &document.payload {
                Payload::Entry(entry) => spread(plane, entry),
                Payload::Settings(_) | Payload::Noted(_) => Spread::default(),
            };
            let reason = refused.remove(&document.object).unwrap_or_default();
            status(&document.object, document.generation, document.is_held, reason, spread)
        })
        .collect();
    let rest =
        refused.into_iter().map(|(object, reason)| status(&object, 0, false, reason, Spread::default()));
    statuses.extend(rest);
    statuses
}

/// Kinds that have a state of their own to report.
fn is_reported(document: &InForce) -> bool {
    match &document.payload {
        Payload::Entry(Entry::Service(_)) => document.object.kind == mesh_api::model::Kind::ServiceEntry,
        Payload::Entry(Entry::Workload(_)) => document.object.kind == mesh_api::model::Kind::WorkloadEntry,
        Payload::Entry(_) => true,
        Payload::Settings(_) | Payload::Noted(_) => false,
    }
}

fn status(object: &ObjectRef, generation: i64, held: bool, reason: String, spread: Spread) -> ObjectStatus {
    ObjectStatus {
        kind: object.kind,
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
        generation,
        accepted: !held && reason.is_empty(),
        held,
        reason,
        applies: spread.applies,
        enforced: spread.enforced,
        laggards: spread.laggards,
    }
}

impl ProxyRecord {
    /// Takes over of which destinations the proxy has another version now.
    pub(super) fn take_destinations(&mut self, session: &mut crate::push::session::Session) {
        for kind in TypeUrl::ALL {
            let moved = session.take_moved(kind);
            if kind != TypeUrl::Destination {
                continue;
            }
            for (name, version) in moved {
                match version {
                    Some(version) => drop(self.destinations.insert(name, version)),
                    None => drop(self.destinations.remove(&name)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
