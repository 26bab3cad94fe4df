//! Workloads as policies tell them apart: by namespace, and by which selectors select them.
//!
//! Nobody lists the workloads that there will be, but policies look at nothing but namespace and labels, and
//! only at the labels that selectors name. So it suffices to look at every combination of selectors that one
//! workload can meet: whatever it is labelled, it is treated as one of these.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::model::{MeshSettings, Selector};
use mesh_api::name::{Labels, Namespace, ServiceAccount};

use super::verify::unnamed_namespace;
use super::{Undecided, Workload};
use crate::judge::Policies;

/// Most combinations for one namespace.
const CLASSES_MAX: usize = 256;

/// The namespaces that policies treat apart: those that have policies, and one that stands for all others
/// when policies of the root namespace are about them too.
#[must_use]
pub fn namespaces(sets: &[(&MeshSettings, &Policies)]) -> Vec<Namespace> {
    let mut named: BTreeSet<Namespace> = BTreeSet::new();
    for (_, policies) in sets {
        named.extend(policies.authorization.iter().map(|policy| policy.meta.object.namespace.clone()));
        named.extend(policies.peer_authentication.iter().map(|policy| policy.meta.object.namespace.clone()));
        named.extend(
            policies.request_authentication.iter().map(|policy| policy.meta.object.namespace.clone()),
        );
    }
    let mut list: Vec<Namespace> = named.into_iter().collect();
    if sets.iter().any(|(mesh, _)| list.contains(&mesh.root_namespace)) {
        list.push(unnamed_namespace(&list));
    }
    list
}

/// The workloads of a namespace that policies treat apart, among those that carry `labels`.
///
/// # Errors
/// When there are too many combinations of selectors.
pub fn classes(
    sets: &[(&MeshSettings, &Policies)],
    namespace: &Namespace,
    labels: &Labels,
) -> Result<Vec<Workload>, Undecided> {
    let mut selectors: BTreeSet<&Labels> = BTreeSet::new();
    for (mesh, policies) in sets {
        let concerns = |of: &Namespace, selector: &Selector| {
            !selector.is_empty() && (*of == mesh.root_namespace || of == namespace)
        };
        let authorization = policies.authorization.iter().map(|policy| (&policy.meta, &policy.selector));
        let peer = policies.peer_authentication.iter().map(|policy| (&policy.meta, &policy.selector));
        let request = policies.request_authentication.iter().map(|policy| (&policy.meta, &policy.selector));
        for (meta, selector) in authorization.chain(peer).chain(request) {
            if concerns(&meta.object.namespace, selector) {
                selectors.insert(&selector.match_labels);
            }
        }
    }
    let mut found: BTreeSet<Labels> = [labels.clone()].into();
    for selector in selectors {
        let more: Vec<Labels> = found.iter().filter_map(|labels| both(labels, selector)).collect();
        found.extend(more);
        if found.len() > CLASSES_MAX {
            return Err(Undecided::Untold(format!(
                "selectors of namespace {namespace} combine in more than {CLASSES_MAX} ways; state the workloads"
            )));
        }
    }
    Ok(found.into_iter().map(|labels| workload(namespace, labels)).collect())
}

/// The labels of a workload that has these and meets a selector.
fn both(labels: &Labels, selector: &Labels) -> Option<Labels> {
    let mut joined = labels.clone();
    for (key, value) in selector {
        if joined.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
            return None;
        }
    }
    Some(joined)
}

fn workload(namespace: &Namespace, labels: Labels) -> Workload {
    let told: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Workload {
        told: match told.is_empty() {
            true => format!("any workload of namespace {namespace}"),
            false => format!("workloads {} of namespace {namespace}", told.join(",")),
        },
        namespace: namespace.clone(),
        labels,
        service_account: ServiceAccount::parse("default").expect("a valid constant"),
        only: None,
        declared: BTreeMap::new(),
    }
}
