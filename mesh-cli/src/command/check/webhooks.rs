//! Injection and validation: registered, failing closed, trusting the authority, and working end to end.
//!
//! The last is tried with objects that are created as dry runs: the API server asks the webhooks, and stores nothing.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use mesh_kube::name;
use serde_json::{Value, json};

use super::catalogue::{WEBHOOK_INJECTS, WEBHOOK_POLICY, WEBHOOK_TRUST, WEBHOOK_VALIDATES, WEBHOOKS};
use super::identity::{normal, roots};
use super::report::{Mark, Report};
use super::serving;
use crate::cluster::pod::PodView;
use crate::cluster::{Cluster, ClusterError, Question};
use crate::command::mesh::Mesh;
use crate::output;

/// Namespace in which pods are tried.
const TRIED_IN: &str = "default";
/// Label of an injector's configuration: the name by which pods ask for it, where that is not its revision.
const LABEL_TAG: &str = "istio.io/tag";

/// Makes the checks.
pub(super) async fn look(mesh: &Mesh, cluster: &Cluster, report: &mut Report) {
    let ours = ListParams::default().labels(&format!("{}={}", name::LABEL_PART_OF, name::PART_OF));
    let injectors = match cluster.list_global::<MutatingWebhookConfiguration>(&ours).await {
        Ok(found) => found,
        Err(error) => return report.unanswered(WEBHOOKS, &error),
    };
    let validators = match cluster.list_global::<ValidatingWebhookConfiguration>(&ours).await {
        Ok(found) => found,
        Err(error) => return report.unanswered(WEBHOOKS, &error),
    };
    let mut missing = Vec::new();
    if injectors.is_empty() {
        missing.push(format!("there is no MutatingWebhookConfiguration {}", name::INJECTOR));
    }
    if validators.is_empty() {
        missing.push(format!("there is no ValidatingWebhookConfiguration {}", name::VALIDATOR));
    }
    let is_registered = missing.is_empty();
    report.judge(WEBHOOKS, Mark::Bad, missing);
    if !is_registered {
        return;
    }
    let open = injectors.iter().flat_map(|one| one.webhooks.iter().flatten());
    // Pods of namespaces that say nothing start whether or not anybody answers.
    let open = open.filter(|webhook| {
        webhook.failure_policy.as_deref() == Some("Ignore") && webhook.name != name::INJECTOR_UNLABELLED
    });
    report.judge(WEBHOOK_POLICY, Mark::Doubtful, open.map(|webhook| webhook.name.clone()).collect());
    trust(mesh, &injectors, &validators, report).await;
    serving::look(mesh, cluster, report).await;
    injects(cluster, &injectors, report).await;
    validates(cluster, report).await;
}

async fn trust(
    mesh: &Mesh,
    injectors: &[MutatingWebhookConfiguration],
    validators: &[ValidatingWebhookConfiguration],
    report: &mut Report,
) {
    let anchors: Vec<String> = match mesh.ca().await {
        Ok(ca) => roots(&ca).iter().map(|root| normal(&root.pem)).collect(),
        Err(error) => return report.unanswered(WEBHOOK_TRUST, &error),
    };
    let mutating = injectors.iter().flat_map(|one| one.webhooks.iter().flatten());
    let validating = validators.iter().flat_map(|one| one.webhooks.iter().flatten());
    let clients = mutating
        .map(|webhook| (&webhook.name, &webhook.client_config))
        .chain(validating.map(|webhook| (&webhook.name, &webhook.client_config)));
    let strangers =
        clients.filter_map(|(name, client)| distrust(client, &anchors).map(|why| format!("{name}: {why}")));
    report.judge(WEBHOOK_TRUST, Mark::Bad, strangers.collect());
}

fn distrust(client: &WebhookClientConfig, anchors: &[String]) -> Option<String> {
    let Some(bundle) = &client.ca_bundle else { return Some("it has no caBundle yet".to_owned()) };
    let bundle = normal(&String::from_utf8_lossy(&bundle.0));
    let is_there = anchors.iter().any(|anchor| bundle.contains(anchor.as_str()));
    (!is_there).then(|| "its caBundle does not hold the authority's root".to_owned())
}

/// The label by which a pod asks one of these injectors.
fn asking(injectors: &[MutatingWebhookConfiguration]) -> (String, String) {
    let is_nameless =
        |one: &&MutatingWebhookConfiguration| one.metadata.name.as_deref() == Some(name::INJECTOR);
    if injectors.iter().find(is_nameless).is_some() {
        return (name::SIDECAR_INJECT.to_owned(), "true".to_owned());
    }
    let labels = injectors.first().and_then(|one| one.metadata.labels.clone()).unwrap_or_default();
    let called = labels.get(LABEL_TAG).or_else(|| labels.get(name::LABEL_REVISION));
    (name::LABEL_REVISION.to_owned(), called.cloned().unwrap_or_else(|| name::DEFAULT_REVISION.to_owned()))
}

async fn injects(cluster: &Cluster, injectors: &[MutatingWebhookConfiguration], report: &mut Report) {
    let (label, value) = asking(injectors);
    let pod: Result<Pod, _> = serde_json::from_value(json!({
        "metadata": {"generateName": "mini-mesh-check-", "labels": {label: value}},
        "spec": {"containers": [{
            "name": "check",
            "image": "mini-mesh.invalid/check:1",
            // What the strictest Pod Security asks for, so that nothing but the injector judges.
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }]},
    }));
    let pod = match pod {
        Ok(pod) => pod,
        Err(error) => return report.unanswered(WEBHOOK_INJECTS, &error),
    };
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), TRIED_IN);
    let question = Question { verb: "create", resource: "pods", namespace: Some(TRIED_IN), name: None };
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match cluster.call(question, api.create(&params, &pod)).await {
        Ok(created) if PodView::of(&created).has_proxy => report.good(WEBHOOK_INJECTS),
        Ok(_) => report.bad(
            WEBHOOK_INJECTS,
            vec![format!("a pod in namespace {TRIED_IN} that asks for a proxy was given none")],
        ),
        Err(error @ ClusterError::Forbidden { .. }) => report.unanswered(WEBHOOK_INJECTS, &error),
        Err(error) => report.bad(WEBHOOK_INJECTS, vec![output::chain(&error)]),
    }
}

async fn validates(cluster: &Cluster, report: &mut Report) {
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy"),
        "authorizationpolicies",
    );
    // The schema takes any text as an address block, and only the validator knows that this is none.
    let policy: Result<DynamicObject, _> = serde_json::from_value::<DynamicObject>(impossible());
    let policy = match policy {
        Ok(policy) => policy,
        Err(error) => return report.unanswered(WEBHOOK_VALIDATES, &error),
    };
    let namespace = TRIED_IN;
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
    let question = Question {
        verb: "create",
        resource: "authorizationpolicies.security.istio.io",
        namespace: Some(namespace),
        name: None,
    };
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match cluster.call(question, api.create(&params, &policy)).await {
        Ok(_) => report.bad(WEBHOOK_VALIDATES, vec!["a policy that cannot be valid was taken".to_owned()]),
        Err(ClusterError::Refused { message, .. }) if is_verdict(&message) => report.good(WEBHOOK_VALIDATES),
        Err(ClusterError::Refused { message, .. }) if message.contains("failed calling webhook") => {
            report.bad(WEBHOOK_VALIDATES, vec![message]);
        }
        Err(error) => report.unanswered(WEBHOOK_VALIDATES, &error),
    }
}

fn impossible() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"generateName": "mini-mesh-check-"},
        "spec": {"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": ["no address"]}}]}]},
    })
}

/// Whether these are words of our validator, and not of a schema or of another webhook.
fn is_verdict(message: &str) -> bool {
    message.contains("admission webhook") && message.contains("mini-mesh.io") && message.contains("denied")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use mesh_api::manifest::{self, LowerContext};

    use super::*;

    #[test]
    fn the_policy_that_is_tried_is_one_that_the_validator_refuses() {
        let mut policy = impossible();
        policy["metadata"] = json!({"name": "a", "namespace": "default"});
        let parsed = manifest::parse("x", &policy.to_string(), &LowerContext::default());
        assert!(parsed.documents.iter().all(|document| document.outcome.is_err()));
    }

    #[test]
    fn only_the_validators_own_words_prove_it() {
        assert!(is_verdict("admission webhook \"validator.mini-mesh.io\" denied the request: spec.rules[0]"));
        assert!(!is_verdict("admission webhook \"validate.kyverno.svc\" denied the request: no"));
        assert!(!is_verdict("failed calling webhook \"validator.mini-mesh.io\": connection refused"));
    }

    #[test]
    fn a_webhook_has_to_hold_the_present_root() {
        let client = |bundle: Option<&str>| WebhookClientConfig {
            ca_bundle: bundle.map(|text| ByteString(text.as_bytes().to_vec())),
            ..WebhookClientConfig::default()
        };
        let anchors = ["ab".to_owned()];
        assert_eq!(distrust(&client(Some("x a\nb\n")), &anchors), None);
        assert!(distrust(&client(Some("other")), &anchors).is_some());
        assert!(distrust(&client(None), &anchors).is_some());
    }

    #[test]
    fn a_revision_without_the_default_name_is_asked_by_its_own() {
        let injector = |name: &str, labels: Value| -> MutatingWebhookConfiguration {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))
                .expect("a configuration")
        };
        let named = injector("mini-mesh-injector-canary", json!({"istio.io/rev": "canary"}));
        assert_eq!(asking(std::slice::from_ref(&named)), ("istio.io/rev".to_owned(), "canary".to_owned()));
        let nameless = injector("mini-mesh-injector", json!({}));
        assert_eq!(asking(&[named, nameless]).0, "sidecar.istio.io/inject");
    }
}
