//! What is known of namespaces: from the documents themselves, and from a cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use mesh_kube::inject::NamespaceMeta;
use mesh_kube::name;
use serde_json::Value;

use super::document::Document;
use crate::cluster::Cluster;
use crate::command::Failure;

/// Namespace of an object that states none, when nothing else is said.
pub(crate) const DEFAULT: &str = "default";

/// Namespaces by name.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    known: BTreeMap<String, NamespaceMeta>,
    /// Revision that is asked for where a namespace says nothing.
    asked: Option<String>,
}

impl Namespaces {
    /// The namespaces among documents.
    pub(crate) fn of(documents: &[Document]) -> Self {
        let mut namespaces = Self::default();
        for object in documents.iter().filter_map(|document| document.object.as_ref()) {
            if object.get("kind").and_then(Value::as_str) == Some("Namespace")
                && let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str)
            {
                let texts = |field: &str| {
                    let entries = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
                    let text =
                        |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
                    entries.into_iter().flatten().filter_map(text).collect()
                };
                namespaces.add(NamespaceMeta {
                    name: name.to_owned(),
                    labels: texts("labels"),
                    annotations: texts("annotations"),
                });
            }
        }
        namespaces
    }

    /// Adds one; the first that is known of a name stays.
    pub(crate) fn add(&mut self, namespace: NamespaceMeta) {
        self.known.entry(namespace.name.clone()).or_insert(namespace);
    }

    /// Asks a cluster for namespaces that are not known yet. One that is not there stays unknown.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) async fn ask(&mut self, cluster: &Cluster, names: &BTreeSet<String>) -> Result<(), Failure> {
        for name in names {
            if self.is_known(name) {
                continue;
            }
            if let Some(found) = cluster.get_global::<Namespace>(name).await? {
                self.add(NamespaceMeta {
                    name: name.clone(),
                    labels: found.metadata.labels.unwrap_or_default(),
                    annotations: found.metadata.annotations.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// Lets a namespace that says nothing ask for a revision.
    pub(crate) fn ask_for(&mut self, revision: &str) {
        self.asked = Some(revision.to_owned());
    }

    /// Whether something is known of a namespace.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// A namespace; one that is not known has no labels.
    pub(crate) fn named(&self, name: &str) -> NamespaceMeta {
        let unknown = || NamespaceMeta { name: name.to_owned(), ..NamespaceMeta::default() };
        let mut namespace = self.known.get(name).cloned().unwrap_or_else(unknown);
        let keys = [name::LABEL_INJECTION, name::LABEL_REVISION, name::INJECT, name::LINKERD_INJECT];
        let says = |map: &BTreeMap<String, String>| keys.iter().any(|key| map.contains_key(*key));
        if let Some(revision) = &self.asked
            && !says(&namespace.labels)
            && !says(&namespace.annotations)
        {
            namespace.labels.insert(name::LABEL_REVISION.to_owned(), revision.clone());
        }
        namespace
    }
}
