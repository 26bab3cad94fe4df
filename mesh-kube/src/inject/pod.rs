//! Looking at a pod that is JSON: nothing is assumed of its form, and what is not there is empty.
//!
//! The API server has checked a pod only after admission, and a file not at all. [`check_shape`] refuses what
//! injection would have to guess about, with the name of the field; afterwards the rest may read without care.

use std::collections::BTreeMap;

use mesh_api::name::Namespace;
use serde_json::{Map, Value};

use super::InjectError;

/// Most containers of a pod, init containers included; etcd's limit of an object is reached before.
const CONTAINERS_MAX: usize = 1_000;

/// Both lists of containers, by the names of their fields.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// The labels or annotations of a pod; values that are no text are left out.
pub(super) fn metadata(pod: &Value, field: &str) -> BTreeMap<String, String> {
    let map = pod.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(text).collect()
}

/// A field of the spec.
pub(super) fn spec<'p>(pod: &'p Value, field: &str) -> &'p Value {
    pod.get("spec").and_then(|spec| spec.get(field)).unwrap_or(&Value::Null)
}

/// A list of the spec.
pub(super) fn list<'p>(pod: &'p Value, field: &str) -> &'p [Value] {
    spec(pod, field).as_array().map_or(&[], Vec::as_slice)
}

/// A text field of an object.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// All containers with their init containers.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.into_iter().flat_map(|field| list(pod, field))
}

/// Whether an init container keeps running beside the application.
pub(super) fn is_native_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// Refuses a pod whose form injection would have to guess about.
pub(super) fn check_shape(pod: &Value) -> Result<(), InjectError> {
    object(Some(pod), "pod")?;
    if let Some(metadata) = present(pod.get("metadata")) {
        object(Some(metadata), "metadata")?;
        for field in ["labels", "annotations"] {
            let Some(map) = present(metadata.get(field)) else { continue };
            let map = object(Some(map), &format!("metadata.{field}"))?;
            if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
                return Err(shape(&format!("metadata.{field}[{key}]"), "a string"));
            }
        }
    }
    let spec = object(pod.get("spec"), "spec")?;
    let mut count = 0;
    for field in CONTAINER_LISTS {
        for (index, container) in items(spec, field)?.iter().enumerate() {
            check_container(container, &format!("spec.{field}[{index}]"))?;
            count += 1;
        }
    }
    if list(pod, "containers").is_empty() {
        return Err(shape("spec.containers", "a list with a container"));
    }
    if count > CONTAINERS_MAX {
        return Err(shape("spec.containers", "a list of at most 1000"));
    }
    for field in ["volumes", "imagePullSecrets"] {
        for (index, item) in items(spec, field)?.iter().enumerate() {
            object(Some(item), &format!("spec.{field}[{index}]"))?;
        }
    }
    Ok(())
}

fn check_container(container: &Value, place: &str) -> Result<(), InjectError> {
    let map = object(Some(container), place)?;
    // The name becomes a part of a path (`/app-health/NAME/livez`), so it must be what Kubernetes allows: the
    // same form as a namespace, a DNS label.
    if Namespace::parse(text(container, "name")).is_err() {
        return Err(shape(&format!("{place}.name"), "a DNS label"));
    }
    for field in
        ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "resources", "securityContext"]
    {
        if let Some(value) = present(map.get(field)) {
            object(Some(value), &format!("{place}.{field}"))?;
        }
    }
    for field in ["ports", "env", "volumeMounts"] {
        if let Some(value) = present(map.get(field))
            && !value.is_array()
        {
            return Err(shape(&format!("{place}.{field}"), "a list"));
        }
    }
    Ok(())
}

fn items<'s>(spec: &'s Map<String, Value>, field: &str) -> Result<&'s [Value], InjectError> {
    match present(spec.get(field)) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(shape(&format!("spec.{field}"), "a list")),
    }
}

fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

fn object<'v>(value: Option<&'v Value>, place: &str) -> Result<&'v Map<String, Value>, InjectError> {
    value.and_then(Value::as_object).ok_or_else(|| shape(place, "an object"))
}

fn shape(field: &str, expected: &'static str) -> InjectError {
    InjectError::Shape { field: field.to_owned(), expected }
}
