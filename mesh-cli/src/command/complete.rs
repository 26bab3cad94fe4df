//! `meshctl __complete`: names for the completion of shells, one in a line. The scripts of `meshctl completion`
//! call it with the words before the cursor.
//!
//! It is called at a key press: it answers in a second or not at all, and says nothing when it cannot.

mod place;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::config::Kubeconfig;
use kube::{Resource, ResourceExt};
use mesh_api::model::Kind;
use serde::de::DeserializeOwned;

use super::mesh::Mesh;
use super::objects::kind;
use super::{Failure, Outcome, block_on, target};
use crate::args::{Cli, GlobalArgs};
use crate::cluster::Cluster;
use crate::cluster::pod::PodView;
use crate::install::installed;
use crate::output;
use place::{Place, Wanted, place};

/// Time for an answer: who presses a key waits no longer.
const TIME: Duration = Duration::from_secs(1);
/// Most names of one answer: more than these nobody reads, and shells grow slow.
const NAMES_MAX: usize = 1000;

/// The words behind the name of the program, up to the one that is being written.
#[derive(Debug, clap::Args)]
pub(crate) struct CompleteArgs {
    /// Words.
    #[arg(last = true)]
    words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Never: what cannot be told is not told.
pub(crate) fn run(args: &CompleteArgs) -> Outcome {
    let place = place(&mut Cli::command(), &args.words);
    if place.wanted == Wanted::Nothing {
        return Ok(ExitCode::SUCCESS);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    // The thread ends with the process, whatever it waits for.
    let asking = std::thread::Builder::new().spawn(move || {
        let names = global(&place).map(|global| names(&global, &place));
        let _too_late = sender.send(names.and_then(Result::ok).unwrap_or_default());
    });
    if asking.is_ok()
        && let Ok(names) = receiver.recv_timeout(TIME)
    {
        for name in names.iter().take(NAMES_MAX) {
            output::line(name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Flags of every command, as they stand before the cursor.
fn global(place: &Place) -> Option<GlobalArgs> {
    let known = [
        "state_dir",
        "mesh",
        "mesh_target",
        "kubeconfig",
        "context",
        "istio_namespace",
        "revision",
        "namespace",
    ];
    let mut words = vec!["meshctl".to_owned()];
    for (id, value) in place.flags.iter().filter(|(id, _)| known.contains(&id.as_str())) {
        let long = if id == "mesh_target" { "target" } else { id };
        words.push(format!("--{}={value}", long.replace('_', "-")));
    }
    words.push("version".to_owned());
    Cli::try_parse_from(words).ok().map(|cli| cli.global)
}

/// The names that fit what is written.
fn names(global: &GlobalArgs, place: &Place) -> Result<BTreeSet<String>, Failure> {
    let mut all = match place.wanted {
        Wanted::Nothing => BTreeSet::new(),
        Wanted::Context => contexts(global),
        Wanted::Kind => kinds(),
        Wanted::Namespace => namespaces(&Mesh::locate(global)?)?,
        Wanted::Revision => {
            of_cluster(global, async |cluster| Ok(installed::records(cluster).await?.into_keys().collect()))?
        }
        Wanted::Tag => {
            of_cluster(global, async |cluster| Ok(installed::tags(cluster).await?.into_keys().collect()))?
        }
        Wanted::Workload => workloads(&Mesh::locate(global)?, global, &place.written)?,
        Wanted::Described => described(global, place)?,
        Wanted::Object => objects(global, place.arguments.first().map_or("", String::as_str))?,
        Wanted::KindAndObject => match place.written.split_once('/') {
            Some((kind, _)) => {
                let all = objects(global, kind)?;
                all.into_iter().map(|name| format!("{kind}/{name}")).collect()
            }
            None => kinds().into_iter().map(|kind| format!("{kind}/")).collect(),
        },
    };
    all.retain(|name| name.starts_with(&place.written));
    Ok(all)
}

fn kinds() -> BTreeSet<String> {
    Kind::ALL.into_iter().map(|kind| kind::plural(kind).to_owned()).collect()
}

fn contexts(global: &GlobalArgs) -> BTreeSet<String> {
    let file = match &global.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    file.map(|file| file.contexts.into_iter().map(|context| context.name).collect()).unwrap_or_default()
}

fn of_cluster(
    global: &GlobalArgs,
    ask: impl AsyncFnOnce(&Cluster) -> Result<BTreeSet<String>, Failure>,
) -> Result<BTreeSet<String>, Failure> {
    block_on(async {
        let cluster = Cluster::connect(global).await?;
        ask(&cluster).await
    })
}

fn namespaces(mesh: &Mesh) -> Result<BTreeSet<String>, Failure> {
    match mesh {
        Mesh::Local(mesh) => {
            let all = target::workloads(mesh)?;
            Ok(all.iter().filter_map(|id| Some(id.rsplit_once('.')?.1.to_owned())).collect())
        }
        Mesh::Cluster(cluster) => block_on(async {
            let all: Vec<Namespace> = cluster.list_global(&ListParams::default()).await?;
            Ok(all.iter().map(ResourceExt::name_any).collect())
        }),
    }
}

/// Pods with a proxy; behind `deploy/` and the like those that have pods.
fn workloads(mesh: &Mesh, global: &GlobalArgs, written: &str) -> Result<BTreeSet<String>, Failure> {
    let namespace = global.namespace.as_deref();
    let cluster = match mesh {
        Mesh::Local(mesh) => return Ok(target::workloads(mesh)?.into_iter().collect()),
        Mesh::Cluster(cluster) => cluster,
    };
    block_on(async {
        let Some((prefix, _)) = written.split_once('/') else {
            let pods = cluster.meshed_pods(namespace).await?;
            return Ok(pods.iter().map(PodView::id).collect());
        };
        let found = match prefix {
            "deploy" | "deployment" | "deployments" => listed::<Deployment>(cluster, namespace).await?,
            "sts" | "statefulset" | "statefulsets" => listed::<StatefulSet>(cluster, namespace).await?,
            "ds" | "daemonset" | "daemonsets" => listed::<DaemonSet>(cluster, namespace).await?,
            "svc" | "service" | "services" => listed::<Service>(cluster, namespace).await?,
            "po" | "pod" | "pods" => cluster.meshed_pods(namespace).await?.iter().map(PodView::id).collect(),
            _ => BTreeSet::new(),
        };
        Ok(found.into_iter().map(|name| format!("{prefix}/{name}")).collect())
    })
}

/// Objects as NAME.NAMESPACE.
async fn listed<K>(cluster: &Cluster, namespace: Option<&str>) -> Result<BTreeSet<String>, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let all: Vec<K> = cluster.list(namespace, &ListParams::default()).await?;
    let name = |object: &K| format!("{}.{}", object.name_any(), object.namespace().unwrap_or_default());
    Ok(all.iter().map(name).collect())
}

fn described(global: &GlobalArgs, place: &Place) -> Result<BTreeSet<String>, Failure> {
    let mesh = Mesh::locate(global)?;
    match place.arguments.first().map(String::as_str) {
        None => workloads(&mesh, global, &place.written),
        Some("svc" | "service") => match &mesh {
            Mesh::Local(_) => objects(global, "service"),
            Mesh::Cluster(cluster) => block_on(listed::<Service>(cluster, global.namespace.as_deref())),
        },
        Some("pod" | "po") => workloads(&mesh, global, ""),
        Some(_) => Ok(BTreeSet::new()),
    }
}

/// Objects of a kind that are in force, in the namespace that is meant.
fn objects(global: &GlobalArgs, kind: &str) -> Result<BTreeSet<String>, Failure> {
    let kind = kind::parse(kind)?;
    let mesh = Mesh::locate(global)?;
    let default = match &mesh {
        Mesh::Local(_) => "default",
        Mesh::Cluster(cluster) => &cluster.default_namespace,
    };
    let namespace = global.namespace.as_deref().unwrap_or(default);
    let all = block_on(async { Ok(mesh.objects().await?) })?;
    let found = all.into_iter().filter(|object| object.kind == kind && object.namespace == namespace);
    Ok(found.map(|object| object.name).collect())
}
