//! An installation, step by step.
//!
//! Each step applies its objects and says what became of them, so that a second run shows that nothing had to
//! change, and a run after one that was interrupted goes on where that one ended. Webhooks come last, when the
//! control plane answers: until then nothing in the cluster depends on it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_kube::crd::DEFINITIONS;
use mesh_kube::name;
use serde::Serialize;
use serde_json::Value;

use super::object::{KINDS, Kind, Step, Wanted, is_managed_by, is_ours};
use super::plan::Plan;
use super::record::Record;
use super::server::{self, Change, Conflicts, Mode};
use super::wait::{self, WaitError};
use crate::cluster::{Cluster, ClusterError};
use crate::output::{self, Format};

/// How an installation is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Whether fields of others are taken.
    pub(crate) conflicts: Conflicts,
    /// Whether anything is done.
    pub(crate) mode: Mode,
    /// How long is waited for each thing; nothing is waited for when it is zero.
    pub(crate) timeout: Duration,
    /// Form of the result: beside a document, progress is a remark.
    pub(crate) form: Format,
}

/// Why an installation did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// An object.
    #[error("{object} cannot be applied")]
    Apply {
        /// Which.
        object: String,
        /// Why.
        #[source]
        source: ClusterError,
    },
    /// Somebody else has applied the same fields.
    #[error("{object} has fields that somebody else keeps: {message}")]
    Conflict {
        /// Which.
        object: String,
        /// The server's words.
        message: String,
    },
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something did not come up.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

impl InstallError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Conflict { .. } => Some(
                "--force takes the fields over; whoever applies them otherwise would take them back."
                    .to_owned(),
            ),
            Self::Apply { source, .. } | Self::Cluster(source) => source.hint(),
            Self::Wait(error) => error.hint(),
        }
    }
}

/// What became of the objects of a plan.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Objects by what became of them.
    pub(crate) changes: BTreeMap<Change, Vec<String>>,
}

/// An object and what became of it, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectChange {
    /// Which: KIND NAMESPACE/NAME.
    pub(crate) object: String,
    /// What became of it.
    pub(crate) change: Change,
}

impl Done {
    fn add(&mut self, change: Change, object: String) {
        self.changes.entry(change).or_default().push(object);
    }

    /// Whether nothing had to change.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.changes.keys().all(|change| matches!(change, Change::Unchanged | Change::Foreign))
    }

    /// Each object with what became of it, by name.
    pub(crate) fn objects(&self) -> Vec<ObjectChange> {
        let mut all: Vec<ObjectChange> = self
            .changes
            .iter()
            .flat_map(|(change, objects)| {
                objects.iter().map(|object| ObjectChange { object: object.clone(), change: *change })
            })
            .collect();
        all.sort_by(|left, right| left.object.cmp(&right.object));
        all
    }

    fn words(&self) -> String {
        let words =
            self.changes.iter().map(|(change, objects)| format!("{} {}", objects.len(), change.as_str()));
        words.collect::<Vec<String>>().join(", ")
    }
}

/// Makes the cluster as the plan says.
///
/// # Errors
/// When something is refused, or does not come up in time. What was done stays, and is gone on with next time.
pub(crate) async fn install(cluster: &Cluster, plan: &Plan, manner: Manner) -> Result<Done, InstallError> {
    let wanted = wanted(plan);
    let mut all = Done::default();
    for (step, title) in [
        (Step::Definitions, "definitions"),
        (Step::Namespace, "namespace"),
        (Step::Access, "access and limits"),
        (Step::Settings, "settings"),
        (Step::ControlPlane, "control plane"),
        (Step::Webhooks, "webhooks"),
    ] {
        let started = Instant::now();
        let mut done = Done::default();
        for object in wanted.iter().filter(|object| object.kind.step == step) {
            let change = one(cluster, object, manner).await?;
            done.add(change, object.to_string());
        }
        let mut words = done.words();
        if manner.mode == Mode::Real && !manner.timeout.is_zero() {
            let until = started + manner.timeout;
            match step {
                Step::Definitions => wait::established(cluster, until).await?,
                Step::ControlPlane => {
                    words.push_str(&wait::rolled_out(cluster, plan.revision(), until).await?);
                }
                Step::Webhooks => wait::trusted(cluster, plan.revision(), until).await?,
                Step::Namespace | Step::Access | Step::Settings => {}
            }
        }
        if !done.changes.is_empty() {
            progress(title, &words, started, manner.form);
        }
        done.changes
            .into_iter()
            .for_each(|(change, objects)| all.changes.entry(change).or_default().extend(objects));
    }
    let started = Instant::now();
    let gone = prune(cluster, plan, &wanted, manner.mode).await?;
    if !gone.changes.is_empty() {
        progress("left over", &gone.words(), started, manner.form);
    }
    gone.changes
        .into_iter()
        .for_each(|(change, objects)| all.changes.entry(change).or_default().extend(objects));
    Ok(all)
}

/// Everything that shall be there, the definitions and the record included.
pub(crate) fn wanted(plan: &Plan) -> Vec<Wanted> {
    let definitions = DEFINITIONS.iter().filter_map(|definition| Wanted::new(definition.object()));
    let documents = plan.documents.iter().filter_map(|document| Wanted::new(document.object.clone()));
    let record = Record {
        revision: plan.revision().to_owned(),
        version: plan.version.clone(),
        stated: plan.stated.clone(),
    };
    definitions.chain(documents).chain(record.wanted()).collect()
}

/// A line about a step that is done.
pub(crate) fn progress(title: &str, words: &str, started: Instant, form: Format) {
    let seconds = started.elapsed().as_secs_f64();
    output::told(&format!("{} {title:<18} {words}  ({seconds:.1} s)", output::good("✔")), form);
}

/// Applies one object.
async fn one(cluster: &Cluster, wanted: &Wanted, manner: Manner) -> Result<Change, InstallError> {
    let apply_error = |source| InstallError::Apply { object: wanted.to_string(), source };
    let namespace = wanted.namespace.as_deref();
    let before = server::get(cluster, wanted.kind, namespace, &wanted.name).await.map_err(apply_error)?;
    if let Some(before) = &before
        && wanted.kind.step == Step::Definitions
        && !is_ours(before)
    {
        for lack in super::foreign::lacks(before, &wanted.object) {
            output::note(&format!("{} {}: {lack}", output::doubtful("‼"), wanted.name));
        }
        return Ok(Change::Foreign);
    }
    let after = match server::apply(cluster, wanted, (manner.mode, manner.conflicts)).await {
        Ok(after) => after,
        Err(ClusterError::Refused { code: 409, message, .. }) => {
            return Err(InstallError::Conflict { object: wanted.to_string(), message });
        }
        // Nothing can be tried in a namespace that is not there yet.
        Err(error) if manner.mode == Mode::DryRun && before.is_none() && error.is_not_found() => {
            return Ok(Change::Created);
        }
        Err(error) => return Err(apply_error(error)),
    };
    Ok(match before {
        None => Change::Created,
        Some(before) if is_same(&before, &after) => Change::Unchanged,
        Some(_) => Change::Configured,
    })
}

/// Whether an apply left an object alone. A dry run gives it no new version, so that its fields are compared.
fn is_same(before: &Value, after: &Value) -> bool {
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    version(before) == version(after) && super::compare::differences(before, after).is_empty()
}

/// Deletes what an earlier installation of the revision applied and this one does not have any more.
async fn prune(cluster: &Cluster, plan: &Plan, wanted: &[Wanted], mode: Mode) -> Result<Done, InstallError> {
    let mut done = Done::default();
    for object in of_revision(cluster, plan.revision()).await? {
        let is_wanted = wanted.iter().any(|wanted| wanted.kind == object.kind && wanted.name == object.name);
        if is_wanted || !is_managed_by(&object.object, name::FIELD_MANAGER_CLI) {
            continue;
        }
        if mode == Mode::Real {
            server::delete(cluster, object.kind, object.namespace.as_deref(), &object.name).await?;
        }
        done.add(Change::Deleted, object.to_string());
    }
    Ok(done)
}

/// Every object of an installation that is in the cluster, webhooks first.
///
/// # Errors
/// When the API server does not list them.
pub(crate) async fn of_revision(cluster: &Cluster, revision: &str) -> Result<Vec<Wanted>, ClusterError> {
    let labels = format!("{}={},{}={revision}", name::LABEL_PART_OF, name::PART_OF, name::LABEL_REVISION);
    let kinds: Vec<Kind> = KINDS
        .into_iter()
        .rev()
        .filter(|kind| !matches!(kind.step, Step::Definitions | Step::Namespace))
        .collect();
    let mut found = Vec::new();
    for kind in kinds {
        let namespace = kind.namespaced.then_some(name::SYSTEM_NAMESPACE);
        let objects = server::list(cluster, kind, namespace, &labels).await?;
        found.extend(objects.into_iter().filter_map(Wanted::new));
    }
    Ok(found)
}
