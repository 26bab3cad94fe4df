//! Taking an installation away.
//!
//! Webhooks go first, so that nothing in the cluster waits for a control plane that is going. What the control
//! plane made itself goes when its pods have ended, since they would make it anew. The authority and the
//! definitions stay unless everything is to go: with the authority all identities would change, and with a
//! definition every policy of its kind would vanish.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::{Api, ResourceExt as _};
use mesh_kube::crd::{DEFINITIONS, Definition};
use mesh_kube::name;
use serde_json::Value;

use super::apply::{ObjectChange, of_revision, progress};
use super::installed::InstalledError;
use super::object::{Kind, LEASE, SECRET, Wanted, is_ours, label};
use super::server::{self, Change};
use super::wait::selector;
use crate::cluster::{Cluster, ClusterError, Question};
use crate::output::Format;

/// How long is waited for the control plane to end.
const END: Duration = Duration::from_secs(90);

/// Whether what outlasts an installation goes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Authority, definitions and the namespace stay.
    Installation,
    /// Everything goes.
    Everything,
}

/// Why something was not taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemovalError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Pods stay.
    #[error("{0} pods of the control plane do not end")]
    Pods(usize),
    /// Something is being deleted and does not go.
    #[error("{0} is being deleted and does not go: something in it has a finalizer that nobody honours")]
    Ending(String),
}

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Revisions.
    pub(crate) revisions: BTreeSet<String>,
    /// Pods with a proxy, by namespace.
    pub(crate) meshed: BTreeMap<String, usize>,
    /// Namespaces that ask for injection.
    pub(crate) labelled: Vec<String>,
    /// Objects of our definitions, by definition.
    pub(crate) objects: BTreeMap<String, usize>,
}

/// Looks at what is there.
///
/// # Errors
/// When the API server does not say.
pub(crate) async fn look(cluster: &Cluster) -> Result<Found, ClusterError> {
    let mut found = Found { revisions: revisions(cluster).await?, ..Found::default() };
    for pod in cluster.meshed_pods(None).await? {
        *found.meshed.entry(pod.namespace).or_default() += 1;
    }
    let namespaces: Vec<Namespace> = cluster.list_global(&ListParams::default()).await?;
    for namespace in namespaces {
        let labels = namespace.labels();
        let asks = labels.get(name::LABEL_INJECTION).is_some_and(|value| value == "enabled")
            || labels.contains_key(name::LABEL_REVISION);
        if asks {
            found.labelled.push(namespace.name_any());
        }
    }
    let kind = Kind::named("CustomResourceDefinition");
    for definition in &DEFINITIONS {
        let Some(kind) = kind else { continue };
        let live = server::get(cluster, kind, None, &definition.name()).await?;
        if live.as_ref().is_some_and(is_ours) {
            found.objects.insert(definition.name(), count(cluster, definition).await?);
        }
    }
    Ok(found)
}

/// Revisions of which something is there.
async fn revisions(cluster: &Cluster) -> Result<BTreeSet<String>, ClusterError> {
    let labels = format!("{}={},{}", name::LABEL_PART_OF, name::PART_OF, name::LABEL_REVISION);
    let mut revisions = BTreeSet::new();
    for kind in ["Deployment", "ConfigMap", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]
    {
        let Some(kind) = Kind::named(kind) else { continue };
        let namespace = kind.namespaced.then_some(name::SYSTEM_NAMESPACE);
        let found = server::list(cluster, kind, namespace, &labels).await?;
        revisions
            .extend(found.iter().filter_map(|object| label(object, name::LABEL_REVISION)).map(str::to_owned));
    }
    Ok(revisions)
}

async fn count(cluster: &Cluster, definition: &Definition) -> Result<usize, ClusterError> {
    let version = definition.versions.first().copied().unwrap_or("v1");
    let resource = ApiResource {
        group: definition.group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{}/{version}", definition.group),
        kind: definition.kind.to_owned(),
        plural: definition.plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let question = Question::list(definition.plural, None);
    match cluster.pages(&api, &question, &ListParams::default()).await {
        Ok(objects) => Ok(objects.len()),
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error),
    }
}

/// Takes revisions away, and says what is gone.
///
/// # Errors
/// When the API server refuses something, or pods do not end. What was done stays done; a second run goes on.
pub(crate) async fn remove(
    cluster: &Cluster,
    found: &Found,
    (going, extent): (&BTreeSet<String>, Extent),
    form: Format,
) -> Result<Vec<ObjectChange>, RemovalError> {
    let mut gone = Vec::new();
    for revision in going {
        let started = Instant::now();
        let objects = of_revision(cluster, revision).await?;
        let number = delete_all(cluster, &objects, &mut gone).await?;
        ended(cluster, revision, started + END).await?;
        progress(&format!("revision {revision}"), &format!("{number} objects deleted"), started, form);
    }
    if found.revisions.iter().any(|revision| !going.contains(revision)) {
        return Ok(gone);
    }
    let started = Instant::now();
    let number = delete_all(cluster, &made_by_control_plane(cluster).await?, &mut gone).await?;
    progress("what it made", &format!("{number} objects deleted"), started, form);
    if extent == Extent::Everything {
        purge(cluster, &mut gone, form).await?;
    }
    Ok(gone)
}

/// Deletes objects; how many were there. They are added to what is gone.
async fn delete_all(
    cluster: &Cluster,
    objects: &[Wanted],
    gone: &mut Vec<ObjectChange>,
) -> Result<usize, ClusterError> {
    let before = gone.len();
    for object in objects {
        if server::delete(cluster, object.kind, object.namespace.as_deref(), &object.name).await? {
            gone.push(ObjectChange { object: object.to_string(), change: Change::Deleted });
        }
    }
    Ok(gone.len() - before)
}

/// Until the pods of a revision are gone.
async fn ended(cluster: &Cluster, revision: &str, until: Instant) -> Result<(), RemovalError> {
    loop {
        let pods = cluster.pods(Some(name::SYSTEM_NAMESPACE), &selector(revision)).await?;
        if pods.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(RemovalError::Pods(pods.len()));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What the control plane makes: the roots in each namespace, its Lease, and what it keeps for itself.
async fn made_by_control_plane(cluster: &Cluster) -> Result<Vec<Wanted>, ClusterError> {
    let mut all = Vec::new();
    let Some(kind) = Kind::named("ConfigMap") else { return Ok(all) };
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind.resource());
    let params = ListParams::default().fields(&format!("metadata.name={}", name::ROOT_CERT));
    let roots = cluster.pages(&api, &Question::list(kind.plural, None), &params).await?;
    let made = |kind: Kind, namespace: Option<String>, name: String| Wanted {
        kind,
        namespace,
        name,
        object: Value::Null,
    };
    all.extend(roots.into_iter().map(|root| made(kind, root.namespace(), root.name_any())));
    let labels = format!("{}={}", name::LABEL_PART_OF, name::PART_OF);
    for kind in [kind, LEASE] {
        let found = server::list(cluster, kind, Some(name::SYSTEM_NAMESPACE), &labels).await?;
        all.extend(found.into_iter().filter_map(|object| {
            let name = object["metadata"]["name"].as_str()?.to_owned();
            Some(made(kind, Some(name::SYSTEM_NAMESPACE.to_owned()), name))
        }));
    }
    let namespace = || Some(name::SYSTEM_NAMESPACE.to_owned());
    all.push(made(kind, namespace(), name::VIRTUAL_ADDRESSES.to_owned()));
    all.push(made(LEASE, namespace(), name::LEADER_LEASE.to_owned()));
    Ok(all)
}

/// The authority, our definitions with their objects, and the namespace if it is ours.
async fn purge(cluster: &Cluster, gone: &mut Vec<ObjectChange>, form: Format) -> Result<(), RemovalError> {
    let started = Instant::now();
    let one = |kind: Kind, namespace: Option<&str>, name: &str| Wanted {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        object: Value::Null,
    };
    let namespace = Some(name::SYSTEM_NAMESPACE);
    let mut number = delete_all(cluster, &[one(SECRET, namespace, name::CA_SECRET)], gone).await?;
    if let Some(kind) = Kind::named("CustomResourceDefinition") {
        for name in DEFINITIONS.iter().map(Definition::name) {
            let live = server::get(cluster, kind, None, &name).await?;
            if live.as_ref().is_some_and(is_ours) {
                number += delete_all(cluster, &[one(kind, None, &name)], gone).await?;
            }
        }
    }
    if let Some(kind) = Kind::named("Namespace") {
        let live = server::get(cluster, kind, None, name::SYSTEM_NAMESPACE).await?;
        if live.as_ref().is_some_and(is_ours) {
            number += delete_all(cluster, &[one(kind, None, name::SYSTEM_NAMESPACE)], gone).await?;
        }
    }
    vanished(cluster, started + END).await?;
    progress("everything else", &format!("{number} objects deleted"), started, form);
    Ok(())
}

/// Until definitions and namespace are gone: both end what is in them first.
async fn vanished(cluster: &Cluster, until: Instant) -> Result<(), RemovalError> {
    let definitions = DEFINITIONS.iter().map(|definition| ("CustomResourceDefinition", definition.name()));
    let namespace = ("Namespace", name::SYSTEM_NAMESPACE.to_owned());
    for (kind, name) in definitions.chain([namespace]) {
        let Some(kind) = Kind::named(kind) else { continue };
        loop {
            let live = server::get(cluster, kind, None, &name).await?;
            let is_going = live.is_some_and(|live| live["metadata"]["deletionTimestamp"].is_string());
            if !is_going {
                break;
            }
            if Instant::now() >= until {
                return Err(RemovalError::Ending(format!("{} {name}", kind.kind)));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    Ok(())
}

/// The revisions that are meant: the one that was named, or the only one (pure).
///
/// # Errors
/// When the one that was named is not there, or none was and there are several.
pub(crate) fn meant(
    found: &Found,
    revision: Option<&str>,
    extent: Extent,
) -> Result<BTreeSet<String>, InstalledError> {
    let installed = || found.revisions.iter().cloned().collect();
    match (revision, extent) {
        (Some(revision), _) if found.revisions.contains(revision) => {
            Ok(BTreeSet::from([revision.to_owned()]))
        }
        (Some(revision), _) => {
            Err(InstalledError::Revision { revision: revision.to_owned(), installed: installed() })
        }
        (None, Extent::Installation) if found.revisions.len() > 1 => {
            Err(InstalledError::Several { installed: installed() })
        }
        (None, Extent::Installation | Extent::Everything) => Ok(found.revisions.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_revisions_are_never_meant_by_saying_nothing() {
        let found = |revisions: &[&str]| Found {
            revisions: revisions.iter().map(|name| (*name).to_owned()).collect(),
            ..Found::default()
        };
        let both = found(&["a", "b"]);
        assert!(meant(&both, None, Extent::Installation).is_err());
        assert_eq!(meant(&both, None, Extent::Everything).expect("all").len(), 2);
        assert_eq!(meant(&both, Some("a"), Extent::Installation).expect("one").len(), 1);
        assert!(meant(&both, Some("c"), Extent::Installation).is_err());
        assert_eq!(meant(&found(&["a"]), None, Extent::Installation).expect("one").len(), 1);
    }
}
