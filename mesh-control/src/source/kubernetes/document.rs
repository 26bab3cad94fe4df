//! Objects of a cluster as the documents that the mesh's one parser reads, so that the verdict on an object is the
//! same wherever it stands.
//!
//! At the edges: of what the API server adds to an object (`status`, `managedFields`) nothing is read, and of a Service
//! only what concerns the mesh, because Kubernetes may know fields that the parser does not. A Service of type
//! `ExternalName` is an alias in DNS and stays one: the cluster's resolver answers its name.

use kube::api::{DynamicObject, ObjectMeta};
use serde_json::{Map, Value, json};

/// Annotations that say an object once more.
const COPIES: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];
/// Metadata that is kept.
const METADATA: [&str; 5] = ["name", "namespace", "labels", "annotations", "creationTimestamp"];
/// Fields of a Service's spec that are kept.
const SERVICE: [&str; 6] =
    ["selector", "clusterIP", "clusterIPs", "type", "publishNotReadyAddresses", "sessionAffinity"];
/// Fields of a Service's port that are kept.
const SERVICE_PORT: [&str; 5] = ["name", "protocol", "appProtocol", "port", "targetPort"];

/// The text of an object of Istio, for the parser and for people. Its lines are those that problems name.
pub(super) fn istio(object: DynamicObject, api_version: &str, kind: &str) -> String {
    let mut document = object.data;
    if let Some(fields) = document.as_object_mut() {
        fields.remove("status");
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("metadata".to_owned(), metadata(object.metadata, Annotations::Kept));
    }
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

/// The text of a Service; `None` for one that is only an alias in DNS.
pub(super) fn service(object: DynamicObject) -> Option<String> {
    let spec = object.data.get("spec")?;
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        return None;
    }
    let mut kept = picked(spec, &SERVICE);
    let ports = spec.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ports: Vec<Value> = ports.iter().map(|port| picked(port, &SERVICE_PORT).into()).collect();
    kept.insert("ports".to_owned(), ports.into());
    let document = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(object.metadata, Annotations::Dropped),
        "spec": kept,
    });
    Some(document.to_string() + "\n")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Annotations {
    Kept,
    Dropped,
}

fn metadata(mut meta: ObjectMeta, annotations: Annotations) -> Value {
    if let Some(stated) = &mut meta.annotations {
        stated.retain(|name, _| annotations == Annotations::Kept && !COPIES.contains(&name.as_str()));
    }
    if meta.annotations.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
        meta.annotations = None;
    }
    meta.managed_fields = None;
    let whole = serde_json::to_value(&meta).unwrap_or_default();
    picked(&whole, &METADATA).into()
}

fn picked(from: &Value, names: &[&str]) -> Map<String, Value> {
    let fields = names.iter().filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())));
    fields.collect()
}
