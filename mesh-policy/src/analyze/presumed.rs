//! Workloads that are known by what stands for them: pods and what makes pods, and where none was given, what
//! a Service or a Gateway selects.
//!
//! Of those last nothing is known but labels that they must have. They are good for saying what a policy does
//! to them, never for saying that a policy is for nobody.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::model::{Kind, ObjectMeta, ObjectRef, Origin, Workload};
use mesh_api::name::{Labels, Namespace, ObjectName, ServiceAccount};

use super::Model;
use super::document::{Document, strings};
use super::finding::Named;
use super::survey::{Evidence, Made, selects_all_of};

/// All of them.
pub(super) fn workloads<'a>(model: &Model<'a>) -> Vec<Made<'a>> {
    let mut made: Vec<Made<'a>> = model
        .documents
        .iter()
        .filter_map(|document| {
            let workload = document.workload()?;
            let named = document.subject.clone();
            Some(Made { workload, named, document: Some(document), evidence: Evidence::Given })
        })
        .collect();
    let stated = model.workloads.iter().map(|workload| workload.meta.object.namespace.to_string());
    let namespaces: BTreeSet<String> =
        stated.chain(made.iter().map(|it| it.named.namespace.clone())).collect();
    let mut presumed: BTreeMap<(String, Labels), Made<'a>> = BTreeMap::new();
    for service in model.services {
        let namespace = &service.meta.object.namespace;
        let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            continue;
        };
        if service.external || namespaces.contains(namespace.as_str()) {
            continue;
        }
        let named = Named::from(&service.meta.object);
        let origin = service.meta.origin.clone();
        let key = (namespace.to_string(), selector.match_labels.clone());
        if let Some(it) = presumption(named, namespace.as_str(), selector.match_labels.clone(), origin) {
            presumed.entry(key).or_insert(it);
        }
    }
    for gateway in model.documents.iter().filter(|it| it.is("networking.istio.io", "Gateway")) {
        let labels = strings(gateway.spec("/selector"));
        let is_given = model.workloads.iter().any(|it| selects_all_of(&labels, &it.labels))
            || made.iter().any(|it| selects_all_of(&labels, &it.workload.labels))
            || presumed.keys().any(|(_, known)| selects_all_of(&labels, known));
        // Where an installation of Istio puts its own gateways.
        let is_built_in = labels.get("istio").is_some_and(|value| value == "ingressgateway");
        if !is_given && is_built_in {
            presume_gateway(model, gateway, labels, &mut presumed);
        }
    }
    made.extend(presumed.into_values());
    made
}

fn presume_gateway<'a>(
    model: &Model<'a>,
    gateway: &Document,
    labels: Labels,
    presumed: &mut BTreeMap<(String, Labels), Made<'a>>,
) {
    let root = model.mesh.root_namespace.as_str();
    let named = gateway.subject.clone();
    if let Some(it) = presumption(named, root, labels.clone(), gateway.origin.clone()) {
        presumed.entry((root.to_owned(), labels)).or_insert(it);
    }
}

fn presumption<'a>(named: Named, namespace: &str, labels: Labels, origin: Origin) -> Option<Made<'a>> {
    let object = ObjectRef {
        kind: Kind::WorkloadEntry,
        namespace: Namespace::parse(namespace).ok()?,
        name: ObjectName::parse(&named.name).ok()?,
    };
    let workload = Workload {
        meta: ObjectMeta { object, labels: Labels::new(), annotations: Labels::new(), created: 0, origin },
        addresses: Vec::new(),
        dns_name: None,
        labels,
        service_account: ServiceAccount::parse("default").ok()?,
        ports: BTreeMap::new(),
        weight: 1,
        locality: String::new(),
        meshed: true,
        availability: mesh_api::model::Availability::Ready,
        shares_addresses: false,
        hosts: Vec::new(),
        is_completed: false,
    };
    Some(Made { workload, named, document: None, evidence: Evidence::Presumed })
}
