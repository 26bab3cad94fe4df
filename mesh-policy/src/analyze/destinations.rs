//! DestinationRules and ServiceEntries as they are written.

use std::collections::BTreeMap;

use mesh_api::model::{MtlsMode, Workload};
use mesh_api::name::Host;
use mesh_api::problem::Severity;
use serde_json::Value;

use super::catalogue;
use super::document::{Document, items, strings, texts};
use super::finding::Finding;
use super::nearest;
use super::routes::{export_to, full_host, see_each_other};
use super::survey::{Survey, selects_all_of, subject, written};

const GROUP: &str = "networking.istio.io";

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    for rule in survey.documents(GROUP, "DestinationRule") {
        certificates(rule, findings);
        port_level(rule, "spec.trafficPolicy", rule.spec("/trafficPolicy"), findings);
        for (index, subset) in rule.list("/subsets").iter().enumerate() {
            port_level(
                rule,
                &format!("spec.subsets[{index}].trafficPolicy"),
                subset.get("trafficPolicy"),
                findings,
            );
        }
        findings.extend(export_to(survey, rule));
        endpoints(survey, rule, findings);
    }
    entries(survey, findings);
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// TLS that is opened without a CA.
fn certificates(rule: &Document, findings: &mut Vec<Finding>) {
    let host = rule.spec("/host").and_then(Value::as_str).unwrap_or_default();
    let selects_clients = rule.spec("/workloadSelector").is_some();
    let lacks_ca = |tls: &Value| {
        let mode = text(tls, "mode").filter(|mode| matches!(*mode, "SIMPLE" | "MUTUAL"))?;
        let has = text(tls, "caCertificates").is_some()
            || text(tls, "credentialName").is_some() && selects_clients
            || tls.get("insecureSkipVerify").and_then(Value::as_bool) == Some(true);
        (!has).then(|| mode.to_owned())
    };
    let (name, namespace) = (&rule.subject.name, &rule.subject.namespace);
    if let Some(mode) = rule.spec("/trafficPolicy/tls").and_then(lacks_ca) {
        let message = format!(
            "DestinationRule {name} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set to validate server identity for host: {host}"
        );
        findings.push(
            rule.finding(catalogue::NO_CA, "spec.trafficPolicy.tls", message)
                .fix("caCertificates: /etc/ssl/certs/ca.pem"),
        );
    }
    for (index, port) in rule.list("/trafficPolicy/portLevelSettings").iter().enumerate() {
        if let Some(mode) = port.get("tls").and_then(lacks_ca) {
            let number = port.pointer("/port/number").map(ToString::to_string).unwrap_or_default();
            let message = format!(
                "DestinationRule {name} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set to validate server identity for host: {host} at port {number}"
            );
            let field = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
            findings.push(
                rule.finding(catalogue::NO_CA_PORT, field, message)
                    .fix("caCertificates: /etc/ssl/certs/ca.pem"),
            );
        }
    }
}

/// A port-level entry replaces tls as a whole (TRAP 40).
fn port_level(rule: &Document, path: &str, policy: Option<&Value>, findings: &mut Vec<Finding>) {
    let Some(mode) = policy.and_then(|policy| policy.pointer("/tls/mode")).and_then(Value::as_str) else {
        return;
    };
    for (index, entry) in items(policy.and_then(|policy| policy.get("portLevelSettings"))).iter().enumerate()
    {
        if entry.get("tls").is_some() {
            continue;
        }
        let number = entry.pointer("/port/number").map(ToString::to_string).unwrap_or_default();
        let message = format!(
            "Port {number} loses tls {mode}: an entry of portLevelSettings inherits nothing, and automatic mutual TLS decides again"
        );
        let field = format!("{path}.portLevelSettings[{index}]");
        findings.push(
            rule.finding(catalogue::PORT_LEVEL_TLS, field, message).fix(format!("tls: {{mode: {mode}}}")),
        );
    }
}

/// What the rule's host has behind it: nobody, other labels than the subsets', or another mode.
fn endpoints(survey: &Survey<'_>, rule: &Document, findings: &mut Vec<Finding>) {
    let Some(written_host) = rule.spec("/host").and_then(Value::as_str) else { return };
    let full = full_host(survey, &rule.subject.namespace, written_host);
    let Ok(host) = Host::parse(&full) else { return };
    let services = survey.services_like(&host);
    if services.is_empty() {
        if survey.knows_services() && !host.is_wildcard() {
            let known: Vec<&str> = survey
                .services_of(&rule.subject.namespace)
                .iter()
                .map(|service| service.meta.object.name.as_str())
                .collect();
            let message = format!(
                "The host {written_host} defined in the DestinationRule does not match any services in the mesh."
            );
            let hint = match nearest(written_host, &known) {
                Some(near) => format!("Did you mean {near:?}?"),
                None => {
                    format!("It means {full}; a short name is one of the DestinationRule's own namespace.")
                }
            };
            findings.push(rule.finding(catalogue::UNKNOWN_RULE_HOST, "spec.host", message).hint(hint));
        }
        return;
    }
    let endpoints: Vec<&Workload> = services.iter().flat_map(|service| survey.endpoints(service)).collect();
    modes(survey, rule, &endpoints, findings);
    // Presumed endpoints may have more labels than are known.
    let is_known = |it: &&mesh_api::model::Service| {
        it.selector.is_none() || survey.knows_workloads_of(it.meta.object.namespace.as_str())
    };
    let are_elsewhere = endpoints.is_empty()
        && (!survey.knows_workloads() || services.iter().all(|it| it.selector.is_none()));
    if !services.iter().all(is_known) || are_elsewhere {
        return;
    }
    for (index, subset) in rule.list("/subsets").iter().enumerate() {
        let mut labels = strings(subset.get("labels"));
        // Labels of a place are given to endpoints when they run, and stand in no document.
        labels.retain(|key, _| !key.starts_with("topology.") && !key.starts_with("failure-domain."));
        if labels.is_empty() || endpoints.iter().any(|endpoint| selects_all_of(&labels, &endpoint.labels)) {
            continue;
        }
        let name = subset.get("name").and_then(Value::as_str).unwrap_or_default();
        let message = format!(
            "The Subset {name} defined in the DestinationRule does not select any pods: no endpoint of {full} has {}",
            written(&labels)
        );
        findings.push(rule.finding(
            catalogue::EMPTY_SUBSET,
            format!("spec.subsets[{index}].labels"),
            message,
        ));
    }
}

fn modes(survey: &Survey<'_>, rule: &Document, endpoints: &[&Workload], findings: &mut Vec<Finding>) {
    let mode = |endpoint: &Workload| survey.resolve(&subject(endpoint)).mode;
    let find = |wanted: MtlsMode| {
        let mut meshed = endpoints.iter().copied().filter(|endpoint| endpoint.meshed);
        meshed.find(|endpoint| mode(endpoint) == wanted)
    };
    let mut places = vec![("spec.trafficPolicy.tls.mode".to_owned(), rule.spec("/trafficPolicy/tls/mode"))];
    for (index, port) in rule.list("/trafficPolicy/portLevelSettings").iter().enumerate() {
        places.push((
            format!("spec.trafficPolicy.portLevelSettings[{index}].tls.mode"),
            port.pointer("/tls/mode"),
        ));
    }
    for (index, subset) in rule.list("/subsets").iter().enumerate() {
        places.push((
            format!("spec.subsets[{index}].trafficPolicy.tls.mode"),
            subset.pointer("/trafficPolicy/tls/mode"),
        ));
    }
    for (field, stated) in places {
        match stated.and_then(Value::as_str) {
            Some("DISABLE") => {
                if let Some(strict) = find(MtlsMode::Strict) {
                    let message = format!(
                        "Sends plaintext to {}/{}, which accepts mutual TLS only: its connections are closed",
                        strict.meta.object.namespace, strict.meta.object.name
                    );
                    findings.push(rule.finding(catalogue::PLAINTEXT_TO_STRICT, field, message));
                }
            }
            Some("ISTIO_MUTUAL") => {
                if let Some(plain) = find(MtlsMode::Disable) {
                    let by = survey
                        .resolve(&subject(plain))
                        .used
                        .last()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    let message = format!(
                        "A DestinationRule and Policy are in conflict with regards to mTLS for host {}. The DestinationRule \"{}\" specifies that mTLS must be true but the Policy object {by:?} specifies DISABLE.",
                        rule.spec("/host").and_then(Value::as_str).unwrap_or_default(),
                        rule.subject.name
                    );
                    findings.push(rule.finding(catalogue::MTLS_CONFLICT, field, message));
                }
            }
            Some(_) | None => {}
        }
    }
}

/// Ports whose declared protocol and TLS of a DestinationRule contradict each other.
fn tls_twice(survey: &Survey<'_>, entry: &Document, hosts: &[&str], findings: &mut Vec<Finding>) {
    for (index, port) in entry.list("/ports").iter().enumerate() {
        let Some(number) = port.get("number").and_then(Value::as_u64) else { continue };
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
        let opens = |rule: &Document| {
            let at_port = rule
                .list("/trafficPolicy/portLevelSettings")
                .iter()
                .find(|it| it.pointer("/port/number").and_then(Value::as_u64) == Some(number));
            let tls = match at_port {
                Some(settings) => settings.pointer("/tls/mode"),
                None => rule.spec("/trafficPolicy/tls/mode"),
            };
            matches!(tls.and_then(Value::as_str), Some("SIMPLE" | "MUTUAL"))
        };
        let rule = hosts
            .iter()
            .find_map(|host| survey.rules_for(&host.to_ascii_lowercase()).find(|rule| opens(rule)));
        let field = format!("spec.ports[{index}].protocol");
        match (protocol.as_str(), rule) {
            ("HTTPS" | "TLS", Some(rule)) => {
                let message = format!(
                    "Port {number} carries TLS already, and {} ({}) opens TLS to it: the server finds TLS within TLS",
                    rule.subject, rule.origin
                );
                findings.push(entry.finding(catalogue::DOUBLE_TLS, field, message).fix("protocol: HTTP"));
            }
            ("HTTP" | "HTTP2", None) if number == 443 && port.get("targetPort").is_none() => {
                let message = "Port 443 is declared as plain HTTP, and no DestinationRule opens TLS to it: what clients send there as HTTPS is not understood";
                findings
                    .push(entry.finding(catalogue::PLAINTEXT_ON_443, field, message).fix("protocol: HTTPS"));
            }
            _ => {}
        }
    }
}

/// A ServiceEntry's claim of a host and port: positions of both, and the protocol.
type Claim<'d> = (&'d Document, usize, usize, String);

/// ServiceEntries: ports without address, and hosts that several claim.
fn entries(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let mut claims: BTreeMap<(String, u64), Vec<Claim<'_>>> = BTreeMap::new();
    for entry in survey.documents(GROUP, "ServiceEntry") {
        findings.extend(export_to(survey, entry));
        let hosts = texts(entry.spec("/hosts"));
        let has_addresses = !entry.list("/addresses").is_empty();
        tls_twice(survey, entry, &hosts, findings);
        let resolution = entry.spec("/resolution").and_then(Value::as_str).unwrap_or("NONE");
        for (index, port) in entry.list("/ports").iter().enumerate() {
            let protocol =
                port.get("protocol").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
            if !has_addresses && matches!(protocol.as_str(), "" | "TCP") {
                let is_assigned = resolution != "NONE" && hosts.iter().all(|host| !host.starts_with('*'));
                let severity = if is_assigned { Severity::Info } else { Severity::Warning };
                let message = if is_assigned {
                    "ServiceEntry addresses are required for this protocol; the mesh assigns one, which clients learn by DNS through their proxy"
                } else {
                    "ServiceEntry addresses are required for this protocol: without one its traffic cannot be told from other traffic to the port"
                };
                findings.push(
                    entry
                        .finding(catalogue::ADDRESSES_REQUIRED, format!("spec.ports[{index}]"), message)
                        .severity(severity)
                        .fix("addresses: [240.240.0.1]"),
                );
            }
            let Some(number) = port.get("number").and_then(Value::as_u64) else { continue };
            for (at, host) in hosts.iter().enumerate() {
                let key = (host.to_ascii_lowercase(), number);
                claims.entry(key).or_default().push((entry, at, index, protocol.clone()));
            }
        }
    }
    for ((host, port), claims) in claims.iter().filter(|(_, claims)| claims.len() > 1) {
        let [(first, _, _, protocol), rest @ ..] = claims.as_slice() else { continue };
        for (entry, at, index, other) in
            rest.iter().filter(|(entry, ..)| entry.subject != first.subject && see_each_other(entry, first))
        {
            if other != protocol {
                let message = format!(
                    "Port {port} of {host} is {other} here and {protocol} in {} ({}): the oldest counts",
                    first.subject, first.origin
                );
                findings.push(entry.finding(
                    catalogue::ENTRY_PROTOCOL,
                    format!("spec.ports[{index}].protocol"),
                    message,
                ));
            } else {
                let message = format!("{host}:{port} is that of {} ({}) too", first.subject, first.origin);
                findings.push(entry.finding(catalogue::ENTRY_OVERLAP, format!("spec.hosts[{at}]"), message));
            }
        }
    }
}
