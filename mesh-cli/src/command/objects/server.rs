//! Objects of the mesh in the API server of a cluster: applied, deleted and read there.
//!
//! What is applied is applied by the server, under this program's field manager, so that fields of others stay
//! and a conflict is told instead of decided. The version of a kind is the one that the server prefers, since an
//! installation of Istio may serve another one than ours.

use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use mesh_api::model::{Kind, ObjectRef};
use mesh_kube::name::FIELD_MANAGER_CLI;
use serde_json::Value;

use super::folder::Change;
use super::kind;
use super::settle::Stamp;
use crate::cluster::{Cluster, ClusterError, Question};
use crate::command::{EXIT_DATA, Failure};

/// How an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Written.
    Write,
    /// Judged by the server, and not written.
    DryRun,
}

/// Whether fields that another manager owns are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflicts {
    /// They are refused, with the manager's name.
    Refused,
    /// They are taken over.
    Forced,
}

/// The kinds of one cluster.
#[derive(Debug)]
pub(crate) struct Server<'c> {
    cluster: &'c Cluster,
}

impl<'c> Server<'c> {
    /// The API server of a cluster.
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        Self { cluster }
    }

    /// The resource of a kind, in the version that the server prefers.
    async fn resource(&self, kind: Kind) -> Result<ApiResource, Failure> {
        let resource = kind::resource(kind);
        if kind == Kind::MeshConfig {
            return Err(Failure::new("a MeshConfig is no object of a cluster")
                .hint(
                    "It stands in the ConfigMap mini-mesh of the control plane's namespace; `meshctl install --set` changes it.",
                )
                .status(EXIT_DATA));
        }
        let Some((_, group)) = resource.split_once('.') else {
            return Ok(ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind.as_str())));
        };
        let question = Question { verb: "discover", resource: &resource, namespace: None, name: None };
        let found = self.cluster.call(question, async {
            match discovery::group(&self.cluster.client, group).await {
                Ok(found) => Ok(found.recommended_kind(kind.as_str())),
                Err(kube::Error::Discovery(_)) => Ok(None),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        });
        match found.await? {
            Some((resource, _)) => Ok(resource),
            None => Err(Failure::new(format!("this cluster does not know {resource}"))
                .hint("`meshctl install --crds | kubectl apply -f -` makes it known.")),
        }
    }

    async fn api(&self, object: &ObjectRef) -> Result<Api<DynamicObject>, Failure> {
        let resource = self.resource(object.kind).await?;
        let client = self.cluster.client.clone();
        Ok(match object.kind {
            Kind::Namespace => Api::all_with(client, &resource),
            _ => Api::namespaced_with(client, object.namespace.as_str(), &resource),
        })
    }

    fn question<'a>(verb: &'a str, resource: &'a str, object: &'a ObjectRef) -> Question<'a> {
        let namespace = (object.kind != Kind::Namespace).then(|| object.namespace.as_str());
        Question { verb, resource, namespace, name: Some(object.name.as_str()) }
    }

    /// Reads an object; `None` when there is none.
    ///
    /// # Errors
    /// When the server does not answer, or may not be asked.
    pub(crate) async fn read(&self, object: &ObjectRef) -> Result<Option<Value>, Failure> {
        let resource = kind::resource(object.kind);
        let api = self.api(object).await?;
        let question = Self::question("get", &resource, object);
        let found = self.cluster.call(question, api.get_opt(object.name.as_str())).await?;
        found.map(|found| serde_json::to_value(found).map_err(Failure::from)).transpose()
    }

    /// Applies a document, and says what that changed and to which state.
    ///
    /// # Errors
    /// When the server refuses it, in its words.
    pub(crate) async fn apply(
        &self,
        object: &ObjectRef,
        text: &str,
        manner: Manner,
        conflicts: Conflicts,
    ) -> Result<(Change, Stamp), Failure> {
        let api = self.api(object).await?;
        let resource = kind::resource(object.kind);
        let mut document = super::value(text).ok_or_else(|| Failure::new(format!("{object} is no YAML")))?;
        if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
            if object.kind != Kind::Namespace {
                metadata.insert("namespace".to_owned(), object.namespace.as_str().into());
            }
            // What the server counts is not the author's to state, and is refused in an apply.
            for field in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
                metadata.remove(field);
            }
        }
        let name = object.name.as_str();
        let before = self.cluster.call(Self::question("get", &resource, object), api.get_opt(name)).await?;
        let params = PatchParams {
            dry_run: manner == Manner::DryRun,
            force: conflicts == Conflicts::Forced,
            ..PatchParams::apply(FIELD_MANAGER_CLI)
        };
        let question = Self::question("patch", &resource, object);
        let after = self.cluster.call(question, api.patch(name, &params, &Patch::Apply(&document))).await;
        let after = after.map_err(|error| refused(object, error))?;
        let stamp = Stamp::of(&serde_json::to_value(&after)?);
        let change = match before {
            None => Change::Created,
            // A dry run gives no new version: what it would change is compared.
            Some(before) if manner == Manner::DryRun => match before.data == after.data
                && before.metadata.labels == after.metadata.labels
                && before.metadata.annotations == after.metadata.annotations
            {
                true => Change::Unchanged,
                false => Change::Configured,
            },
            Some(before) if before.metadata.resource_version == after.metadata.resource_version => {
                Change::Unchanged
            }
            Some(_) => Change::Configured,
        };
        Ok((change, stamp))
    }

    /// Deletes an object; whether it was there.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) async fn delete(&self, object: &ObjectRef) -> Result<bool, Failure> {
        let api = self.api(object).await?;
        let resource = kind::resource(object.kind);
        let question = Self::question("delete", &resource, object);
        match self.cluster.call(question, api.delete(object.name.as_str(), &DeleteParams::default())).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// A refusal, with what to do when somebody else owns the field.
fn refused(object: &ObjectRef, error: ClusterError) -> Failure {
    match &error {
        ClusterError::Refused { code: 409, message, .. } => {
            Failure::new(format!("{} is not applied: {message}", kind::display(object)))
                .hint("Change it where its owner keeps it, or take the fields over with --force-conflicts.")
        }
        ClusterError::Refused { code: 400 | 403 | 422, message, .. } => {
            Failure::new(format!("{} is refused: {message}", kind::display(object))).status(EXIT_DATA)
        }
        _ => error.into(),
    }
}
