//! AuthorizationPolicies that mean something else than they seem to.

mod entries;
mod identity;
mod reach;
mod shadow;
mod values;

use mesh_api::model::AuthorizationPolicy;

use super::catalogue;
use super::finding::Finding;
use super::survey::{Survey, selects_all_of, written};
use crate::select::GATEWAY_NAME_LABEL;

pub(super) use reach::{Flags, requires_token, workload_flags};

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    for policy in survey.model.authorization {
        let scope = survey.concerned(&policy.meta, &policy.selector, &policy.targets);
        if scope.members.is_empty() {
            without_effect(survey, policy, findings);
        }
        let gateway_label = policy.selector.match_labels.contains_key(GATEWAY_NAME_LABEL);
        if gateway_label && policy.targets.is_empty() {
            findings.push(gateway_selector(policy));
        }
        findings.extend(unknown_authorizer(survey, policy));
        entries::check(policy, findings);
        values::check(survey, policy, findings);
        identity::check(survey, policy, &scope, findings);
        reach::check(survey, policy, &scope, findings);
    }
    entries::check_exceptions(survey.model.authorization, &survey.model.mesh.root_namespace, findings);
    normalization(survey, findings);
    shadow::check(survey, findings);
    reach::check_locked_out(survey, findings);
}

/// Policies on paths where paths stay as they came.
fn normalization(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let tests_path = |rule: &mesh_api::model::Rule| {
        rule.to.iter().any(|operation| !operation.paths.is_empty() || !operation.not_paths.is_empty())
    };
    let mut testing = survey.model.authorization.iter().filter(|policy| policy.rules.iter().any(tests_path));
    if survey.model.mesh.path_normalization != mesh_api::model::PathNormalization::None {
        return;
    }
    let settings = survey.documents("mini-mesh.io", "MeshConfig").next();
    if let (Some(settings), Some(policy)) = (settings, testing.next()) {
        let message = format!(
            "Paths are judged as they came, and {} tests them: /./x, //x and %78 get round it",
            policy.meta.object
        );
        findings.push(
            settings
                .finding(catalogue::NOT_NORMALIZED, "spec.pathNormalization.normalization", message)
                .fix("normalization: BASE"),
        );
    }
}

/// A CUSTOM policy whose authorizer the settings of the mesh do not know. Where no settings were given, nothing is
/// known of its absence.
fn unknown_authorizer(survey: &Survey<'_>, policy: &AuthorizationPolicy) -> Option<Finding> {
    let provider = policy.provider.as_deref()?;
    survey.documents("mini-mesh.io", "MeshConfig").next()?;
    if survey.model.mesh.authorizer(provider).is_some() {
        return None;
    }
    let message = format!(
        "No external authorizer {provider:?} is among the extensionProviders of MeshConfig: what the policy matches is denied"
    );
    Some(Finding::of(catalogue::UNKNOWN_AUTHORIZER, &policy.meta, "spec.provider.name", message))
}

fn gateway_selector(policy: &AuthorizationPolicy) -> Finding {
    let labels = written(&policy.selector.match_labels);
    let message =
        format!("The selector ({labels}) picks pods of a Kubernetes Gateway, where targetRefs are meant");
    let name = policy.selector.match_labels.get(GATEWAY_NAME_LABEL).map_or("", String::as_str);
    Finding::of(catalogue::INEFFECTIVE_SELECTOR, &policy.meta, "spec.selector", message)
        .fix(target_refs(name))
}

/// The reference that binds a policy to a Kubernetes Gateway.
pub(super) fn target_refs(gateway: &str) -> String {
    format!(
        "spec:\n  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: {gateway}"
    )
}

/// The policy concerns nobody.
fn without_effect(survey: &Survey<'_>, policy: &AuthorizationPolicy, findings: &mut Vec<Finding>) {
    let namespace = policy.meta.object.namespace.as_str();
    if let Some(finding) = unbound_target(survey, policy) {
        findings.push(finding);
    } else if policy.targets.is_empty() {
        findings.extend(no_workload(survey, policy, "spec.selector"));
        let is_wide =
            policy.selector.is_empty() && policy.meta.object.namespace != survey.model.mesh.root_namespace;
        if is_wide && survey.knows_workloads() {
            let message = format!(
                "No matching workloads for this resource: namespace {namespace} has none, and the policy protects nothing"
            );
            findings.push(
                Finding::of(catalogue::NO_WORKLOAD, &policy.meta, "metadata.namespace", message)
                    .hint("A policy protects the workloads of its own namespace only; put it into theirs."),
            );
        }
    }
}

fn unbound_target(survey: &Survey<'_>, policy: &AuthorizationPolicy) -> Option<Finding> {
    let first = policy.targets.first()?;
    let namespace = &policy.meta.object.namespace;
    let is_gateway = |name: &str| {
        let mut gateways = survey.documents("gateway.networking.k8s.io", "Gateway");
        gateways.any(|it| it.subject.name == name && it.subject.namespace == namespace.as_str())
    };
    let gateways: Vec<_> = policy.targets.iter().filter(|target| target.kind == "Gateway").collect();
    let message = if gateways.is_empty() {
        format!(
            "A reference to a {} binds at a waypoint only, and there is none: nobody applies the policy",
            first.kind
        )
    } else if survey.knows_workloads() && !gateways.iter().any(|target| is_gateway(&target.name)) {
        format!(
            "Nothing serves the Gateway {:?} of namespace {namespace}: nobody applies the policy",
            gateways[0].name
        )
    } else {
        return None;
    };
    Some(
        Finding::of(catalogue::TARGET_REFS, &policy.meta, "spec.targetRefs", message).hint(
            "Use a selector to protect workloads; a sidecar ignores a policy with targetRefs altogether.",
        ),
    )
}

/// A policy whose selector picks no workload, as far as that can be told.
pub(super) fn no_workload(survey: &Survey<'_>, policy: &AuthorizationPolicy, field: &str) -> Option<Finding> {
    unselected(survey, &policy.meta, &policy.selector, field)
}

/// As [`no_workload`], for any kind with a selector.
pub(super) fn unselected(
    survey: &Survey<'_>,
    meta: &mesh_api::model::ObjectMeta,
    selector: &mesh_api::model::Selector,
    field: &str,
) -> Option<Finding> {
    if selector.is_empty() || !is_certain(survey, meta, selector) {
        return None;
    }
    let namespace = &meta.object.namespace;
    let message = format!(
        "No matching workloads for this resource with the following labels: {}",
        written(&selector.match_labels)
    );
    let elsewhere = survey.workloads.iter().find(|surveyed| selector.selects(&surveyed.workload.labels));
    // Labels of a Deployment are not those of its pods.
    let mistaken = survey.model.documents.iter().find(|document| {
        document.subject.namespace == namespace.as_str()
            && document.pod().is_some_and(|(path, _)| !path.is_empty())
            && selects_all_of(&selector.match_labels, &document.labels)
    });
    let hint = match (mistaken, elsewhere) {
        (Some(document), _) => format!(
            "{} has these labels itself; policies select the labels of its pods, spec.template.metadata.labels.",
            document.subject
        ),
        (None, Some(found)) => format!(
            "{} has these labels; the policy must be in its namespace, {}.",
            found.named, found.named.namespace
        ),
        (None, None) => format!("Compare the labels with those of the workloads of namespace {namespace}."),
    };
    Some(Finding::of(catalogue::NO_WORKLOAD, meta, field, message).hint(hint))
}

/// Whether "no workload" is an answer: workloads are known, or every service of the namespace is in front of
/// others.
fn is_certain(
    survey: &Survey<'_>,
    meta: &mesh_api::model::ObjectMeta,
    selector: &mesh_api::model::Selector,
) -> bool {
    if survey.knows_workloads() {
        return true;
    }
    let services = survey.services_of(meta.object.namespace.as_str());
    let selectors: Vec<_> = services.iter().filter_map(|service| service.selector.as_ref()).collect();
    let contradicts = |other: &&mesh_api::model::Selector| {
        selector
            .match_labels
            .iter()
            .any(|(key, value)| other.match_labels.get(key).is_some_and(|it| it != value))
            && !selects_all_of(&selector.match_labels, &other.match_labels)
    };
    !selectors.is_empty() && selectors.iter().all(contradicts)
}
