//! VirtualServices and DestinationRules that point at nothing, or at each other.

use std::collections::BTreeMap;

use mesh_api::model::traffic::ClientTlsMode;
use mesh_api::model::{DestinationRule, MtlsMode, VirtualService};
use mesh_api::name::Host;
use mesh_api::problem::{Problem, Severity};

use super::{Survey, problem, subject};
use crate::peer_authentication;

pub(super) fn check(survey: &Survey<'_>, problems: &mut Vec<Problem>) {
    let model = &survey.model;
    let mut rules: Vec<_> = model.destination_rules.iter().map(|rule| &**rule).collect();
    rules.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
    let mut oldest_rule: BTreeMap<&Host, &DestinationRule> = BTreeMap::new();
    for rule in rules {
        check_rule(survey, rule, problems);
        if let Some(older) = oldest_rule.get(&rule.host) {
            let message = format!("{} is for the same host and older", older.meta.object);
            let hint = "Keep one DestinationRule for each host.";
            problems.push(problem("MM0502", Severity::Warning, &rule.meta, "spec.host", (message, hint)));
        } else {
            oldest_rule.insert(&rule.host, rule);
        }
    }
    let mut services: Vec<_> = model.virtual_services.iter().map(|service| &**service).collect();
    services.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
    let mut oldest: BTreeMap<&Host, &VirtualService> = BTreeMap::new();
    for service in services {
        check_routes(survey, service, problems);
        for host in service.hosts.iter().filter(|_| service.gateways.iter().any(|name| name == "mesh")) {
            if let Some(older) = oldest.get(host) {
                let message = format!(
                    "{} routes {host} already and is older, so this one has no effect",
                    older.meta.object
                );
                let hint = "Merge the routes into one VirtualService.";
                problems.push(problem(
                    "IST0109",
                    Severity::Error,
                    &service.meta,
                    "spec.hosts",
                    (message, hint),
                ));
            } else {
                oldest.insert(host, service);
            }
            check_owner(survey, service, host, problems);
        }
    }
}

/// Whoever may write a VirtualService anywhere may route any host for the whole mesh (TRAP 38).
fn check_owner(survey: &Survey<'_>, service: &VirtualService, host: &Host, problems: &mut Vec<Problem>) {
    if let Some(owner) = survey.service(host.as_str())
        && owner.meta.object.namespace != service.meta.object.namespace
        && service.meta.object.namespace != survey.model.mesh.root_namespace
    {
        let message =
            format!("routes {host}, a host of namespace {}, for every caller", owner.meta.object.namespace);
        let hint = "Make sure that the owner of the host agrees.";
        problems.push(problem("MM0501", Severity::Info, &service.meta, "spec.hosts", (message, hint)));
    }
}

fn check_routes(survey: &Survey<'_>, service: &VirtualService, problems: &mut Vec<Problem>) {
    let mut catch_all = None;
    for (index, route) in service.http.iter().enumerate() {
        if let Some(earlier) = catch_all {
            let message = format!("never reached, because http[{earlier}] matches everything");
            let hint = "Put the route without match last.";
            let field = format!("spec.http[{index}]");
            problems.push(problem("IST0130", Severity::Warning, &service.meta, field, (message, hint)));
        } else if route.matches.is_empty() {
            catch_all = Some(index);
        }
        for (position, target) in route.targets.iter().enumerate() {
            let field = format!("spec.http[{index}].route[{position}].destination");
            if survey.service(target.host.as_str()).is_none() {
                let message = format!("referenced host not found: {:?}", target.host.as_str());
                let hint =
                    "Name a Service or ServiceEntry; a short name is one of the VirtualService's namespace.";
                problems.push(problem(
                    "IST0101",
                    Severity::Error,
                    &service.meta,
                    format!("{field}.host"),
                    (message, hint),
                ));
            } else if let Some(subset) = &target.subset {
                let defined = survey.model.destination_rules.iter().any(|rule| {
                    rule.host.covers(target.host.as_str()) && rule.subsets.iter().any(|s| s.name == *subset)
                });
                if !defined {
                    let message = format!(
                        "referenced host+subset in destinationrule not found: {:?}",
                        format!("{}+{subset}", target.host)
                    );
                    let hint = "Define the subset in the host's DestinationRule.";
                    problems.push(problem(
                        "IST0101",
                        Severity::Error,
                        &service.meta,
                        format!("{field}.subset"),
                        (message, hint),
                    ));
                }
            }
        }
    }
}

fn check_rule(survey: &Survey<'_>, rule: &DestinationRule, problems: &mut Vec<Problem>) {
    let services: Vec<_> = survey
        .model
        .services
        .iter()
        .filter(|service| {
            service
                .hosts
                .iter()
                .any(|host| rule.host.covers(host.as_str()) || host.covers(rule.host.as_str()))
        })
        .collect();
    if services.is_empty() {
        let message = format!("no Service or ServiceEntry has the host {:?}", rule.host.as_str());
        let hint = "A short name is one of the DestinationRule's own namespace.";
        problems.push(problem("IST0174", Severity::Warning, &rule.meta, "spec.host", (message, hint)));
        return;
    }
    let endpoints: Vec<_> = services.iter().flat_map(|service| survey.endpoints(service)).collect();
    for (index, subset) in rule.subsets.iter().enumerate() {
        let selects = |labels: &mesh_api::name::Labels| {
            subset.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        if !endpoints.iter().any(|endpoint| selects(&endpoint.labels)) {
            let message = format!("subset {:?} selects no endpoint of the host", subset.name);
            let hint = "Compare its labels with those of the workloads.";
            let field = format!("spec.subsets[{index}].labels");
            problems.push(problem("IST0173", Severity::Error, &rule.meta, field, (message, hint)));
        }
    }
    if rule.policy.tls == Some(ClientTlsMode::Disable) {
        let strict = endpoints.iter().find(|endpoint| {
            endpoint.meshed
                && peer_authentication::resolve(survey.model.mesh, &subject(endpoint), survey.model.peer).mode
                    == MtlsMode::Strict
        });
        if let Some(strict) = strict {
            let message = format!("sends plaintext to {}, which accepts mutual TLS only", strict.meta.object);
            let hint = "Remove trafficPolicy.tls; the mesh chooses by what the server accepts.";
            problems.push(problem(
                "MM0503",
                Severity::Error,
                &rule.meta,
                "spec.trafficPolicy.tls",
                (message, hint),
            ));
        }
    }
}
