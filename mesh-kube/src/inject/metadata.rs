//! Labels and annotations of an injected pod.
//!
//! Nothing that the pod has is replaced. What was added is noted in the status annotation, so that it can be
//! taken away again.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::pod;
use super::settings::InjectSettings;
use crate::name;

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Longest value of a label, in bytes (Kubernetes).
const LABEL_BYTES_MAX: usize = 63;

/// Keys that are added, by the name of the map that they are added to.
#[derive(Debug, Default)]
pub(super) struct Added {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
}

impl Added {
    /// What a pod lacks.
    pub(super) fn to(pod: &Value, settings: &InjectSettings, workload: Option<&str>) -> Self {
        let labels = pod::metadata(pod, "labels");
        let annotations = pod::metadata(pod, "annotations");
        let mut added = Self::default();
        added.labels.insert(name::LABEL_TLS_MODE, name::TLS_MODE.to_owned());
        let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).cloned();
        let service = first(&["app.kubernetes.io/name", "app"])
            .or_else(|| workload.map(str::to_owned))
            .or_else(|| owner(pod, &labels))
            .filter(|name| !name.is_empty() && name.len() <= LABEL_BYTES_MAX);
        added.labels.extend(service.map(|service| (CANONICAL_NAME, service)));
        let revision =
            first(&["app.kubernetes.io/version", "version"]).unwrap_or_else(|| "latest".to_owned());
        added.labels.insert(CANONICAL_REVISION, revision);
        added.labels.retain(|key, _| !labels.contains_key(*key));

        added.annotations.insert(name::LABEL_REVISION, settings.revision.clone());
        let application = pod::list(pod, "containers").first().map(|container| pod::text(container, "name"));
        if let Some(application) = application {
            added.annotations.insert("kubectl.kubernetes.io/default-container", application.to_owned());
            added.annotations.insert("kubectl.kubernetes.io/default-logs-container", application.to_owned());
        }
        // Somebody's own address of metrics is one address: ours beside it would mix the two.
        let is_scraped = annotations.keys().any(|key| key.starts_with("prometheus.io/"));
        if settings.prometheus_annotations && !is_scraped {
            added.annotations.insert("prometheus.io/scrape", "true".to_owned());
            added.annotations.insert("prometheus.io/port", name::PORT_PROXY_STATUS.to_string());
            added.annotations.insert("prometheus.io/path", "/stats/prometheus".to_owned());
        }
        added.annotations.retain(|key, _| !annotations.contains_key(*key));
        added
    }

    /// The keys, as the status has them.
    pub(super) fn keys(&self) -> Map<String, Value> {
        let mut keys = Map::new();
        keys.insert("labels".to_owned(), self.labels.keys().map(|key| json!(key)).collect());
        keys.insert("annotations".to_owned(), self.annotations.keys().map(|key| json!(key)).collect());
        keys
    }

    /// Puts them into a pod, with the status.
    pub(super) fn put(self, pod: &mut Value, status: String) {
        put(pod, "labels", self.labels);
        let mut annotations = self.annotations;
        annotations.insert(name::ANNOTATION_STATUS, status);
        put(pod, "annotations", annotations);
    }
}

fn put(pod: &mut Value, field: &str, entries: BTreeMap<&'static str, String>) {
    let Some(pod) = pod.as_object_mut() else { return };
    let Some(metadata) = object_at(pod, "metadata") else { return };
    let Some(map) = object_at(metadata, field) else { return };
    map.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))));
}

/// The object of a field, made when there is none; `None` when something else stands there.
fn object_at<'m>(map: &'m mut Map<String, Value>, field: &str) -> Option<&'m mut Map<String, Value>> {
    let value = map.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// The name of the workload that a pod belongs to, by its owner: that of a ReplicaSet is the Deployment's with
/// the hash of the template behind it, that of a Job of a CronJob ends in its time.
fn owner(pod: &Value, labels: &BTreeMap<String, String>) -> Option<String> {
    let metadata = pod.get("metadata")?;
    let owners = metadata.get("ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let controller =
        owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    let Some(controller) = controller else {
        let name = pod::text(metadata, "name");
        let name = if name.is_empty() { pod::text(metadata, "generateName") } else { name };
        return Some(name.trim_end_matches('-').to_owned());
    };
    let name = pod::text(controller, "name");
    let hash = labels.get("pod-template-hash").map(String::as_str).unwrap_or_default();
    let base = match pod::text(controller, "kind") {
        "ReplicaSet" if !hash.is_empty() => name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')),
        "Job" => name.rsplit_once('-').and_then(|(base, end)| {
            // A CronJob names its Jobs by minutes since 1970: eight digits for the next decades.
            (end.len() >= 8 && end.bytes().all(|byte| byte.is_ascii_digit())).then_some(base)
        }),
        _ => None,
    };
    Some(base.unwrap_or(name).to_owned())
}
