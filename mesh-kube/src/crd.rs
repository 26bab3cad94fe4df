//! The custom resource definitions of the kinds that the mesh serves.
//!
//! Groups, names, versions and categories are Istio's, so that either product's definitions serve the other.
//! Schemas are structural and say types, names of choices and bounds, so that `kubectl explain` helps and an
//! editor completes. They are no second verdict: whatever the mesh takes, they take, and two things are left
//! for the validating webhook on purpose.
//!
//! - **Unknown fields are kept** (`x-kubernetes-preserve-unknown-fields` on each object below `spec`). A
//!   structural schema otherwise drops what it does not know, in silence: `notPrincipal: [...]` would become
//!   a rule without it, which allows more than was written. Kept, it reaches webhook and control plane, which
//!   refuse it by name.
//! - **Nulls are kept** (`nullable`). `from:` with nothing behind it would otherwise vanish, and the rule would
//!   hold for everybody. (A client may still drop it: `kubectl apply` does when it creates an object, unless it
//!   is told `--server-side`.)
//!
//! The files in `charts/mini-mesh/crds` are written from here; a test holds them equal (`UPDATE_CRDS=1`).

mod networking;
mod schema;
mod security;
mod telemetry;

use serde_json::{Value, json};

use crate::name;
use crate::yaml::to_yaml;
use schema::Shape;

/// Annotation by which Helm leaves an object when a release is removed: with a definition all of its objects
/// would go.
const KEEP: &str = "helm.sh/resource-policy";

/// A kind.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name of the resource, in the plural.
    pub plural: &'static str,
    singular: &'static str,
    short: &'static str,
    /// Versions that are served; the first one is stored.
    pub versions: &'static [&'static str],
    about: &'static str,
    spec: Shape,
    columns: &'static [(&'static str, &'static str, &'static str)],
}

/// Every kind, in order of file names.
pub const DEFINITIONS: [Definition; 8] = [
    networking::DESTINATION_RULE,
    networking::SERVICE_ENTRY,
    networking::VIRTUAL_SERVICE,
    networking::WORKLOAD_ENTRY,
    security::AUTHORIZATION_POLICY,
    security::PEER_AUTHENTICATION,
    security::REQUEST_AUTHENTICATION,
    telemetry::TELEMETRY,
];

impl Definition {
    /// Name of the definition: `destinationrules.networking.istio.io`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// Name of the file in the chart.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}_{}.yaml", self.group, self.plural)
    }

    /// The schema of the whole object.
    #[must_use]
    pub fn schema(&self) -> Value {
        json!({
            "description": self.about,
            "type": "object",
            "properties": {"spec": self.spec.to_json(), "status": schema::status()},
        })
    }

    /// The `CustomResourceDefinition`.
    #[must_use]
    pub fn object(&self) -> Value {
        let area = self.group.split('.').next().unwrap_or_default();
        let names = json!({
            "kind": self.kind,
            "listKind": format!("{}List", self.kind),
            "plural": self.plural,
            "singular": self.singular,
            "shortNames": [self.short],
            "categories": ["istio-io", format!("{area}-istio-io")],
        });
        let versions: Vec<Value> =
            self.versions.iter().enumerate().map(|(at, version)| self.version(version, at == 0)).collect();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": self.name(),
                "annotations": {(KEEP): "keep"},
                "labels": {
                    "app.kubernetes.io/name": name::PART_OF,
                    (name::LABEL_PART_OF): name::PART_OF,
                },
            },
            "spec": {
                "group": self.group,
                "names": names,
                "scope": "Namespaced",
                "versions": versions,
            },
        })
    }

    /// As a document of YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        to_yaml(&self.object()) + "\n"
    }

    fn version(&self, version: &str, stored: bool) -> Value {
        let condition = |kind: &str, part: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{part}");
        let mut columns: Vec<Value> = self
            .columns
            .iter()
            .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}))
            .collect();
        columns.extend([
            json!({
                "name": "Accepted", "type": "string", "jsonPath": condition("Accepted", "status"),
                "description": "Whether the control plane takes the object.",
            }),
            // Its words have the numbers, and say more than True: 3/3 proxies.
            json!({
                "name": "Enforced", "type": "string", "jsonPath": condition("Enforced", "message"),
                "description": "At how many of the proxies that it concerns it is in force.",
            }),
            json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
            json!({
                "name": "Conflicted", "type": "string", "jsonPath": condition("Conflicted", "status"),
                "description": "Whether another object goes before it.",
                "priority": 1,
            }),
        ]);
        json!({
            "name": version,
            "served": true,
            "storage": stored,
            "additionalPrinterColumns": columns,
            "schema": {"openAPIV3Schema": self.schema()},
            "subresources": {"status": {}},
        })
    }
}

#[cfg(test)]
mod tests;
