//! Before an installation: rights, and what is there already.

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, PostParams};
use mesh_kube::name;

use super::catalogue::{INSTALL_CRDS, INSTALL_NAMESPACE, INSTALL_RIGHTS, INSTALL_WEBHOOKS};
use super::report::{Mark, Report};
use crate::cluster::{Cluster, ClusterError, Question};
use crate::command::mesh::ASKED_AT_ONCE;

/// Verbs of server-side apply, and of the look before it.
const VERBS: [&str; 3] = ["get", "create", "patch"];
/// What an installation applies: group, resource, and whether it is in the control plane's namespace.
const RESOURCES: [(&str, &str, Place); 14] = [
    ("", "namespaces", Place::Cluster),
    ("apiextensions.k8s.io", "customresourcedefinitions", Place::Cluster),
    ("rbac.authorization.k8s.io", "clusterroles", Place::Cluster),
    ("rbac.authorization.k8s.io", "clusterrolebindings", Place::Cluster),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", Place::Cluster),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", Place::Cluster),
    ("", "serviceaccounts", Place::Namespace),
    ("", "services", Place::Namespace),
    ("", "configmaps", Place::Namespace),
    ("apps", "deployments", Place::Namespace),
    ("rbac.authorization.k8s.io", "roles", Place::Namespace),
    ("rbac.authorization.k8s.io", "rolebindings", Place::Namespace),
    ("policy", "poddisruptionbudgets", Place::Namespace),
    ("networking.k8s.io", "networkpolicies", Place::Namespace),
];
/// The kinds that the mesh reads, as definitions are named, with the versions that it can read.
pub(super) const CRDS: [&str; 8] = [
    "authorizationpolicies.security.istio.io",
    "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io",
    "destinationrules.networking.istio.io",
    "virtualservices.networking.istio.io",
    "serviceentries.networking.istio.io",
    "workloadentries.networking.istio.io",
    "telemetries.telemetry.istio.io",
];
/// Versions of a kind that the mesh can read.
const READABLE: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Cluster,
    Namespace,
}

/// Makes the checks.
pub(super) async fn look(cluster: &Cluster, report: &mut Report) {
    rights(cluster, report).await;
    namespace(cluster, report).await;
    match definitions(cluster).await {
        Ok(found) => {
            let unusable: Vec<String> = found
                .iter()
                .filter(|(_, state)| matches!(state, Definition::Unreadable(_)))
                .map(|(name, state)| format!("{name}: {}", state.told()))
                .collect();
            report.judge(INSTALL_CRDS, Mark::Bad, unusable);
        }
        Err(error) => report.unanswered(INSTALL_CRDS, &error),
    }
    match cluster.list_global::<MutatingWebhookConfiguration>(&ListParams::default()).await {
        Ok(found) => {
            let others = found.iter().filter(|one| is_foreign_injector(one));
            let named = others.map(|one| one.metadata.name.clone().unwrap_or_default());
            report.judge(INSTALL_WEBHOOKS, Mark::Doubtful, named.collect());
        }
        Err(error) => report.unanswered(INSTALL_WEBHOOKS, &error),
    }
}

async fn rights(cluster: &Cluster, report: &mut Report) {
    let asked = RESOURCES.iter().flat_map(|resource| VERBS.iter().map(move |verb| (verb, resource)));
    let answers: Vec<Result<Option<String>, ClusterError>> = stream::iter(asked)
        .map(|(verb, resource)| may(cluster, verb, resource))
        .buffered(ASKED_AT_ONCE)
        .collect()
        .await;
    let mut missing = Vec::new();
    for answer in answers {
        match answer {
            Ok(lack) => missing.extend(lack),
            Err(error) => {
                report.unanswered(INSTALL_RIGHTS, &error);
                return;
            }
        }
    }
    report.judge(INSTALL_RIGHTS, Mark::Bad, missing);
}

/// The right that is missing, if it is.
async fn may(
    cluster: &Cluster,
    verb: &str,
    (group, resource, place): &(&str, &str, Place),
) -> Result<Option<String>, ClusterError> {
    let namespace = match place {
        Place::Cluster => None,
        Place::Namespace => Some(cluster.system_namespace.clone()),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some((*group).to_owned()),
                resource: Some((*resource).to_owned()),
                verb: Some(verb.to_owned()),
                namespace: namespace.clone(),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let question =
        Question { verb: "create", resource: "selfsubjectaccessreviews", namespace: None, name: None };
    let answer = cluster.call(question, api.create(&PostParams::default(), &review)).await?;
    Ok(match answer.status.is_some_and(|status| status.allowed) {
        true => None,
        false => {
            let group = if group.is_empty() { String::new() } else { format!(".{group}") };
            let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
            Some(format!("{verb} {resource}{group}{place}"))
        }
    })
}

async fn namespace(cluster: &Cluster, report: &mut Report) {
    match cluster.get_global::<Namespace>(&cluster.system_namespace).await {
        Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => {
            report.bad(INSTALL_NAMESPACE, vec![format!("{} is being deleted", cluster.system_namespace)]);
        }
        Ok(_) => report.good(INSTALL_NAMESPACE),
        Err(error) => report.unanswered(INSTALL_NAMESPACE, &error),
    }
}

/// How it is with the definition of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Definition {
    /// There is none.
    Absent,
    /// It is there, and not served yet.
    Pending,
    /// It serves versions that the mesh cannot read.
    Unreadable(Vec<String>),
    /// It is in order.
    Served,
}

impl Definition {
    /// In words.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Absent => "is not there".to_owned(),
            Self::Pending => "is not served yet".to_owned(),
            Self::Unreadable(versions) => {
                format!("serves {}, of which the mesh reads none", versions.join(", "))
            }
            Self::Served => "is served".to_owned(),
        }
    }

    fn of(found: Option<&CustomResourceDefinition>) -> Self {
        let Some(found) = found else { return Self::Absent };
        let served: Vec<String> =
            found.spec.versions.iter().filter(|version| version.served).map(|one| one.name.clone()).collect();
        if !served.iter().any(|version| READABLE.contains(&version.as_str())) {
            return Self::Unreadable(served);
        }
        let conditions = found.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        match conditions.into_iter().any(|one| one.type_ == "Established" && one.status == "True") {
            true => Self::Served,
            false => Self::Pending,
        }
    }
}

/// How it is with the definitions of the kinds that the mesh reads.
///
/// # Errors
/// When the API server does not say.
pub(super) async fn definitions(cluster: &Cluster) -> Result<Vec<(&'static str, Definition)>, ClusterError> {
    let read = |name: &'static str| async move {
        let found = cluster.get_global::<CustomResourceDefinition>(name).await?;
        Ok((name, Definition::of(found.as_ref())))
    };
    let answers: Vec<Result<_, ClusterError>> =
        stream::iter(CRDS).map(read).buffered(CRDS.len()).collect().await;
    answers.into_iter().collect()
}

/// Whether a webhook of somebody else puts proxies into pods: it is called for pods and named for an injector.
fn is_foreign_injector(configuration: &MutatingWebhookConfiguration) -> bool {
    let labels = configuration.metadata.labels.as_ref();
    if labels.and_then(|labels| labels.get(name::LABEL_PART_OF)).is_some_and(|part| part == name::PART_OF) {
        return false;
    }
    let name = configuration.metadata.name.as_deref().unwrap_or_default();
    let is_called_for_pods = configuration.webhooks.iter().flatten().any(|webhook| {
        let rules = webhook.rules.iter().flatten();
        rules.into_iter().any(|rule| rule.resources.iter().flatten().any(|resource| resource == "pods"))
    });
    is_called_for_pods
        && ["inject", "sidecar", "istio", "linkerd", "kuma", "osm"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_injectors_of_others_are_in_the_way() {
        let webhook = |name: &str, labels: serde_json::Value, resource: &str| {
            let configuration = json!({
                "metadata": {"name": name, "labels": labels},
                "webhooks": [{
                    "name": "x.example", "admissionReviewVersions": ["v1"], "clientConfig": {}, "sideEffects": "None",
                    "rules": [{"resources": [resource], "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}],
                }],
            });
            is_foreign_injector(&serde_json::from_value(configuration).expect("a configuration"))
        };
        assert!(webhook("istio-sidecar-injector", json!({}), "pods"));
        assert!(!webhook("mini-mesh-injector", json!({"app.kubernetes.io/part-of": "mini-mesh"}), "pods"));
        assert!(!webhook("cert-manager-webhook", json!({}), "pods"));
        assert!(!webhook("istio-validator", json!({}), "gateways"));
    }

    #[test]
    fn a_definition_is_used_when_it_serves_a_version_that_is_read() {
        let of = |version: &str, established: &str| {
            let crd = json!({
                "metadata": {"name": "x"},
                "spec": {
                    "group": "g", "scope": "Namespaced", "names": {"kind": "X", "plural": "xs"},
                    "versions": [{"name": version, "served": true, "storage": true}],
                },
                "status": {"conditions": [{"type": "Established", "status": established}]},
            });
            Definition::of(Some(&serde_json::from_value(crd).expect("a definition")))
        };
        assert_eq!(of("v1", "True"), Definition::Served);
        assert_eq!(of("v1beta1", "False"), Definition::Pending);
        assert_eq!(of("v2", "True"), Definition::Unreadable(vec!["v2".to_owned()]));
        assert_eq!(Definition::of(None), Definition::Absent);
    }
}
