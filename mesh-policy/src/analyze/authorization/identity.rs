//! Who is meant by a source: identities that nobody has, and callers that have none.

use mesh_api::model::{Action, AuthorizationPolicy, Rule, Source};
use mesh_api::problem::Severity;

use crate::analyze::catalogue;
use crate::analyze::cover;
use crate::analyze::finding::Finding;
use crate::analyze::nearest;
use crate::analyze::survey::{Acceptance, Scope, Survey};

pub(super) fn check(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    scope: &Scope,
    findings: &mut Vec<Finding>,
) {
    let accepted = policy
        .targets
        .is_empty()
        .then(|| survey.acceptance(scope, &policy.meta.object.namespace, &policy.selector));
    for (index, rule) in policy.rules.iter().enumerate() {
        for (position, source) in rule.from.iter().enumerate() {
            let path = format!("spec.rules[{index}].from[{position}].source");
            let lists = [("principals", &source.principals), ("notPrincipals", &source.not_principals)];
            for (list, values) in lists {
                for (at, value) in values.iter().enumerate() {
                    findings.extend(principal(survey, policy, &format!("{path}.{list}[{at}]"), value));
                }
            }
            let lists = [("namespaces", &source.namespaces), ("notNamespaces", &source.not_namespaces)];
            for (list, values) in lists {
                for (at, value) in values.iter().enumerate() {
                    findings.extend(namespace(survey, policy, &format!("{path}.{list}[{at}]"), value));
                }
            }
            let lists = [
                ("serviceAccounts", &source.service_accounts),
                ("notServiceAccounts", &source.not_service_accounts),
            ];
            for (list, values) in lists {
                for (at, value) in values.iter().enumerate() {
                    findings.extend(account(survey, policy, &format!("{path}.{list}[{at}]"), value));
                }
            }
            remote_addresses(policy, &path, source, findings);
            findings.extend(opposed_namespaces(policy, &path, source));
            findings.extend(accepted.and_then(|accepted| anonymous(policy, &path, source, accepted)));
        }
        for (position, condition) in rule.when.iter().enumerate() {
            for (list, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
                for (at, value) in values.iter().enumerate() {
                    let field = format!("spec.rules[{index}].when[{position}].{list}[{at}]");
                    findings.extend(match condition.key.as_str() {
                        "source.principal" => principal(survey, policy, &field, value),
                        "source.namespace" => namespace(survey, policy, &field, value),
                        "source.serviceAccount" => account(survey, policy, &field, value),
                        _ => None,
                    });
                }
            }
        }
        if let Some(accepted) = accepted {
            findings.extend(transport(policy, index, rule, accepted));
        }
    }
}

fn principal(survey: &Survey<'_>, policy: &AuthorizationPolicy, field: &str, value: &str) -> Option<Finding> {
    if value.contains("://") || value.starts_with('*') {
        return None;
    }
    let (plain, is_whole) = match value.strip_suffix('*') {
        Some(prefix) => (prefix, false),
        None => (value, true),
    };
    if plain.contains('*') {
        return None;
    }
    let parts: Vec<&str> = plain.split('/').collect();
    if !has_form(&parts, is_whole) {
        let message = format!("{value:?} never matches: an identity is TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT");
        let guess = guessed(survey, &parts, is_whole);
        return Some(Finding::of(catalogue::PRINCIPAL_FORM, &policy.meta, field, message).fix(guess));
    }
    trust_domain(survey, policy, field, &parts, value).or_else(|| {
        let [_, _, namespace, _, account] = parts.as_slice() else { return None };
        is_whole.then(|| unknown_account(survey, policy, field, (value, namespace, account))).flatten()
    })
}

fn has_form(parts: &[&str], is_whole: bool) -> bool {
    let words = [None, Some("ns"), None, Some("sa"), None];
    let fits = parts.iter().zip(words).enumerate().all(|(index, (part, word))| match word {
        _ if !is_whole && index + 1 == parts.len() => word.is_none_or(|word| word.starts_with(part)),
        Some(word) => *part == word,
        None => !part.is_empty(),
    });
    fits && parts.len() <= words.len() && (!is_whole || parts.len() == words.len())
}

/// What `shop/web` and the like were meant to be.
fn guessed(survey: &Survey<'_>, parts: &[&str], is_whole: bool) -> String {
    let domain = &survey.model.mesh.trust_domain;
    match parts {
        [namespace, account] if is_whole && !namespace.is_empty() && !account.is_empty() => {
            format!("\"{domain}/ns/{namespace}/sa/{account}\"")
        }
        ["ns", namespace, "sa", account] => format!("\"{domain}/ns/{namespace}/sa/{account}\""),
        _ => String::new(),
    }
}

fn trust_domain(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    field: &str,
    parts: &[&str],
    value: &str,
) -> Option<Finding> {
    let mesh = survey.model.mesh;
    let [domain, _, ..] = parts else { return None };
    let known: Vec<&str> = std::iter::once(mesh.trust_domain.as_str())
        .chain(mesh.trust_domain_aliases.iter().map(|alias| alias.as_str()))
        .chain(["cluster.local"])
        .collect();
    if known.contains(domain) {
        return None;
    }
    let severity = match survey.knows_mesh_config() {
        true => Severity::Warning,
        false => Severity::Info,
    };
    let message = format!(
        "{value:?} is of trust domain {domain}; the mesh's is {}, and {domain} is none of its aliases",
        mesh.trust_domain
    );
    let fix = format!("\"{}/{}\"", mesh.trust_domain, parts[1..].join("/"));
    Some(
        Finding::of(catalogue::FOREIGN_TRUST_DOMAIN, &policy.meta, field, message)
            .severity(severity)
            .fix(if value.ends_with('*') { String::new() } else { fix }),
    )
}

fn unknown_account(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    field: &str,
    (value, namespace, account): (&str, &str, &str),
) -> Option<Finding> {
    if *namespace == *survey.model.mesh.root_namespace.as_str() {
        // Accounts of gateways and of the control plane itself are rarely among the files.
        return None;
    }
    if survey.lacks_namespace(namespace) {
        let message = format!("{value:?} never matches: there is no namespace {namespace}");
        return Some(Finding::of(catalogue::UNKNOWN_ACCOUNT, &policy.meta, field, message));
    }
    let known = survey.accounts_of(namespace)?;
    if known.contains(account) {
        return None;
    }
    let names: Vec<&str> = known.iter().copied().collect();
    let near = nearest(account, &names);
    let message = match near {
        Some(near) => format!(
            "{value:?} never matches: nothing in namespace {namespace} has the service account {account:?}; did you mean {near:?}?"
        ),
        None => format!(
            "{value:?} never matches: nothing in namespace {namespace} has the service account {account:?}; known are {}",
            names.iter().take(5).copied().collect::<Vec<_>>().join(", ")
        ),
    };
    let fix =
        near.map(|near| format!("\"{}{near}\"", &value[..value.len() - account.len()])).unwrap_or_default();
    Some(Finding::of(catalogue::UNKNOWN_ACCOUNT, &policy.meta, field, message).fix(fix))
}

fn namespace(survey: &Survey<'_>, policy: &AuthorizationPolicy, field: &str, value: &str) -> Option<Finding> {
    survey.lacks_namespace(value).then(|| {
        let message = format!("Referenced namespace not found: {value:?}");
        Finding::of(catalogue::REFERENCE, &policy.meta, field, message)
            .hint("Correct the name; a namespace that does not exist is never that of a caller.")
    })
}

fn account(survey: &Survey<'_>, policy: &AuthorizationPolicy, field: &str, value: &str) -> Option<Finding> {
    let own = &policy.meta.object.namespace;
    let Some((namespace, account)) = value.split_once('/') else {
        if *own == survey.model.mesh.root_namespace {
            let message = format!(
                "{value:?} means {own}/{value}, an account of the policy's own namespace, wherever the workload is"
            );
            return Some(
                Finding::of(catalogue::BARE_ACCOUNT, &policy.meta, field, message)
                    .fix(format!("\"NAMESPACE/{value}\"")),
            );
        }
        return unknown_account(survey, policy, field, (value, own.as_str(), value));
    };
    unknown_account(survey, policy, field, (value, namespace, account))
}

/// `remoteIpBlocks` is what a caller writes into a header, unless the workload is a gateway.
fn remote_addresses(policy: &AuthorizationPolicy, path: &str, source: &Source, findings: &mut Vec<Finding>) {
    let is_gateway = !policy.targets.is_empty()
        || policy.selector.match_labels.iter().any(|(key, value)| {
            key == crate::select::GATEWAY_NAME_LABEL || value.contains("gateway") || value.contains("ingress")
        });
    if is_gateway {
        return;
    }
    let lists =
        [("remoteIpBlocks", &source.remote_ip_blocks), ("notRemoteIpBlocks", &source.not_remote_ip_blocks)];
    for (list, values) in lists {
        if !values.is_empty() {
            let message =
                "At a sidecar this is the last entry of X-Forwarded-For, which any caller can write"
                    .to_owned();
            findings.push(Finding::of(catalogue::REMOTE_IP, &policy.meta, format!("{path}.{list}"), message));
        }
    }
}

/// `principals` of one namespace together with `namespaces` of others.
fn opposed_namespaces(policy: &AuthorizationPolicy, path: &str, source: &Source) -> Option<Finding> {
    let of = |principal: &String| {
        let parts: Vec<String> = principal.split('/').map(str::to_owned).collect();
        match parts.as_slice() {
            [domain, _, namespace, ..] if !domain.contains('*') && !namespace.contains('*') => {
                Some(namespace.clone())
            }
            _ => None,
        }
    };
    if source.principals.is_empty() || source.namespaces.is_empty() {
        return None;
    }
    let is_opposed = source.principals.iter().all(|principal| {
        of(principal)
            .is_some_and(|namespace| !source.namespaces.iter().any(|glob| cover::glob(glob, &namespace)))
    });
    is_opposed.then(|| {
        let message = "Never matches: fields of one source are ANDed, and none of the principals is of these namespaces";
        Finding::of(catalogue::CONTRADICTION, &policy.meta, format!("{path}.namespaces"), message)
            .hint("Put principals and namespaces into two sources to mean either.")
    })
}

/// An ALLOW source that holds for callers without identity.
fn anonymous(
    policy: &AuthorizationPolicy,
    path: &str,
    source: &Source,
    accepted: Acceptance,
) -> Option<Finding> {
    let positive = [
        &source.principals,
        &source.namespaces,
        &source.service_accounts,
        &source.trust_domains,
        &source.request_principals,
        &source.ip_blocks,
        &source.remote_ip_blocks,
    ];
    let peer = [
        &source.not_principals,
        &source.not_namespaces,
        &source.not_service_accounts,
        &source.not_trust_domains,
    ];
    let excludes_peers = peer.iter().any(|list| !list.is_empty());
    let excludes_users = !source.not_request_principals.is_empty();
    if policy.action != Action::Allow || positive.iter().any(|list| !list.is_empty()) {
        return None;
    }
    let (message, fix) = if excludes_users {
        (
            "Also holds for requests without any token: what has no principal is none of those excluded",
            "requestPrincipals: [\"*\"]",
        )
    } else if excludes_peers && accepted.plaintext {
        (
            "Also holds for callers without any identity: the workload accepts plaintext, and what has no identity is none of those excluded",
            "principals: [\"*\"]",
        )
    } else {
        return None;
    };
    Some(Finding::of(catalogue::ANONYMOUS, &policy.meta, path, message).fix(fix))
}

/// Rules about identities where there may be none.
fn transport(
    policy: &AuthorizationPolicy,
    index: usize,
    rule: &Rule,
    accepted: Acceptance,
) -> Option<Finding> {
    let names_peer = |source: &Source| {
        [&source.principals, &source.namespaces, &source.service_accounts, &source.trust_domains]
            .iter()
            .any(|list| !list.is_empty())
    };
    let is_peer_key = |key: &str| {
        ["source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"].contains(&key)
    };
    let needs_identity = !rule.from.is_empty() && rule.from.iter().all(names_peer)
        || rule.when.iter().any(|condition| is_peer_key(&condition.key) && !condition.values.is_empty());
    if !needs_identity {
        return None;
    }
    let field = format!("spec.rules[{index}].{}", if rule.from.is_empty() { "when" } else { "from" });
    if accepted.no_mutual_tls {
        let message =
            "Never matches: mutual TLS is disabled at the workload, so that no caller has an identity";
        return Some(Finding::of(catalogue::NO_IDENTITY, &policy.meta, field, message));
    }
    if policy.action != Action::Deny || !accepted.plaintext {
        return None;
    }
    let severity = match accepted.is_stated {
        true => Severity::Warning,
        false => Severity::Info,
    };
    let message = "The workload accepts plaintext: a caller that is denied here by its identity gets in by sending plaintext, without one";
    Some(Finding::of(catalogue::PLAINTEXT_BYPASS, &policy.meta, field, message).severity(severity))
}
