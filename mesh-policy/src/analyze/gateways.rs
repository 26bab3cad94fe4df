//! Gateways, Sidecars and Telemetries: kinds that select workloads and contend for them.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::name::Labels;
use serde_json::Value;

use super::catalogue::{self, Code};
use super::document::{Document, items, strings, texts};
use super::finding::Finding;
use super::survey::{Survey, selects_all_of, written};
use crate::select::GATEWAY_NAME_LABEL;

const GROUP: &str = "networking.istio.io";
/// Gateways that an installation of Istio brings along, and that are rarely among the files.
const BUILT_IN: [&str; 2] = ["ingressgateway", "egressgateway"];
/// Most workloads that are named of one selector's.
const WORKLOADS_MAX: usize = 2_000;

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    for gateway in survey.documents(GROUP, "Gateway") {
        workloads(survey, gateway, findings);
        credentials(survey, gateway, findings);
    }
    conflicting(survey, findings);
    certificates(survey, findings);
    let sidecars = Contenders {
        documents: survey.documents(GROUP, "Sidecar").collect(),
        selector: "/workloadSelector/labels",
        field: "spec.workloadSelector.labels",
        overlap: catalogue::SIDECAR_OVERLAP,
        defaults: catalogue::SIDECAR_DEFAULTS,
        plural: "Sidecars",
        lacks: "workload selector",
    };
    contend(survey, &sidecars, findings);
    let telemetries = Contenders {
        documents: survey
            .documents("telemetry.istio.io", "Telemetry")
            .filter(|it| !has_targets(it))
            .collect(),
        selector: "/selector/matchLabels",
        field: "spec.selector.matchLabels",
        overlap: catalogue::TELEMETRY_OVERLAP,
        defaults: catalogue::TELEMETRY_DEFAULTS,
        plural: "Telemetries",
        lacks: "workload selector",
    };
    contend(survey, &telemetries, findings);
    for telemetry in survey.documents("telemetry.istio.io", "Telemetry") {
        findings.extend(providers(survey, telemetry));
    }
    for (group, kind) in [("telemetry.istio.io", "Telemetry"), ("extensions.istio.io", "WasmPlugin")] {
        for document in survey.documents(group, kind).filter(|it| !has_targets(it)) {
            let labels = strings(document.spec("/selector/matchLabels"));
            if let Some(name) = labels.get(GATEWAY_NAME_LABEL) {
                let message = format!(
                    "The selector ({}) picks pods of a Kubernetes Gateway, where targetRefs are meant",
                    written(&labels)
                );
                findings.push(
                    document
                        .finding(catalogue::INEFFECTIVE_SELECTOR, "spec.selector", message)
                        .fix(super::authorization::target_refs(name)),
                );
            }
        }
    }
}

fn has_targets(document: &Document) -> bool {
    document.spec("/targetRef").is_some() || !document.list("/targetRefs").is_empty()
}

fn is_built_in(labels: &Labels) -> bool {
    labels.get("istio").is_some_and(|value| BUILT_IN.contains(&value.as_str()))
}

/// The pods of a gateway, and whether a Service leads to its ports.
fn workloads(survey: &Survey<'_>, gateway: &Document, findings: &mut Vec<Finding>) {
    let labels = strings(gateway.spec("/selector"));
    if labels.is_empty() || !survey.knows_workloads() {
        return;
    }
    let pods: Vec<_> =
        survey.workloads.iter().filter(|it| selects_all_of(&labels, &it.workload.labels)).collect();
    if pods.is_empty() {
        if !is_built_in(&labels) {
            let message = format!("Referenced selector not found: {:?}", written(&labels));
            findings.push(
                gateway
                    .finding(catalogue::REFERENCE, "spec.selector", message)
                    .hint("Select the labels of a gateway's pods, for instance istio: ingressgateway."),
            );
        }
        return;
    }
    if pods.iter().all(|pod| pod.ports.is_empty()) {
        return;
    }
    for (index, server) in gateway.list("/servers").iter().enumerate() {
        let Some(port) = server.pointer("/port/number").and_then(Value::as_u64) else { continue };
        let is_served = pods
            .iter()
            .flat_map(|pod| &pod.ports)
            .any(|it| u64::from(it.target_port) == port || u64::from(it.service_port) == port);
        if !is_served {
            let message = format!(
                "The gateway is listening on a target port (port {port}) that is not defined in the Service associated with its workload instances (Pod selector {}). If you need to access the gateway port through the gateway Service, it will not be available.",
                written(&labels)
            );
            findings.push(gateway.finding(
                catalogue::GATEWAY_PORT,
                format!("spec.servers[{index}].port.number"),
                message,
            ));
        }
    }
}

/// Secrets of a gateway, when Secrets are among the files.
fn credentials(survey: &Survey<'_>, gateway: &Document, findings: &mut Vec<Finding>) {
    if survey.documents("", "Secret").next().is_none() {
        return;
    }
    let labels = strings(gateway.spec("/selector"));
    let pods = survey
        .workloads
        .iter()
        .filter(|it| !labels.is_empty() && selects_all_of(&labels, &it.workload.labels));
    let mut namespaces: BTreeSet<&str> = pods.map(|it| it.named.namespace.as_str()).collect();
    if namespaces.is_empty() {
        namespaces.insert(survey.model.mesh.root_namespace.as_str());
    }
    for (index, server) in gateway.list("/servers").iter().enumerate() {
        let Some(name) = server.pointer("/tls/credentialName").and_then(Value::as_str) else { continue };
        if name.is_empty() || name.contains("://") {
            continue;
        }
        let field = format!("spec.servers[{index}].tls.credentialName");
        let secret = survey
            .documents("", "Secret")
            .find(|it| it.subject.name == name && namespaces.contains(it.subject.namespace.as_str()));
        match secret {
            None => {
                let message = format!("Referenced credentialName not found: {name:?}");
                let of: Vec<&str> = namespaces.iter().copied().collect();
                let hint = format!(
                    "The Secret must be in the namespace of the gateway's pods, {}.",
                    of.join(" or ")
                );
                findings.push(gateway.finding(catalogue::REFERENCE, field, message).hint(hint));
            }
            Some(secret) => {
                let has = |keys: &[&str]| {
                    keys.iter().any(|key| {
                        let of = |map: &str| {
                            secret.value.get(map).and_then(|map| map.get(key)).and_then(Value::as_str)
                        };
                        of("data").or_else(|| of("stringData")).is_some_and(|text| !text.is_empty())
                    })
                };
                if !has(&["tls.crt", "cert"]) || !has(&["tls.key", "key"]) {
                    let message = format!(
                        "The credential referenced by the Gateway {} in namespace {} is invalid, which can cause the traffic not to work as expected: Secret {name} lacks its certificate or key",
                        gateway.subject.name, gateway.subject.namespace
                    );
                    findings.push(gateway.finding(catalogue::CREDENTIAL, field, message));
                }
            }
        }
    }
}

/// A gateway, the position of its server, and whom it selects.
type Claim<'d> = (&'d Document, usize, Labels);

/// A server of a gateway, by what two must share to be in conflict.
fn servers<'d>(survey: &Survey<'d>) -> Vec<(&'d Document, usize, &'d Value, Labels)> {
    let gateways = survey.documents(GROUP, "Gateway");
    gateways
        .flat_map(|gateway| {
            let labels = strings(gateway.spec("/selector"));
            gateway
                .list("/servers")
                .iter()
                .enumerate()
                .map(move |(index, server)| (gateway, index, server, labels.clone()))
        })
        .collect()
}

fn meet(left: &Labels, right: &Labels) -> bool {
    selects_all_of(left, right) || selects_all_of(right, left)
}

fn conflicting(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let mut by_port: BTreeMap<(u64, &str), Vec<Claim<'_>>> = BTreeMap::new();
    for (gateway, index, server, labels) in servers(survey) {
        let Some(port) = server.pointer("/port/number").and_then(Value::as_u64) else { continue };
        for host in texts(server.get("hosts")) {
            let host = host.rsplit_once('/').map_or(host, |(_, host)| host);
            by_port.entry((port, host)).or_default().push((gateway, index, labels.clone()));
        }
    }
    let mut told = BTreeSet::new();
    for ((port, host), claims) in by_port.iter().filter(|(_, claims)| claims.len() > 1) {
        for (gateway, index, labels) in claims {
            let rivals: BTreeSet<&str> = claims
                .iter()
                .filter(|(other, _, of)| other.subject != gateway.subject && meet(labels, of))
                .map(|(other, ..)| other.subject.name.as_str())
                .take(WORKLOADS_MAX)
                .collect();
            if rivals.is_empty() || !told.insert((gateway.subject.clone(), *index)) {
                continue;
            }
            let message = format!(
                "Conflict with gateways {} (workload selector {}, port {port}, hosts {host}).",
                rivals.into_iter().collect::<Vec<_>>().join(","),
                written(labels)
            );
            findings.push(gateway.finding(
                catalogue::CONFLICTING_GATEWAYS,
                format!("spec.servers[{index}]"),
                message,
            ));
        }
    }
}

fn certificates(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let mut by_certificate: BTreeMap<&str, Vec<Claim<'_>>> = BTreeMap::new();
    for (gateway, index, server, labels) in servers(survey) {
        let named = ["credentialName", "serverCertificate"]
            .iter()
            .find_map(|name| server.pointer(&format!("/tls/{name}"))?.as_str());
        if let Some(certificate) = named.filter(|name| !name.is_empty()) {
            by_certificate.entry(certificate).or_default().push((gateway, index, labels));
        }
    }
    for claims in by_certificate.values().filter(|claims| claims.len() > 1) {
        for (gateway, index, labels) in claims {
            let others: BTreeSet<&str> = claims
                .iter()
                .filter(|(other, _, of)| other.subject != gateway.subject && meet(labels, of))
                .map(|(other, ..)| other.subject.name.as_str())
                .collect();
            if !others.is_empty() {
                let all: Vec<&str> = std::iter::once(gateway.subject.name.as_str()).chain(others).collect();
                let message = format!(
                    "Duplicate certificate in multiple gateways [{}] may cause 404s if clients re-use HTTP2 connections.",
                    all.join(" ")
                );
                findings.push(gateway.finding(
                    catalogue::DUPLICATE_CERTIFICATE,
                    format!("spec.servers[{index}].tls"),
                    message,
                ));
            }
        }
    }
}

/// Objects of one kind, of which one counts for each workload.
struct Contenders<'d> {
    documents: Vec<&'d Document>,
    selector: &'static str,
    field: &'static str,
    overlap: &'static Code,
    defaults: &'static Code,
    plural: &'static str,
    lacks: &'static str,
}

fn contend(survey: &Survey<'_>, kind: &Contenders<'_>, findings: &mut Vec<Finding>) {
    let mut defaults: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
    let mut selecting: BTreeMap<(&str, Labels), Vec<&Document>> = BTreeMap::new();
    for document in &kind.documents {
        let labels = strings(document.spec(kind.selector));
        let namespace = document.subject.namespace.as_str();
        if labels.is_empty() {
            defaults.entry(namespace).or_default().push(document);
        } else {
            selecting.entry((namespace, labels)).or_default().push(document);
        }
    }
    let names = |documents: &[&Document]| {
        documents.iter().map(|it| it.subject.name.as_str()).take(8).collect::<Vec<_>>().join(" ")
    };
    for (namespace, documents) in defaults.iter().filter(|(_, documents)| documents.len() > 1) {
        for document in documents {
            let message = format!(
                "The {} [{}] in namespace {namespace:?} have no {}, which can lead to undefined behavior.",
                kind.plural,
                names(documents),
                kind.lacks
            );
            findings.push(document.finding(kind.defaults, "metadata.name", message));
        }
    }
    let mut owners: BTreeMap<usize, Vec<&Document>> = BTreeMap::new();
    for ((namespace, labels), documents) in &selecting {
        let selector = mesh_api::model::Selector { match_labels: labels.clone() };
        let Ok(of) = mesh_api::name::Namespace::parse(namespace) else { continue };
        let mut members = survey.scope(&of, &selector).members.clone();
        members.retain(|member| survey.workloads[*member].named.namespace == **namespace);
        if members.is_empty() && survey.knows_workloads() {
            for document in documents {
                let message = format!("Referenced selector not found: {:?}", written(labels));
                let hint = "Compare the labels with those of the workloads of the namespace.";
                findings.push(document.finding(catalogue::REFERENCE, kind.field, message).hint(hint));
            }
        }
        for member in members.into_iter().take(WORKLOADS_MAX) {
            owners.entry(member).or_default().extend(documents);
        }
    }
    let mut told = BTreeSet::new();
    for (member, documents) in owners.iter().filter(|(_, documents)| documents.len() > 1) {
        for document in documents {
            if told.insert(&document.subject) {
                let named = &survey.workloads[*member].named;
                let message = format!(
                    "The {} [{}] in namespace {:?} select the same workload pod \"{}/{}\", which can lead to undefined behavior.",
                    kind.plural,
                    names(documents),
                    document.subject.namespace,
                    named.namespace,
                    named.name
                );
                findings.push(document.finding(kind.overlap, kind.field, message));
            }
        }
    }
}

/// Access logs for no provider.
fn providers(survey: &Survey<'_>, telemetry: &Document) -> Option<Finding> {
    let mesh = survey.model.mesh;
    let has_default = !mesh.default_providers.access_logging.is_empty()
        || survey.model.documents.iter().any(|document| {
            document.subject.kind == "MeshConfig"
                && !document.list("/defaultProviders/accessLogging").is_empty()
        });
    let logs = telemetry.list("/accessLogging");
    let is_off = |log: &Value| log.get("disabled").and_then(Value::as_bool) == Some(true);
    if has_default || logs.iter().any(is_off) {
        return None;
    }
    let empty = logs.iter().position(|log| items(log.get("providers")).is_empty())?;
    let message = format!(
        "The Telemetry {} in namespace {:?} with empty providers will be ignored.",
        telemetry.subject.name, telemetry.subject.namespace
    );
    Some(
        telemetry
            .finding(catalogue::TELEMETRY_PROVIDER, format!("spec.accessLogging[{empty}]"), message)
            .fix("providers: [{name: envoy}]"),
    )
}
