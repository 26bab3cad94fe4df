//! The question put to a cluster: which webhooks there are, whom they are asked about, and with which settings
//! they decide.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use mesh_kube::inject::{NamespaceMeta, templates};
use mesh_kube::name;
use serde_json::{Value, json};

use super::selector::obstacle;
use super::{Found, Row, judged};
use crate::args::GlobalArgs;
use crate::cluster::{Cluster, ClusterError};
use crate::command::inject::source;
use crate::command::{EXIT_USAGE, Failure};

/// What a cluster says.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) found: Found,
}

/// Asks about a pod, a workload, or a pod that has some labels.
pub(super) async fn ask(
    global: &GlobalArgs,
    pod: Option<&str>,
    labels: &[(String, String)],
) -> Result<Answer, Failure> {
    let cluster = Cluster::connect(global).await?;
    let default = global.namespace.as_deref().unwrap_or(&cluster.default_namespace);
    let (pod, namespace, found) = match pod {
        Some(text) => subject(&cluster, text, global.namespace.as_deref()).await?,
        None => {
            let labels: BTreeMap<_, _> = labels.iter().cloned().collect();
            let pod = json!({
                "metadata": {"generateName": "pod-", "labels": labels},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            });
            (pod, default.to_owned(), None)
        }
    };
    let meta = cluster.get_global::<Namespace>(&namespace).await?;
    let meta = meta.ok_or_else(|| Failure::new(format!("there is no namespace {namespace}")))?.metadata;
    let meta = NamespaceMeta {
        name: namespace,
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
    };
    let part_of = format!("{}={}", name::LABEL_PART_OF, name::PART_OF);
    let configurations: Vec<MutatingWebhookConfiguration> =
        cluster.list_global(&ListParams::default().labels(&part_of)).await?;
    if configurations.is_empty() {
        return Err(Failure::new("no webhook of this mesh is installed in the cluster")
            .hint("`meshctl install` installs it; `meshctl check` says what is missing."));
    }
    let mut rows = Vec::new();
    for configuration in &configurations {
        rows.push(row(&cluster, configuration, &pod, &meta).await?);
    }
    let absent = Found { exists: false, has_proxy: false, revision: String::new(), image: String::new() };
    Ok(Answer { rows, found: found.unwrap_or(absent) })
}

async fn row(
    cluster: &Cluster,
    configuration: &MutatingWebhookConfiguration,
    pod: &Value,
    namespace: &NamespaceMeta,
) -> Result<Row, Failure> {
    let labels = configuration.metadata.labels.clone().unwrap_or_default();
    let revision = labels.get(name::LABEL_REVISION).map_or(name::DEFAULT_REVISION, String::as_str).to_owned();
    let webhook = configuration.metadata.name.clone().unwrap_or_default();
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    let settings = source::in_force(cluster, &revision).await?;
    let platform = source::platform(cluster).await?;
    let mut row = judged(&webhook, &settings, platform, pod, namespace);
    // What is not asked decides nothing. Where it would have decided for the proxy, the selectors are the reason.
    if let Some(obstacles) = obstacles(webhooks, pod, namespace) {
        if row.injected {
            row.reason = format!("{}, but the API server does not ask this webhook: {obstacles}", row.reason);
            row.code = "NotSelected".to_owned();
        }
        row.injected = false;
        row.warnings.clear();
    }
    Ok(row)
}

/// What keeps every webhook of a configuration from being asked; `None` when one is.
fn obstacles(webhooks: &[MutatingWebhook], pod: &Value, namespace: &NamespaceMeta) -> Option<String> {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let labels: BTreeMap<String, String> = labels.into_iter().flatten().filter_map(text).collect();
    // The API server gives every namespace its name as a label.
    let mut of_namespace = namespace.labels.clone();
    of_namespace.insert("kubernetes.io/metadata.name".to_owned(), namespace.name.clone());
    let mut all = Vec::new();
    for webhook in webhooks {
        let namespace = obstacle(webhook.namespace_selector.as_ref(), &of_namespace);
        let object = obstacle(webhook.object_selector.as_ref(), &labels);
        let told = match (namespace, object) {
            (Some(of_namespace), _) => format!("on the namespace, {of_namespace}"),
            (None, Some(of_pod)) => format!("on the pod, {of_pod}"),
            (None, None) => return None,
        };
        if !all.contains(&told) {
            all.push(told);
        }
    }
    Some(if all.is_empty() { "it has no webhooks".to_owned() } else { all.join("; ") })
}

/// What a text names: the pod, or the pod that a workload makes; its namespace; what the pod has now.
async fn subject(
    cluster: &Cluster,
    text: &str,
    stated: Option<&str>,
) -> Result<(Value, String, Option<Found>), Failure> {
    let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
    let mut candidates = vec![(name, stated.unwrap_or(&cluster.default_namespace))];
    // Names may hold dots and namespaces may not, so that the last part may be a namespace.
    if let (None, Some((name, namespace))) = (stated, name.rsplit_once('.')) {
        candidates.insert(0, (name, namespace));
    }
    for (name, namespace) in &candidates {
        let Some(object) = object(cluster, kind, namespace, name).await? else { continue };
        let template = templates(&object).into_iter().next();
        let pod = template.and_then(|template| object.pointer(&template.pointer).cloned());
        let pod = pod.ok_or_else(|| Failure::new(format!("{text} has no pod template")))?;
        let found = matches!(object["kind"].as_str(), Some("Pod")).then(|| Found::in_pod(&pod));
        return Ok((pod, (*namespace).to_owned(), found));
    }
    let places = candidates.iter().map(|(name, namespace)| format!("{name:?} in namespace {namespace}"));
    Err(Failure::new(format!("there is no {kind} {}", places.collect::<Vec<_>>().join(", nor "))))
}

/// An object as JSON, with kind and version as they stand in files.
async fn object(
    cluster: &Cluster,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Failure> {
    let found = match kind.to_lowercase().as_str() {
        "pod" | "pods" | "po" => get::<Pod>(cluster, namespace, name).await?,
        "deployment" | "deployments" | "deploy" => get::<Deployment>(cluster, namespace, name).await?,
        "statefulset" | "statefulsets" | "sts" => get::<StatefulSet>(cluster, namespace, name).await?,
        "daemonset" | "daemonsets" | "ds" => get::<DaemonSet>(cluster, namespace, name).await?,
        "replicaset" | "replicasets" | "rs" => get::<ReplicaSet>(cluster, namespace, name).await?,
        "job" | "jobs" => get::<Job>(cluster, namespace, name).await?,
        "cronjob" | "cronjobs" | "cj" => get::<CronJob>(cluster, namespace, name).await?,
        other => {
            return Err(Failure::new(format!("{other:?} is not a kind that has pods"))
                .hint("Write POD.NAMESPACE, or deploy/NAME.NAMESPACE (sts, ds, rs, job, cronjob).")
                .status(EXIT_USAGE));
        }
    };
    Ok(found)
}

async fn get<K>(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Value>, ClusterError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let found = cluster.get::<K>(namespace, name).await?;
    // What was read as JSON can be written as JSON.
    let value = found.and_then(|object| serde_json::to_value(object).ok()).map(|mut value| {
        value["apiVersion"] = json!(K::api_version(&()));
        value["kind"] = json!(K::kind(&()));
        value
    });
    Ok(value)
}
