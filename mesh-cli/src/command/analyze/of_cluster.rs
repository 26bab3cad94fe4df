//! What analysis of a running mesh looks at beside the mesh's own objects: the cluster's namespaces and pods, for
//! what is not injected.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use mesh_api::model::Origin;
use mesh_policy::analyze::Document;
use serde::Serialize;

use crate::cluster::{Cluster, ClusterError};

/// Where these objects stand: in no file.
const PLACE: &str = "cluster";

/// Namespaces, and pods that run, of one namespace or of all.
///
/// # Errors
/// When the API server does not list them.
pub(super) async fn documents(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Document>, ClusterError> {
    let mut namespaces = cluster.list_global::<Namespace>(&ListParams::default()).await?;
    namespaces.retain(|one| namespace.is_none_or(|wanted| one.metadata.name.as_deref() == Some(wanted)));
    let mut pods = cluster.list::<Pod>(namespace, &ListParams::default()).await?;
    // What ended, or is about to, is nobody's to restart.
    pods.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    });
    Ok(namespaces.iter().filter_map(document).chain(pods.iter().filter_map(document)).collect())
}

fn document(object: &impl Serialize) -> Option<Document> {
    let value = serde_json::to_value(object).ok()?;
    Document::read(value, Origin { file: PLACE.into(), line: 0 }, "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_the_api_server_are_documents_with_kind_and_labels() {
        let namespace: Namespace = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "labels": {"istio-injection": "enabled"}},
        }))
        .expect("a namespace");
        let document = document(&namespace).expect("a document");
        assert_eq!(document.subject.kind, "Namespace");
        assert_eq!(document.labels.get("istio-injection").map(String::as_str), Some("enabled"));
    }
}
