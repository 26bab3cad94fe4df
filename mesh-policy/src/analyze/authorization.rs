//! AuthorizationPolicies that mean something else than they seem to.

use std::collections::BTreeSet;

use mesh_api::model::{Action, AuthorizationPolicy, Operation, Protocol, Rule, Source};
use mesh_api::problem::{Problem, Severity};

use super::{Model, Survey, Surveyed, problem, subject};
use crate::select;

pub(super) fn check(survey: &Survey<'_>, policy: &AuthorizationPolicy, problems: &mut Vec<Problem>) {
    let model = &survey.model;
    let concerned = survey.concerned(&policy.meta, &policy.selector, &policy.targets);
    if concerned.is_empty() {
        without_effect(policy, problems);
    }
    stray_dash(policy, problems);
    for (index, rule) in policy.rules.iter().enumerate() {
        for (position, source) in rule.from.iter().enumerate() {
            let field = format!("spec.rules[{index}].from[{position}].source");
            check_source(model, policy, source, &field, problems);
        }
        for (position, operation) in rule.to.iter().enumerate() {
            let field = format!("spec.rules[{index}].to[{position}].operation");
            check_operation(policy, operation, &field, problems);
        }
        check_ports(&concerned, policy, (index, rule), problems);
        check_tokens(model, &concerned, policy, (index, rule), problems);
    }
}

/// The policy concerns nobody.
fn without_effect(policy: &AuthorizationPolicy, problems: &mut Vec<Problem>) {
    if !policy.targets.is_empty() {
        let message = "no gateway carries the names in targetRefs, and sidecars ignore the policy".to_owned();
        let hint = "Use a selector to protect workloads; targetRefs bind at gateways only.";
        problems.push(problem("MM0410", Severity::Warning, &policy.meta, "spec.targetRefs", (message, hint)));
    } else if !policy.selector.is_empty() {
        let message = "selector matches no workload".to_owned();
        let hint = "Compare the labels with those of the workloads in the policy's namespace.";
        problems.push(problem("IST0127", Severity::Warning, &policy.meta, "spec.selector", (message, hint)));
    }
}

/// `- from` and `- to` as two list entries are two rules, ORed; the author of an ALLOW policy rarely wants
/// "anything from these callers, or this operation from anybody".
fn stray_dash(policy: &AuthorizationPolicy, problems: &mut Vec<Problem>) {
    for (index, pair) in policy.rules.windows(2).enumerate() {
        let [first, second] = pair else { continue };
        let only_from = !first.from.is_empty() && first.to.is_empty() && first.when.is_empty();
        let no_from = second.from.is_empty() && !(second.to.is_empty() && second.when.is_empty());
        if only_from && no_from {
            let message = format!(
                "rules[{index}] has only `from` and the next rule has none: they are ORed, so each takes \
                 effect without the other"
            );
            let hint = "To require both, put `from` and `to` under one dash.";
            let field = format!("spec.rules[{}]", index + 1);
            problems.push(problem("MM0405", Severity::Warning, &policy.meta, field, (message, hint)));
        }
    }
}

fn check_source(
    model: &Model<'_>,
    policy: &AuthorizationPolicy,
    source: &Source,
    field: &str,
    problems: &mut Vec<Problem>,
) {
    let mut report = |code, list: &str, message, hint| {
        problems.push(problem(
            code,
            Severity::Warning,
            &policy.meta,
            format!("{field}.{list}"),
            (message, hint),
        ));
    };
    for (list, values) in [("principals", &source.principals), ("notPrincipals", &source.not_principals)] {
        for value in values {
            if value.starts_with("spiffe://") {
                let message =
                    format!("{value:?} never matches, because principals are written without spiffe://");
                report("MM0401", list, message, "Remove the scheme: TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT.");
            } else if has_literal_star(value) {
                report("MM0402", list, literal_star(value), STAR_HINT);
            }
        }
    }
    for (list, values) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        for value in values.iter().filter(|value| !value.contains('/')) {
            if policy.meta.object.namespace == model.mesh.root_namespace {
                let message = format!(
                    "{value:?} means {}/{value}, an account of the policy's own namespace",
                    policy.meta.object.namespace
                );
                report("MM0409", list, message, "Write NAMESPACE/ACCOUNT in a policy for the whole mesh.");
            }
        }
    }
    for (list, values) in [("ipBlocks", &source.ip_blocks), ("notIpBlocks", &source.not_ip_blocks)] {
        let has = |block: &str| values.iter().any(|value| value == block);
        if has("0.0.0.0/0") && !has("::/0") {
            let message = "0.0.0.0/0 covers IPv4 only".to_owned();
            report("MM0408", list, message, "Add ::/0 to mean every address.");
        }
    }
    if !source.remote_ip_blocks.is_empty() && policy.action == Action::Allow && policy.targets.is_empty() {
        let message = "the original client's address is not trustworthy at a sidecar, where any caller can \
                       state it"
            .to_owned();
        report("MM0407", "remoteIpBlocks", message, "Use remoteIpBlocks at gateways, ipBlocks elsewhere.");
    }
    if policy.action == Action::Allow && excludes_only_identities(source) {
        let message = "a source that only excludes identities lets in callers without any, plaintext \
                       included"
            .to_owned();
        let hint = "Add principals: [\"*\"] to demand an authenticated caller.";
        problems.push(problem("MM0406", Severity::Warning, &policy.meta, field, (message, hint)));
    }
}

fn excludes_only_identities(source: &Source) -> bool {
    let positive = [
        &source.principals,
        &source.namespaces,
        &source.service_accounts,
        &source.trust_domains,
        &source.request_principals,
        &source.ip_blocks,
        &source.remote_ip_blocks,
    ];
    let negative = [
        &source.not_principals,
        &source.not_namespaces,
        &source.not_service_accounts,
        &source.not_trust_domains,
        &source.not_request_principals,
    ];
    positive.iter().all(|list| list.is_empty()) && negative.iter().any(|list| !list.is_empty())
}

const STAR_HINT: &str = "A star is a wildcard only as the first or last character; use path templates for \
                         segments, or list the values.";

/// A star that stands for itself: in the middle, or at the end of a value that starts with one.
fn has_literal_star(value: &str) -> bool {
    let inner = match value.strip_prefix('*') {
        Some(rest) => rest,
        None => value.strip_suffix('*').unwrap_or(value),
    };
    inner.contains('*')
}

fn literal_star(value: &str) -> String {
    format!("{value:?} holds a star that is taken literally")
}

fn check_operation(
    policy: &AuthorizationPolicy,
    operation: &Operation,
    field: &str,
    problems: &mut Vec<Problem>,
) {
    let mut report = |code, list: &str, message, hint| {
        problems.push(problem(
            code,
            Severity::Warning,
            &policy.meta,
            format!("{field}.{list}"),
            (message, hint),
        ));
    };
    for (list, values) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
    ] {
        for value in values.iter().filter(|value| !value.contains('{') && has_literal_star(value)) {
            report("MM0402", list, literal_star(value), STAR_HINT);
        }
    }
    // Refusing a host, or admitting all but one, is undone by writing its port into the authority.
    let lists = match policy.action {
        Action::Deny => [("hosts", &operation.hosts)],
        Action::Allow | Action::Audit | Action::Custom => [("notHosts", &operation.not_hosts)],
    };
    for (list, values) in lists {
        for value in values {
            let open = !value.ends_with('*') && !value.contains(':');
            if open
                && !values.iter().any(|other| *other == format!("{value}:*") || *other == format!("{value}*"))
            {
                let message = format!("{value:?} does not match \"{value}:PORT\", which a client may send");
                report("MM0403", list, message, "List HOST and HOST:* both.");
            }
        }
    }
}

/// Ports as clients dial them where ports of the workload are meant, and HTTP fields where no HTTP is.
fn check_ports(
    concerned: &[&Surveyed<'_>],
    policy: &AuthorizationPolicy,
    (index, rule): (usize, &Rule),
    problems: &mut Vec<Problem>,
) {
    let declared = || concerned.iter().flat_map(|surveyed| &surveyed.ports);
    for (position, operation) in rule.to.iter().enumerate() {
        for port in operation.ports.iter().filter_map(|port| port.parse::<u16>().ok()) {
            let is_target = declared().any(|declared| declared.target_port == port);
            if let Some(service) = declared().find(|declared| declared.service_port == port)
                && !is_target
            {
                let message = format!(
                    "port {port} is the port of a service; the workload listens on {}, and policies test that",
                    service.target_port
                );
                let field = format!("spec.rules[{index}].to[{position}].operation.ports");
                let hint = "Write the workload's port.";
                problems.push(problem("MM0414", Severity::Warning, &policy.meta, field, (message, hint)));
            }
        }
    }
    if !uses_http(rule) {
        return;
    }
    let named: BTreeSet<u16> =
        rule.to.iter().flat_map(|o| &o.ports).filter_map(|port| port.parse().ok()).collect();
    let streams: BTreeSet<u16> = declared()
        .filter(|port| matches!(port.protocol, Protocol::Tcp | Protocol::Tls))
        .map(|port| port.target_port)
        .filter(|port| named.is_empty() || named.contains(port))
        .collect();
    for port in streams {
        let (severity, effect) = match policy.action {
            Action::Allow => (Severity::Warning, "the rule never matches there"),
            Action::Deny | Action::Custom => {
                (Severity::Warning, "those fields are left out there, so that the rule refuses more")
            }
            Action::Audit => (Severity::Info, "those fields are left out there"),
        };
        let message = format!("the rule tests what only HTTP has, and port {port} is not HTTP: {effect}");
        let hint = "Restrict the rule to HTTP ports, or write a rule without HTTP fields for the others.";
        let field = format!("spec.rules[{index}]");
        problems.push(problem("MM0404", severity, &policy.meta, field, (message, hint)));
    }
}

fn uses_http(rule: &Rule) -> bool {
    rule.from.iter().any(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty())
        || rule.to.iter().any(|o| {
            [&o.hosts, &o.not_hosts, &o.methods, &o.not_methods, &o.paths, &o.not_paths]
                .iter()
                .any(|list| !list.is_empty())
        })
        || rule.when.iter().any(|condition| condition.key.starts_with("request."))
}

/// Tests of a token where nothing verifies tokens.
fn check_tokens(
    model: &Model<'_>,
    concerned: &[&Surveyed<'_>],
    policy: &AuthorizationPolicy,
    (index, rule): (usize, &Rule),
    problems: &mut Vec<Problem>,
) {
    let tests_token =
        rule.from.iter().any(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty())
            || rule.when.iter().any(|condition| condition.key.starts_with("request.auth."));
    if !tests_token {
        return;
    }
    let unverified = concerned.iter().map(|surveyed| surveyed.workload).find(|workload| {
        let subject = subject(workload);
        !model.request.iter().any(|request| {
            select::applies(model.mesh, &subject, &request.meta, &request.selector, &request.targets)
        })
    });
    if let Some(workload) = unverified {
        let message = format!(
            "the rule tests a token, and no RequestAuthentication applies to {}, so that no token is ever \
             verified there",
            workload.meta.object
        );
        let hint = "Add a RequestAuthentication for the issuer.";
        let field = format!("spec.rules[{index}]");
        problems.push(problem("IST0149", Severity::Warning, &policy.meta, field, (message, hint)));
    }
}
