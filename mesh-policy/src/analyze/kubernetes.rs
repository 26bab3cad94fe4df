//! Kubernetes' own objects, as far as they decide whether the mesh guards a workload: injection, ports,
//! annotations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::annotations;
use super::catalogue;
use super::document::{Document, containers, items, strings};
use super::finding::Finding;
use super::survey::Survey;

/// Namespaces whose pods and services are not the user's.
const SYSTEM: [&str; 5] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "istio-system"];
/// Protocols that a port's name may begin with.
const PROTOCOLS: [&str; 15] = [
    "grpc",
    "grpc-web",
    "http",
    "http2",
    "http3",
    "https",
    "mongo",
    "mysql",
    "redis",
    "tcp",
    "tls",
    "udp",
    "auto",
    "hbone",
    "double-hbone",
];
/// Containers that are proxies: Istio's and ours.
const PROXIES: [&str; 2] = ["istio-proxy", "mesh-proxy"];
/// The user that the proxy runs as.
const PROXY_UID: u64 = 1337;

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let namespaces: BTreeMap<&str, &Document> = survey
        .documents("", "Namespace")
        .map(|document| (document.subject.name.as_str(), document))
        .collect();
    let with_pods: BTreeSet<&str> = survey
        .model
        .documents
        .iter()
        .filter(|it| it.pod().is_some())
        .map(|it| it.subject.namespace.as_str())
        .collect();
    // Whoever labels one namespace decides by labels, and the others are worth a word.
    let is_labelled = namespaces
        .values()
        .any(|it| it.labels.contains_key("istio-injection") || it.labels.contains_key("istio.io/rev"));
    for document in survey.model.documents {
        annotations::check(document, findings);
        if document.is("", "Namespace") {
            let may_be_meant = !is_labelled && !with_pods.contains(document.subject.name.as_str());
            if !may_be_meant {
                injection(document, findings);
            }
        } else if document.is("", "Service") {
            ports(document, findings);
        } else if document.pod().is_some() {
            pod(document, &namespaces, findings);
        }
    }
    several_services(survey, findings);
    unrestricted_keys(survey, findings);
}

fn injection(namespace: &Document, findings: &mut Vec<Finding>) {
    let name = namespace.subject.name.as_str();
    if SYSTEM.contains(&name) {
        return;
    }
    let label = namespace.labels.get("istio-injection");
    let revision = namespace.labels.get("istio.io/rev");
    let ambient = namespace.labels.get("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient");
    match (label, revision) {
        (Some(injection), Some(revision)) => {
            let message = format!(
                "The namespace has more than one type of injection labels [istio-injection={injection} istio.io/rev={revision}], which may lead to undefined behavior. Make sure only one injection label exists."
            );
            findings.push(namespace.finding(catalogue::INJECTION_LABELS, "metadata.labels", message));
        }
        (None, None) if !ambient => {
            let message = format!(
                "The namespace is not enabled for Istio injection. Run 'kubectl label namespace {name} istio-injection=enabled' to enable it, or 'kubectl label namespace {name} istio-injection=disabled' to explicitly mark it as not needing injection."
            );
            findings.push(
                namespace
                    .finding(catalogue::NOT_INJECTED, "metadata", message)
                    .fix("labels: {istio-injection: enabled}"),
            );
        }
        (Some(_), None) | (None, Some(_) | None) => {}
    }
}

fn pod(document: &Document, namespaces: &BTreeMap<&str, &Document>, findings: &mut Vec<Finding>) {
    let Some((path, pod)) = document.pod() else { return };
    let at = |field: &str| {
        format!(
            "{}{field}",
            path.trim_start_matches('/').replace('/', ".") + if path.is_empty() { "" } else { "." }
        )
    };
    let labels = strings(pod.pointer("/metadata/labels"));
    let annotations = strings(pod.pointer("/metadata/annotations"));
    let runs_as = |value: Option<&Value>| {
        value.and_then(|it| it.pointer("/securityContext/runAsUser")).and_then(Value::as_u64)
            == Some(PROXY_UID)
    };
    if runs_as(pod.get("spec")) {
        let message =
            "User ID (UID) 1337 is reserved for the sidecar proxy: the traffic of this pod goes past it.";
        findings.push(document.finding(catalogue::UID_1337, at("spec.securityContext.runAsUser"), message));
    }
    for (index, container) in items(pod.pointer("/spec/containers")).iter().enumerate() {
        let is_proxy =
            container.get("name").and_then(Value::as_str).is_some_and(|name| PROXIES.contains(&name));
        let own = container.pointer("/securityContext/runAsUser").and_then(Value::as_u64);
        if own == Some(PROXY_UID) && !is_proxy {
            let message = "User ID (UID) 1337 is reserved for the sidecar proxy: the traffic of this container goes past it.";
            let field = at(&format!("spec.containers[{index}].securityContext.runAsUser"));
            findings.push(document.finding(catalogue::UID_1337, field, message));
        }
    }
    let namespace = namespaces.get(document.subject.namespace.as_str());
    let is_injected = namespace.is_some_and(|it| {
        it.labels.get("istio-injection").is_some_and(|value| value == "enabled")
            || it.labels.contains_key("istio.io/rev")
    });
    let is_excepted = [&labels, &annotations]
        .iter()
        .any(|map| map.get("sidecar.istio.io/inject").is_some_and(|value| value == "false"));
    let on_host = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    let has_proxy = containers(pod).any(|container| {
        container.get("name").and_then(Value::as_str).is_some_and(|name| PROXIES.contains(&name))
    });
    if document.subject.kind == "Pod" && is_injected && !is_excepted && !has_proxy && !on_host {
        let message = format!(
            "The pod {} is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload.",
            document.subject.name
        );
        findings.push(document.finding(catalogue::MISSING_PROXY, "spec.containers", message));
    }
}

fn ports(service: &Document, findings: &mut Vec<Finding>) {
    if SYSTEM.contains(&service.subject.namespace.as_str()) {
        return;
    }
    let is_external = service.spec("/type").and_then(Value::as_str) == Some("ExternalName");
    for (index, port) in service.list("/ports").iter().enumerate() {
        let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_tcp = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP") == "TCP";
        let has_protocol = port.get("appProtocol").is_some();
        let is_known = PROTOCOLS.iter().any(|protocol| {
            name.strip_prefix(protocol).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        let field = format!("spec.ports[{index}]");
        if is_external {
            if name == "tcp" || name.starts_with("tcp-") {
                let message = "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for ports serving TCP protocol from being forwarded correctly";
                findings.push(service.finding(
                    catalogue::EXTERNAL_NAME_PORT,
                    format!("{field}.name"),
                    message,
                ));
            }
            continue;
        }
        if is_tcp && !has_protocol && !is_known {
            let number = port.get("port").map(ToString::to_string).unwrap_or_default();
            let target = port
                .get("targetPort")
                .map_or_else(|| number.clone(), |it| it.to_string().trim_matches('"').to_owned());
            let message = format!(
                "Port name {name} (port: {number}, targetPort: {target}) doesn't follow the naming convention of Istio port."
            );
            let fix = format!("name: http{}{name}", if name.is_empty() { "" } else { "-" });
            findings.push(service.finding(catalogue::PORT_NAME, field, message).fix(fix));
        }
    }
}

/// Services in front of the same Deployment that contradict each other.
fn several_services(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    for surveyed in &survey.workloads {
        let Some(document) = surveyed.document.filter(|it| it.subject.kind == "Deployment") else { continue };
        let serving: Vec<&Document> = survey
            .services_documents(&document.subject.namespace)
            .iter()
            .copied()
            .filter(|service| {
                let selector = strings(service.spec("/selector"));
                !selector.is_empty() && super::survey::selects_all_of(&selector, &surveyed.workload.labels)
            })
            .collect();
        if serving.len() < 2 {
            continue;
        }
        let name = &document.subject.name;
        let mut protocols: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        let mut by_target: BTreeMap<String, (BTreeSet<u64>, BTreeSet<&str>)> = BTreeMap::new();
        for service in &serving {
            for port in service.list("/ports") {
                let Some(number) = port.get("port").and_then(Value::as_u64) else { continue };
                let transport = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
                protocols.entry(number).or_default().insert(transport.to_owned());
                let target = port
                    .get("targetPort")
                    .map_or_else(|| number.to_string(), |it| it.to_string().trim_matches('"').to_owned());
                let known = by_target.entry(target).or_default();
                known.0.insert(number);
                known.1.insert(&service.subject.name);
            }
        }
        let names: Vec<&str> = serving.iter().map(|it| it.subject.name.as_str()).collect();
        for (port, used) in protocols.iter().filter(|(_, used)| used.len() > 1) {
            let message = format!(
                "This deployment {name} is associated with multiple services using port {port} but different protocols: {}",
                used.iter().cloned().collect::<Vec<_>>().join(" ")
            );
            findings.push(document.finding(
                catalogue::SEVERAL_SERVICES,
                "metadata.name",
                format!("{message} ({})", names.join(", ")),
            ));
        }
        for (target, (ports, services)) in
            by_target.iter().filter(|(_, (ports, services))| ports.len() > 1 && services.len() > 1)
        {
            let message = format!(
                "This deployment {name} is associated with multiple services [{}] using targetPort {target:?} but different ports: [{}].",
                services.iter().copied().collect::<Vec<_>>().join(" "),
                ports.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
            );
            findings.push(document.finding(catalogue::TARGET_PORTS, "metadata.name", message));
        }
    }
}

/// An istiod that fetches keys from wherever it is told to.
fn unrestricted_keys(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let names: Vec<String> = survey
        .model
        .request
        .iter()
        .map(|it| format!("{}/{}", it.meta.object.namespace, it.meta.object.name))
        .collect();
    if names.is_empty() {
        return;
    }
    for document in survey
        .documents("apps", "Deployment")
        .filter(|it| it.labels.get("app").is_some_and(|app| app == "istiod"))
    {
        let Some((_, pod)) = document.pod() else { continue };
        let is_set = containers(pod).flat_map(|container| items(container.get("env"))).any(|variable| {
            variable.get("name").and_then(Value::as_str) == Some("BLOCKED_CIDRS_IN_JWKS_URIS")
                && variable.get("value").and_then(Value::as_str).is_some_and(|value| !value.is_empty())
        });
        if !is_set {
            let message = format!(
                "istiod fetches keys from any address, and {} RequestAuthentications may name one: {}",
                names.len(),
                names.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
            );
            findings.push(document.finding(
                catalogue::JWKS_UNRESTRICTED,
                "spec.template.spec.containers",
                message,
            ));
        }
    }
}
