//! What an installation asks of the API server.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use mesh_kube::name;
use serde::Serialize;
use serde_json::Value;

use super::object::{Kind, Wanted};
use crate::cluster::{Cluster, ClusterError, Question};

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Change {
    /// It was not there.
    Created,
    /// It was otherwise.
    Configured,
    /// It was as it shall be.
    Unchanged,
    /// It is somebody else's, and is used as it is.
    Foreign,
    /// It is gone.
    Deleted,
}

impl Change {
    /// In a word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Foreign => "of others, used unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// Whether something is done, or only asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Done.
    Real,
    /// The server says what it would do.
    DryRun,
}

/// Whether fields that others have applied are taken from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflicts {
    /// They are an error.
    Refuse,
    /// They are.
    Take,
}

fn api(cluster: &Cluster, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = kind.resource();
    match namespace {
        Some(namespace) if kind.namespaced => {
            Api::namespaced_with(cluster.client.clone(), namespace, &resource)
        }
        Some(_) | None => Api::all_with(cluster.client.clone(), &resource),
    }
}

fn json(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// An object as it is; `None` when it is not there.
///
/// # Errors
/// When the API server does not say.
pub(crate) async fn get(
    cluster: &Cluster,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, ClusterError> {
    let question = Question { verb: "get", resource: kind.plural, namespace, name: Some(name) };
    let found = cluster.call(question, api(cluster, kind, namespace).get_opt(name)).await?;
    Ok(found.map(json))
}

/// Objects of a kind that labels select, in one namespace or all.
///
/// # Errors
/// When the API server does not say.
pub(crate) async fn list(
    cluster: &Cluster,
    kind: Kind,
    namespace: Option<&str>,
    labels: &str,
) -> Result<Vec<Value>, ClusterError> {
    let question = Question::list(kind.plural, namespace);
    let params = ListParams::default().labels(labels);
    let found = cluster.pages(&api(cluster, kind, namespace), &question, &params).await?;
    Ok(found
        .into_iter()
        .map(|object| {
            let mut object = json(object);
            // Items of a list do not say what they are.
            object["apiVersion"] = kind.resource().api_version.into();
            object["kind"] = kind.kind.into();
            object
        })
        .collect())
}

/// Applies an object; gives it as it is then.
///
/// # Errors
/// When the API server refuses it, or others have applied the same fields.
pub(crate) async fn apply(
    cluster: &Cluster,
    wanted: &Wanted,
    (mode, conflicts): (Mode, Conflicts),
) -> Result<Value, ClusterError> {
    let namespace = wanted.namespace.as_deref();
    let question =
        Question { verb: "patch", resource: wanted.kind.plural, namespace, name: Some(&wanted.name) };
    let params = PatchParams {
        dry_run: mode == Mode::DryRun,
        force: conflicts == Conflicts::Take,
        field_manager: Some(name::FIELD_MANAGER_CLI.to_owned()),
        field_validation: None,
    };
    let api = api(cluster, wanted.kind, namespace);
    let patch = Patch::Apply(&wanted.object);
    Ok(json(cluster.call(question, api.patch(&wanted.name, &params, &patch)).await?))
}

/// Deletes an object and what depends on it; whether it was there.
///
/// # Errors
/// When the API server refuses it.
pub(crate) async fn delete(
    cluster: &Cluster,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
) -> Result<bool, ClusterError> {
    let question = Question { verb: "delete", resource: kind.plural, namespace, name: Some(name) };
    let params = DeleteParams::background();
    match cluster.call(question, api(cluster, kind, namespace).delete(name, &params)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
