//! PeerAuthentications and RequestAuthentications without effect, or with another than meant.

use std::collections::BTreeMap;

use mesh_api::model::{MtlsMode, PeerAuthentication, RequestAuthentication};
use mesh_api::problem::{Problem, Severity};

use super::authorization::{requires_token, target_refs, unselected};
use super::catalogue;
use super::document::Document;
use super::finding::Finding;
use super::survey::{Survey, selects_all_of, written};
use crate::select::GATEWAY_NAME_LABEL;

/// The label or annotation that marks a namespace in which nothing may be plaintext.
const REGULATED: &str = "mini-mesh.io/regulated";

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    findings.extend(conflicts(survey));
    for policy in survey.model.peer {
        check_peer(survey, policy, findings);
    }
    for policy in survey.model.request {
        check_request(survey, policy, findings);
    }
    for namespace in survey.documents("", "Namespace").filter(|document| is_regulated(document)) {
        regulated(survey, namespace, findings);
    }
}

/// Policies that lose against an older one of their level. The same policy loses for many workloads and is
/// reported once for each winner. Levels of namespaces are looked at with and without workloads.
fn conflicts(survey: &Survey<'_>) -> Vec<Finding> {
    let mut found: BTreeMap<_, Problem> = BTreeMap::new();
    let mut keep = |conflicts: Vec<Problem>| {
        for conflict in conflicts {
            found.entry((conflict.object.clone(), conflict.message.clone())).or_insert(conflict);
        }
    };
    for position in 0..survey.workloads.len() {
        keep(survey.modes(position).conflicts.clone());
    }
    let mut seen = std::collections::BTreeSet::new();
    for policy in survey.model.peer {
        if seen.insert((&policy.meta.object.namespace, &policy.selector.match_labels)) {
            keep(
                survey
                    .modes_of_labels(&policy.meta.object.namespace, &policy.selector.match_labels)
                    .conflicts,
            );
        }
    }
    let finding = |conflict: Problem| {
        let object = conflict.object?;
        let policy = survey.model.peer.iter().find(|policy| policy.meta.object == object)?;
        let message = format!("{}{}", conflict.message[..1].to_uppercase(), &conflict.message[1..]);
        Some(Finding::of(catalogue::OLDER_WINS, &policy.meta, "metadata.name", message).hint(conflict.hint))
    };
    found.into_values().filter_map(finding).collect()
}

fn check_peer(survey: &Survey<'_>, policy: &PeerAuthentication, findings: &mut Vec<Finding>) {
    let namespace = &policy.meta.object.namespace;
    if !policy.selector.is_empty() && *namespace == survey.model.mesh.root_namespace {
        let message = "A policy with a selector in the root namespace has no effect anywhere";
        findings.push(Finding::of(catalogue::ROOT_SELECTOR, &policy.meta, "spec.selector", message));
        return;
    }
    if policy.mode.is_none() && policy.port_level.values().all(Option::is_none) {
        let message = "The policy has no impact: it states no mode, and everything is inherited";
        let finding = Finding::of(catalogue::INEFFECTIVE_POLICY, &policy.meta, "spec", message)
            .severity(Severity::Info);
        findings.push(
            finding.hint(
                "State mtls.mode, or remove it; it still keeps a younger one of its level from counting.",
            ),
        );
    }
    let scope = survey.scope(namespace, &policy.selector);
    if scope.members.is_empty() {
        findings.extend(unselected(survey, &policy.meta, &policy.selector, "spec.selector"));
    }
    let service_port = |port: &u16| {
        let behind = scope.by_service_port.get(port).copied();
        behind.or_else(|| target_by_selector(survey, policy, *port)).filter(|_| !scope.targets.contains(port))
    };
    for port in policy.port_level.keys() {
        if let Some(target) = service_port(port) {
            let message = format!(
                "Port {port} is that of a Service; the workload listens on {target}, so that this has no effect"
            );
            let field = format!("spec.portLevelMtls[{port}]");
            findings.push(
                Finding::of(catalogue::PORT_LEVEL_SERVICE_PORT, &policy.meta, field, message)
                    .fix(format!("{target}:")),
            );
        }
    }
}

/// The target of a service port, by the services with the policy's selector; for when no workload is known.
fn target_by_selector(survey: &Survey<'_>, policy: &PeerAuthentication, port: u16) -> Option<u16> {
    let services = survey.services_of(policy.meta.object.namespace.as_str()).iter().filter(|service| {
        service.selector.as_ref().is_some_and(|selector| {
            !selector.is_empty() && selects_all_of(&selector.match_labels, &policy.selector.match_labels)
        })
    });
    let ports: Vec<_> =
        services.flat_map(|service| &service.ports).filter(|it| it.target_port_name.is_none()).collect();
    let is_target = ports.iter().any(|it| it.target_port == port);
    ports.iter().find(|it| it.port == port && !is_target).map(|it| it.target_port)
}

fn is_regulated(namespace: &Document) -> bool {
    [&namespace.labels, &namespace.annotations]
        .iter()
        .any(|map| map.get(REGULATED).is_some_and(|value| value == "true"))
}

/// Whatever accepts plaintext in a namespace where nothing may.
fn regulated(survey: &Survey<'_>, document: &Document, findings: &mut Vec<Finding>) {
    let Ok(namespace) = mesh_api::name::Namespace::parse(&document.subject.name) else { return };
    let strict = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: {namespace}}}\nspec:\n  mtls: {{mode: STRICT}}"
    );
    let resolution = survey.modes_of_labels(&namespace, &mesh_api::name::Labels::new());
    if resolution.mode != MtlsMode::Strict {
        let setter = resolution
            .used
            .last()
            .and_then(|object| survey.model.peer.iter().find(|it| it.meta.object == *object));
        let message = format!(
            "Namespace {namespace} is regulated, and its workloads accept plaintext: the mode is {}",
            resolution.mode.as_str()
        );
        findings.push(
            match setter {
                Some(policy) => Finding::of(catalogue::REGULATED, &policy.meta, "spec.mtls.mode", message),
                None => document.finding(
                    catalogue::REGULATED,
                    "metadata",
                    format!("{message}, because no PeerAuthentication says anything"),
                ),
            }
            .fix(strict.clone()),
        );
    }
    for policy in
        survey.model.peer.iter().filter(|it| it.meta.object.namespace == namespace && !it.selector.is_empty())
    {
        let mode = policy.mode.filter(|mode| *mode != MtlsMode::Strict);
        if let Some(mode) = mode {
            let message = format!(
                "Namespace {namespace} is regulated, and this lets workloads accept plaintext: the mode is {}",
                mode.as_str()
            );
            findings.push(
                Finding::of(catalogue::REGULATED, &policy.meta, "spec.mtls.mode", message)
                    .fix("mtls: {mode: STRICT}"),
            );
        }
        for (port, mode) in &policy.port_level {
            if let Some(mode) = mode.filter(|mode| *mode != MtlsMode::Strict) {
                let message = format!(
                    "Namespace {namespace} is regulated, and port {port} accepts plaintext: the mode is {}",
                    mode.as_str()
                );
                let field = format!("spec.portLevelMtls[{port}].mode");
                findings.push(
                    Finding::of(catalogue::REGULATED, &policy.meta, field, message)
                        .fix(format!("{port}: {{mode: STRICT}}")),
                );
            }
        }
    }
}

fn check_request(survey: &Survey<'_>, policy: &RequestAuthentication, findings: &mut Vec<Finding>) {
    let scope = survey.concerned(&policy.meta, &policy.selector, &policy.targets);
    if scope.members.is_empty() && policy.targets.is_empty() {
        findings.extend(unselected(survey, &policy.meta, &policy.selector, "spec.selector"));
    }
    if let Some(name) =
        policy.selector.match_labels.get(GATEWAY_NAME_LABEL).filter(|_| policy.targets.is_empty())
    {
        let labels = written(&policy.selector.match_labels);
        let message =
            format!("The selector ({labels}) picks pods of a Kubernetes Gateway, where targetRefs are meant");
        findings.push(
            Finding::of(catalogue::INEFFECTIVE_SELECTOR, &policy.meta, "spec.selector", message)
                .fix(target_refs(name)),
        );
    }
    for (index, rule) in policy.jwt_rules.iter().enumerate() {
        if rule.jwks_uri.starts_with("http://") {
            let message = format!(
                "Keys come over plaintext from {:?}: whoever is on the way can sign any token",
                rule.jwks_uri
            );
            let field = format!("spec.jwtRules[{index}].jwksUri");
            let fix = format!("jwksUri: https://{}", rule.jwks_uri.trim_start_matches("http://"));
            findings.push(Finding::of(catalogue::JWKS_PLAINTEXT, &policy.meta, field, message).fix(fix));
        }
        if rule.audiences.is_empty() {
            let message = format!(
                "Any token of {:?} is accepted, also one that was issued for another service",
                if rule.issuer.is_empty() { "any issuer" } else { rule.issuer.as_str() }
            );
            let field = format!("spec.jwtRules[{index}]");
            findings.push(
                Finding::of(catalogue::NO_AUDIENCE, &policy.meta, field, message)
                    .fix("audiences: [AUDIENCE]"),
            );
        }
    }
    if policy.jwt_rules.is_empty() {
        let message = "The policy has no impact: it has no jwtRules, and no token is verified";
        let finding = Finding::of(catalogue::INEFFECTIVE_POLICY, &policy.meta, "spec", message)
            .severity(Severity::Info);
        findings.push(finding.hint("State jwtRules, or remove it."));
    } else {
        findings.extend(not_required(survey, policy, &scope.members));
    }
}

/// No policy demands a token where it is verified (TRAP 35).
fn not_required(survey: &Survey<'_>, policy: &RequestAuthentication, members: &[usize]) -> Option<Finding> {
    let own = &policy.meta.object.namespace;
    let root = &survey.model.mesh.root_namespace;
    let at = if members.is_empty() {
        // Without workloads to ask: any policy that may be for the same ones will do.
        let is_required = survey.model.authorization.iter().any(|it| {
            let labels = (&it.selector.match_labels, &policy.selector.match_labels);
            let of = &it.meta.object.namespace;
            let meets = selects_all_of(labels.0, labels.1)
                || selects_all_of(labels.1, labels.0)
                || !it.targets.is_empty();
            it.is_enforced() && requires_token(it) && (of == own || of == root || own == root) && meets
        });
        (!is_required).then(|| "its workloads".to_owned())?
    } else {
        let flags = survey.flags();
        // For the whole mesh or a namespace, one workload that demands a token shows that the author knows.
        let mut without = members.iter().filter(|position| !flags[**position].requires_token);
        let first = without.next()?;
        if policy.selector.is_empty() && without.count() + 1 < members.len() {
            return None;
        }
        survey.workloads[*first].named.to_string()
    };
    let message =
        format!("Refuses bad tokens only: no policy demands a token of {at}, and requests without any pass");
    let selector = match policy.selector.is_empty() {
        true => String::new(),
        false => {
            let pairs: Vec<String> =
                policy.selector.match_labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("  selector: {{matchLabels: {{{}}}}}\n", pairs.join(", "))
        }
    };
    let fix = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: require-token, namespace: {own}}}\nspec:\n{selector}  action: DENY\n  rules:\n  - from: [{{source: {{notRequestPrincipals: [\"*\"]}}}}]"
    );
    Some(Finding::of(catalogue::TOKEN_NOT_REQUIRED, &policy.meta, "spec.jwtRules", message).fix(fix))
}
