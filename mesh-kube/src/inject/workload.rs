//! Pods within other objects: the templates of workloads, and lists of objects.

use serde_json::{Value, json};

use super::decision::NamespaceMeta;
use super::settings::InjectSettings;
use super::uninject::uninject;
use super::{InjectError, Injection, Platform, inject_as, pod};

/// Depth of lists within lists that is looked into.
const DEPTH_MAX: usize = 8;

/// A pod, or the template of one, within an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Where it stands, as a JSON pointer; empty for a pod itself.
    pub pointer: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object; empty when it has none.
    pub name: String,
    /// Namespace of the object; empty when it states none.
    pub namespace: String,
}

/// The pods and templates of an object: of a Pod, a workload of Kubernetes, or a List of them.
#[must_use]
pub fn templates(object: &Value) -> Vec<Template> {
    let mut found = Vec::new();
    collect(object, "", 0, &mut found);
    found
}

fn collect(object: &Value, pointer: &str, depth: usize, found: &mut Vec<Template>) {
    let (group, kind) = (group_of(object), pod::text(object, "kind"));
    let inner = match (group, kind) {
        ("", "Pod") => "",
        ("apps" | "extensions", "Deployment" | "ReplicaSet" | "DaemonSet")
        | ("apps", "StatefulSet")
        | ("", "ReplicationController")
        | ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        ("", kind) if kind.ends_with("List") && depth < DEPTH_MAX => {
            let items = object.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{pointer}/items/{index}"), depth + 1, found);
            }
            return;
        }
        (_, _) => return,
    };
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    if object.pointer(inner).is_some_and(Value::is_object) {
        found.push(Template {
            pointer: format!("{pointer}{inner}"),
            kind: kind.to_owned(),
            name: pod::text(metadata, "name").to_owned(),
            namespace: pod::text(metadata, "namespace").to_owned(),
        });
    }
}

fn group_of(object: &Value) -> &str {
    pod::text(object, "apiVersion").split_once('/').map_or("", |(group, _)| group)
}

/// Injects the pod at `template` within an object.
///
/// # Errors
/// When the pod must not be created as it is.
pub fn inject_object(
    object: &Value,
    template: &Template,
    namespace: &NamespaceMeta,
    settings: &InjectSettings,
    platform: Platform,
) -> Result<(Value, Injection), InjectError> {
    let found = object.pointer(&template.pointer);
    let pod =
        found.ok_or(InjectError::Shape { field: template.pointer.clone(), expected: "a pod template" })?;
    let workload = Some(template.name.as_str()).filter(|name| !name.is_empty());
    let injection = inject_as(pod, namespace, settings, platform, workload)?;
    let mut new = object.clone();
    if let Some(place) = new.pointer_mut(&template.pointer) {
        *place = injection.pod.clone();
    }
    Ok((new, injection))
}

/// Takes the proxy out of the pod at `template`; `None` when there is none.
#[must_use]
pub fn uninject_object(object: &Value, template: &Template) -> Option<Value> {
    let without = uninject(object.pointer(&template.pointer)?)?;
    let mut new = object.clone();
    *new.pointer_mut(&template.pointer).unwrap_or(&mut json!(null)) = without;
    Some(new)
}
