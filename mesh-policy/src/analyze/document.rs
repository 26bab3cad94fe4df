//! Objects as they are written, of kinds that the model does not hold: Gateways, Sidecars, Pods, Deployments,
//! Namespaces, and the parts of VirtualServices and DestinationRules that this version does not serve.

use std::collections::BTreeMap;

use mesh_api::model::{Kind, ObjectMeta, ObjectRef, Origin, Workload};
use mesh_api::name::{Labels, Namespace, ObjectName, ServiceAccount};
use serde_json::Value;

use super::catalogue::Code;
use super::finding::{Finding, Named};

/// Kinds without a namespace.
const CLUSTER_KINDS: [&str; 6] = [
    "Namespace",
    "GatewayClass",
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

/// One object as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// `GROUP/VERSION`, or `v1`.
    pub api_version: String,
    /// Kind, namespace, name.
    pub subject: Named,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Where it stands.
    pub origin: Origin,
    /// The whole document.
    pub value: Value,
}

impl Document {
    /// Reads an object; `None` when it is none. Objects that state no namespace are of `default_namespace`.
    #[must_use]
    pub fn read(value: Value, origin: Origin, default_namespace: &str) -> Option<Self> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind")?;
        let namespace = match CLUSTER_KINDS.contains(&kind.as_str()) {
            true => String::new(),
            false => text("/metadata/namespace").unwrap_or_else(|| default_namespace.to_owned()),
        };
        let subject = Named { kind, namespace, name: text("/metadata/name")? };
        Some(Self {
            api_version: text("/apiVersion")?,
            subject,
            labels: strings(value.pointer("/metadata/labels")),
            annotations: strings(value.pointer("/metadata/annotations")),
            origin,
            value,
        })
    }

    /// Whether it is of a kind of a group.
    pub(super) fn is(&self, group: &str, kind: &str) -> bool {
        let of = self.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        of == group && self.subject.kind == kind
    }

    /// The value at a pointer within `spec`.
    pub(super) fn spec(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer("/spec").and_then(|spec| spec.pointer(pointer))
    }

    /// Items of a list within `spec`.
    pub(super) fn list(&self, pointer: &str) -> &[Value] {
        items(self.spec(pointer))
    }

    pub(super) fn finding(
        &self,
        code: &'static Code,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        Finding::about(code, self.subject.clone(), &self.origin, field, message)
    }

    /// Path and value of the template of its pods, when it makes pods, or is one.
    pub(super) fn pod(&self) -> Option<(&'static str, &Value)> {
        let path = match self.subject.kind.as_str() {
            "Pod" => "",
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "ReplicationController" => {
                "/spec/template"
            }
            "CronJob" => "/spec/jobTemplate/spec/template",
            _ => return None,
        };
        Some((path, self.value.pointer(path)?))
    }

    /// The workload that it stands for.
    pub(super) fn workload(&self) -> Option<Workload> {
        let (_, pod) = self.pod()?;
        let labels = strings(pod.pointer("/metadata/labels"));
        let mut annotations = strings(pod.pointer("/metadata/annotations"));
        annotations.extend(self.annotations.clone());
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let account = text("/spec/serviceAccountName").or_else(|| text("/spec/serviceAccount"));
        let account = ServiceAccount::parse(account.unwrap_or("default")).ok()?;
        let ports = containers(pod).flat_map(|container| items(container.get("ports"))).filter_map(|port| {
            let number = port.get("containerPort")?.as_u64().and_then(|port| u16::try_from(port).ok())?;
            Some((port.get("name")?.as_str()?.to_owned(), number))
        });
        let is_without = |value: Option<&String>| value.is_some_and(|value| value == "false");
        Some(Workload {
            meshed: !is_without(labels.get("sidecar.istio.io/inject"))
                && !is_without(annotations.get("sidecar.istio.io/inject")),
            ports: ports.collect::<BTreeMap<_, _>>(),
            meta: ObjectMeta {
                // As it would be registered: names are only ever printed as what they are.
                object: ObjectRef {
                    kind: Kind::WorkloadEntry,
                    namespace: Namespace::parse(&self.subject.namespace).ok()?,
                    name: ObjectName::parse(&self.subject.name).ok()?,
                },
                labels: self.labels.clone(),
                annotations,
                created: 0,
                origin: self.origin.clone(),
            },
            addresses: Vec::new(),
            dns_name: None,
            labels,
            service_account: account,
            weight: 1,
            locality: String::new(),
            availability: mesh_api::model::Availability::Ready,
            shares_addresses: false,
            hosts: Vec::new(),
            is_completed: false,
        })
    }
}

/// Containers of a pod, those that start first included.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|list| items(pod.pointer(list)))
}

pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The strings of a list.
pub(super) fn texts(value: Option<&Value>) -> Vec<&str> {
    items(value).iter().filter_map(Value::as_str).collect()
}

/// A map of strings; values of other types are left out.
pub(super) fn strings(value: Option<&Value>) -> Labels {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
