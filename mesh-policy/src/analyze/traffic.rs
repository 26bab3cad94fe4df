//! VirtualServices and DestinationRules as the model holds them: what the control plane, which keeps no
//! documents, can say of them.

use mesh_api::model::traffic::ClientTlsMode;
use mesh_api::model::{DestinationRule, MtlsMode, VirtualService};
use mesh_api::name::Host;
use mesh_api::problem::Severity;

use super::catalogue;
use super::finding::Finding;
use super::survey::{Survey, subject};

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let model = &survey.model;
    for rule in model.destination_rules {
        check_rule(survey, rule, findings);
    }
    for service in model.virtual_services {
        check_routes(survey, service, findings);
        for host in service.hosts.iter().filter(|_| service.gateways.iter().any(|name| name == "mesh")) {
            findings.extend(foreign(survey, service, host));
        }
    }
}

/// Rules that others of the same host have come before, and hosts that several route. Needs no documents.
pub(super) fn check_ages(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let mut rules: Vec<_> = survey.model.destination_rules.iter().collect();
    rules.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
    let mut oldest = std::collections::BTreeMap::new();
    for rule in rules {
        let key = (&rule.meta.object.namespace, &rule.host);
        match oldest.get(&key) {
            None => drop(oldest.insert(key, &rule.meta)),
            Some(older) => {
                let message = format!(
                    "{} ({}) is for the same host and older: this trafficPolicy has no effect, its subsets are added",
                    older.object, older.origin
                );
                findings.push(Finding::of(catalogue::SECOND_RULE, &rule.meta, "spec.host", message));
            }
        }
    }
}

/// Whoever may write a VirtualService anywhere may route any host for the whole mesh (TRAP 38).
fn foreign(survey: &Survey<'_>, service: &VirtualService, host: &Host) -> Option<Finding> {
    let owner = &survey.service(host.as_str())?.meta.object.namespace;
    let own = &service.meta.object.namespace;
    (owner != own && *own != survey.model.mesh.root_namespace).then(|| {
        let message = format!("Routes {host}, a host of namespace {owner}, for every caller of the mesh");
        Finding::of(catalogue::FOREIGN_ROUTE, &service.meta, "spec.hosts", message)
    })
}

fn check_routes(survey: &Survey<'_>, service: &VirtualService, findings: &mut Vec<Finding>) {
    let mut catch_all = None;
    for (index, route) in service.http.iter().enumerate() {
        if let Some(earlier) = catch_all {
            let message =
                format!("VirtualService rule #{index} not used (rule #{earlier} matches everything)");
            findings.push(Finding::of(
                catalogue::UNREACHABLE_ROUTE,
                &service.meta,
                format!("spec.http[{index}]"),
                message,
            ));
        } else if route.matches.is_empty() {
            catch_all = Some(index);
        }
        for (position, target) in route.targets.iter().enumerate() {
            let field = format!("spec.http[{index}].route[{position}].destination");
            if survey.service(target.host.as_str()).is_none() {
                let message = format!("Referenced host not found: {:?}", target.host.as_str());
                findings.push(Finding::of(
                    catalogue::REFERENCE,
                    &service.meta,
                    format!("{field}.host"),
                    message,
                ));
            } else if let Some(subset) = &target.subset {
                let defined = survey.model.destination_rules.iter().any(|rule| {
                    rule.host.covers(target.host.as_str()) && rule.subsets.iter().any(|s| s.name == *subset)
                });
                if !defined {
                    let message = format!(
                        "Referenced host+subset in destinationrule not found: \"{}+{subset}\"",
                        target.host
                    );
                    findings.push(Finding::of(
                        catalogue::REFERENCE,
                        &service.meta,
                        format!("{field}.subset"),
                        message,
                    ));
                }
            }
        }
    }
}

fn check_rule(survey: &Survey<'_>, rule: &DestinationRule, findings: &mut Vec<Finding>) {
    let services = survey.services_like(&rule.host);
    if services.is_empty() && survey.knows_services() && !rule.host.is_wildcard() {
        let message = format!(
            "The host {} defined in the DestinationRule does not match any services in the mesh.",
            rule.host
        );
        findings.push(Finding::of(catalogue::UNKNOWN_RULE_HOST, &rule.meta, "spec.host", message));
        return;
    }
    let endpoints: Vec<_> = services.iter().flat_map(|service| survey.endpoints(service)).collect();
    if endpoints.is_empty() {
        return;
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        let selects = |labels: &mesh_api::name::Labels| super::survey::selects_all_of(&subset.labels, labels);
        if !endpoints.iter().any(|endpoint| selects(&endpoint.labels)) {
            let message = format!(
                "The Subset {} defined in the DestinationRule does not select any pods.",
                subset.name
            );
            findings.push(Finding::of(
                catalogue::EMPTY_SUBSET,
                &rule.meta,
                format!("spec.subsets[{index}].labels"),
                message,
            ));
        }
    }
    let mode = |endpoint: &&mesh_api::model::Workload| survey.resolve(&subject(endpoint)).mode;
    let meshed = || endpoints.iter().copied().filter(|endpoint| endpoint.meshed);
    match rule.policy.tls {
        Some(ClientTlsMode::Disable) => {
            if let Some(strict) = meshed().find(|endpoint| mode(endpoint) == MtlsMode::Strict) {
                let message = format!(
                    "Sends plaintext to {}, which accepts mutual TLS only: its connections are closed",
                    strict.meta.object
                );
                findings.push(Finding::of(
                    catalogue::PLAINTEXT_TO_STRICT,
                    &rule.meta,
                    "spec.trafficPolicy.tls.mode",
                    message,
                ));
            }
        }
        Some(ClientTlsMode::IstioMutual) => {
            if let Some(plain) = meshed().find(|endpoint| mode(endpoint) == MtlsMode::Disable) {
                let message = format!(
                    "Sends mutual TLS to {}, where it is disabled: the application gets bytes that it cannot read",
                    plain.meta.object
                );
                findings.push(Finding::of(
                    catalogue::MTLS_CONFLICT,
                    &rule.meta,
                    "spec.trafficPolicy.tls.mode",
                    message,
                ));
            }
        }
        None => {}
    }
    port_level_tls(rule, findings);
}

/// A port-level entry replaces tls as a whole (TRAP 40).
fn port_level_tls(rule: &DestinationRule, findings: &mut Vec<Finding>) {
    for (index, (port, policy)) in rule.port_level.iter().enumerate() {
        if rule.policy.tls.is_some() && policy.tls.is_none() {
            let message = format!(
                "Drops the tls of the rule for port {port}: portLevelSettings inherit nothing, and the mesh decides again"
            );
            let field = format!("spec.trafficPolicy.portLevelSettings[{index}]");
            findings.push(
                Finding::of(catalogue::PORT_LEVEL_TLS, &rule.meta, field, message)
                    .severity(Severity::Warning),
            );
        }
    }
}
