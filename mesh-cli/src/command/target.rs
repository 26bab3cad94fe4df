//! Which proxy a command is about: `NAME.NAMESPACE`, as istioctl takes it, or `deploy/NAME.NAMESPACE`.
//!
//! A workload with replicas has instances `NAME-0`, `NAME-1`, …; its own name means the first of them, and
//! the command says so. What does not name anything is answered with what is nearest to it.

use std::fs;
use std::io;

use super::mesh::{LocalMesh, Mesh};
use super::{Failure, block_on};
use crate::cluster::Cluster;
use crate::cluster::pod::PodView;
use crate::cluster::resolve::Resolved;
use crate::output;
use crate::suggestion;

/// Most names that a message lists.
const LISTED_MAX: usize = 12;
/// Prefixes that mean an instance, or a group of which one is taken.
const PREFIXES: [&str; 16] = [
    "pod",
    "pods",
    "po",
    "deployment",
    "deployments",
    "deploy",
    "deployments.apps",
    "statefulset",
    "statefulsets",
    "sts",
    "replicaset",
    "rs",
    "daemonset",
    "ds",
    "workload",
    "workloadentry",
];

/// What a text was found to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// This workload.
    One(String),
    /// The first of these instances.
    FirstOf(Vec<String>),
}

/// Why a text names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// The part before the slash is none of those known.
    #[error("{prefix:?} is not a kind of workload")]
    Prefix {
        /// What was written.
        prefix: String,
    },
    /// Nothing of that name.
    #[error("there is no workload {written:?} in this mesh")]
    Unknown {
        /// What was written.
        written: String,
        /// The most similar name.
        nearest: Option<String>,
    },
    /// The namespace is not given and several have one.
    #[error("{written:?} is in several namespaces: {}", candidates.join(", "))]
    Ambiguous {
        /// What was written.
        written: String,
        /// All of them.
        candidates: Vec<String>,
    },
}

/// Finds the workload that `text` names among `known` (`NAME.NAMESPACE` each). `namespace` is that of names
/// without one.
///
/// # Errors
/// When it names none, or several.
pub(crate) fn find(text: &str, namespace: Option<&str>, known: &[String]) -> Result<Found, TargetError> {
    let written = match text.split_once('/') {
        None => text,
        Some((prefix, rest)) if PREFIXES.contains(&prefix.to_lowercase().as_str()) => rest,
        Some((prefix, _)) => return Err(TargetError::Prefix { prefix: prefix.to_owned() }),
    };
    // Names may hold dots, so a whole name is tried first.
    if let Some(found) = instances(written, known) {
        return Ok(found);
    }
    if let Some(namespace) = namespace {
        if let Some(found) = instances(&format!("{written}.{namespace}"), known) {
            return Ok(found);
        }
    } else {
        let namespaces = known.iter().filter_map(|id| id.rsplit_once('.')).map(|(_, namespace)| namespace);
        let mut namespaces: Vec<&str> = namespaces.collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let mut found: Vec<(String, Found)> = namespaces
            .into_iter()
            .filter_map(|namespace| {
                let id = format!("{written}.{namespace}");
                instances(&id, known).map(|found| (id, found))
            })
            .collect();
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0).1),
            _ => {
                let candidates = found.into_iter().map(|(id, _)| id).collect();
                return Err(TargetError::Ambiguous { written: written.to_owned(), candidates });
            }
        }
    }
    let nearest = nearest(written, namespace, known);
    Err(TargetError::Unknown { written: written.to_owned(), nearest })
}

/// The workload `id`, or its instances `NAME-0.NAMESPACE` and so on.
fn instances(id: &str, known: &[String]) -> Option<Found> {
    if known.iter().any(|other| other == id) {
        return Some(Found::One(id.to_owned()));
    }
    let (name, namespace) = id.rsplit_once('.')?;
    let number = |other: &str| {
        let (instance, space) = other.rsplit_once('.')?;
        let number = instance.strip_prefix(name)?.strip_prefix('-')?;
        (space == namespace).then_some(())?;
        number.parse::<u32>().ok()
    };
    let mut found: Vec<(u32, &String)> =
        known.iter().filter_map(|other| Some((number(other)?, other))).collect();
    found.sort();
    let found: Vec<String> = found.into_iter().map(|(_, id)| id.clone()).collect();
    (!found.is_empty()).then_some(Found::FirstOf(found))
}

fn nearest(written: &str, namespace: Option<&str>, known: &[String]) -> Option<String> {
    let whole = match namespace {
        Some(namespace) if !written.contains('.') => format!("{written}.{namespace}"),
        _ => written.to_owned(),
    };
    let whole_names = known.iter().map(String::as_str);
    let short_names = known.iter().filter_map(|id| id.rsplit_once('.')).map(|(name, _)| name);
    suggestion::nearest(&whole, whole_names).map(str::to_owned).or_else(|| {
        let name = suggestion::nearest(written, short_names)?.to_owned();
        known.iter().find(|id| id.rsplit_once('.').is_some_and(|(short, _)| short == name)).cloned()
    })
}

/// The workload of a running mesh that has a proxy and that `text` names. Says which instance is taken.
///
/// # Errors
/// When there is none, with what there is.
pub(crate) fn resolve(mesh: &Mesh, text: &str, namespace: Option<&str>) -> Result<String, Failure> {
    match mesh {
        Mesh::Local(mesh) => resolve_local(mesh, text, namespace),
        Mesh::Cluster(cluster) => {
            let pod = resolve_pod(cluster, text, namespace)?;
            if !pod.has_proxy {
                let name = &pod.name;
                return Err(Failure::new(format!("pod {name} in namespace {} has no proxy", pod.namespace))
                    .hint(format!("`meshctl x check-inject {}` says why.", pod.id())));
            }
            Ok(pod.id())
        }
    }
}

/// As [`resolve`], on this machine.
///
/// # Errors
/// When there is none, with what there is.
pub(crate) fn resolve_local(
    mesh: &LocalMesh,
    text: &str,
    namespace: Option<&str>,
) -> Result<String, Failure> {
    let id = resolve_any(mesh, text, namespace)?;
    if !has_proxy(mesh, &id) {
        return Err(Failure::new(format!("{id} has no proxy: it is outside of the mesh"))
            .hint("In mesh.yaml, `mesh: false` keeps a workload outside."));
    }
    Ok(id)
}

/// The pod of a cluster that `text` names. Says which one is taken.
///
/// # Errors
/// When there is none, with what there is.
pub(crate) fn resolve_pod(
    cluster: &Cluster,
    text: &str,
    namespace: Option<&str>,
) -> Result<PodView, Failure> {
    let Resolved { pods, by } = block_on(async { Ok(cluster.resolve(text, namespace).await?) })?;
    let total = pods.len();
    let pod = pods.into_iter().next().ok_or_else(|| Failure::new(format!("{text:?} names no pod")))?;
    match by {
        Some(by) if total > 1 => {
            output::note(&format!("{by} has {total} pods; this is {}", pod.id()));
        }
        Some(by) => output::note(&format!("{by} is {}", pod.id())),
        None => {}
    }
    Ok(pod)
}

fn has_proxy(mesh: &LocalMesh, id: &str) -> bool {
    mesh.directory.proxy_socket(id).parent().is_none_or(std::path::Path::exists)
}

/// Names of all workloads that run with a proxy and are not about to end, sorted.
///
/// # Errors
/// When the state directory cannot be read, or the cluster does not say.
pub(crate) async fn with_proxies(mesh: &Mesh, namespace: Option<&str>) -> Result<Vec<String>, Failure> {
    match mesh {
        Mesh::Local(mesh) => {
            let mut names = workloads(mesh)?;
            names.retain(|id| has_proxy(mesh, id));
            names.retain(|id| {
                namespace.is_none_or(|wanted| id.rsplit_once('.').is_some_and(|(_, own)| own == wanted))
            });
            Ok(names)
        }
        Mesh::Cluster(cluster) => {
            let pods = cluster.meshed_pods(namespace).await?;
            Ok(pods.iter().filter(|pod| pod.proxy_runs && !pod.is_ending).map(PodView::id).collect())
        }
    }
}

/// The workload of a mesh on this machine that `text` names, with a proxy or without. Says which instance is
/// taken.
///
/// # Errors
/// When there is none, with what there is.
pub(crate) fn resolve_any(mesh: &LocalMesh, text: &str, namespace: Option<&str>) -> Result<String, Failure> {
    let known = workloads(mesh)?;
    let found = find(text, namespace, &known).map_err(|error| explain(error, &known))?;
    let id = match found {
        Found::One(id) => id,
        Found::FirstOf(mut all) => {
            let first = all.swap_remove(0);
            if all.is_empty() {
                output::note(&format!("{text} is {first}"));
            } else {
                let total = all.len() + 1;
                output::note(&format!("{text} has {total} instances; this is {first}"));
            }
            first
        }
    };
    Ok(id)
}

/// Names of all workloads that run on this machine, sorted.
///
/// # Errors
/// When the state directory cannot be read.
pub(crate) fn workloads(mesh: &LocalMesh) -> Result<Vec<String>, Failure> {
    let folder = mesh.directory.path().join("run");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", folder.display()))),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok().filter(|entry| entry.path().is_dir())?;
            entry.file_name().into_string().ok().filter(|name| name.contains('.') && !name.starts_with('.'))
        })
        .collect();
    names.sort();
    Ok(names)
}

/// The error with what there is in place of what was written.
pub(super) fn explain(error: TargetError, known: &[String]) -> Failure {
    let hint = match &error {
        TargetError::Prefix { .. } => "Write NAME.NAMESPACE, or deploy/NAME.NAMESPACE.".to_owned(),
        TargetError::Ambiguous { .. } => {
            "Say which one with -n NAMESPACE, or write NAME.NAMESPACE.".to_owned()
        }
        TargetError::Unknown { nearest, .. } => {
            let mut all = known.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
            if known.len() > LISTED_MAX {
                all.push_str(&format!(" and {} more (`meshctl ps`)", known.len() - LISTED_MAX));
            }
            match (nearest, known.is_empty()) {
                (_, true) => "No workload runs. `meshctl status` says more.".to_owned(),
                (Some(nearest), false) => format!("Did you mean {nearest}? There are: {all}."),
                (None, false) => format!("There are: {all}."),
            }
        }
    };
    Failure::from(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        [
            "catalog-0.backend",
            "catalog-1.backend",
            "catalog-10.backend",
            "frontend.web",
            "db.web",
            "db.backend",
            "a.b.web",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn one(id: &str) -> Result<Found, TargetError> {
        Ok(Found::One(id.to_owned()))
    }

    #[test]
    fn a_whole_name_is_taken_as_it_is_and_prefixes_are_passed_over() {
        for text in ["frontend.web", "pod/frontend.web", "deploy/frontend.web", "Deployment/frontend.web"] {
            assert_eq!(find(text, None, &known()), one("frontend.web"), "{text}");
        }
        assert_eq!(find("a.b.web", Some("backend"), &known()), one("a.b.web"));
    }

    #[test]
    fn a_short_name_is_looked_for_in_the_namespace_or_everywhere() {
        assert_eq!(find("frontend", None, &known()), one("frontend.web"));
        assert_eq!(find("db", Some("web"), &known()), one("db.web"));
        assert!(matches!(find("frontend", Some("backend"), &known()), Err(TargetError::Unknown { .. })));
        let error = find("db", None, &known()).expect_err("two namespaces have one");
        assert_eq!(error.to_string(), "\"db\" is in several namespaces: db.backend, db.web");
    }

    #[test]
    fn the_name_of_a_workload_with_replicas_means_its_first_instance() {
        let all =
            ["catalog-0.backend", "catalog-1.backend", "catalog-10.backend"].map(str::to_owned).to_vec();
        for (text, namespace) in [("catalog.backend", None), ("catalog", None), ("catalog", Some("backend"))]
        {
            assert_eq!(find(text, namespace, &known()), Ok(Found::FirstOf(all.clone())), "{text}");
        }
    }

    #[test]
    fn an_unknown_name_brings_the_nearest() {
        let nearest = |text: &str, namespace| match find(text, namespace, &known()) {
            Err(TargetError::Unknown { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("frontent.web", None).as_deref(), Some("frontend.web"));
        assert_eq!(nearest("frontent", None).as_deref(), Some("frontend.web"));
        assert_eq!(nearest("frontent", Some("web")).as_deref(), Some("frontend.web"));
        assert_eq!(nearest("zzzzzzz", None), None);
        assert!(matches!(find("svc/frontend", None, &known()), Err(TargetError::Prefix { .. })));
    }
}
