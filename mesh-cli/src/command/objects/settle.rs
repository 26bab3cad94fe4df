//! Waiting until the mesh has taken a change: the control plane has it in force, and every proxy that it
//! concerns has acknowledged it.

use std::time::Duration;

use mesh_api::admin::{ControlStatus, ObjectSummary, ProxyStatus};
use mesh_api::model::ObjectRef;
use mesh_api::problem::Severity;
use tokio::time::Instant;

use super::{kind, say_the_same, spread};
use crate::admin_client::AskError;
use crate::command::mesh::{LocalMesh, Mesh};
use crate::command::proxy_status::remarks;
use crate::command::{EXIT_TIMEOUT, Failure};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(25);
/// Up to this number objects are asked for one by one, so that a large mesh does not list all of its own again
/// and again.
const ONE_BY_ONE_MAX: usize = 8;
/// Looks in a row that must find everything settled. One alone could fall between the moment at which an
/// object is in force and that at which the sessions of proxies learn of it.
const LOOKS: u32 = 2;

/// What is waited for.
#[derive(Debug)]
pub(crate) enum Expectation {
    /// The object says this.
    Says(ObjectRef, String),
    /// The object is in force, in a cluster at this generation or a later one.
    Reaches(ObjectRef, Stamp, Goal),
    /// The object is gone.
    Gone(ObjectRef),
}

/// How far an object has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The control plane has it in force.
    Accepted,
    /// And every connected proxy that it concerns enforces it.
    Enforced,
}

/// Which state of an object the API server has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Counts changes of what is wanted; `None` for kinds that have no such count.
    pub(crate) generation: Option<i64>,
    /// The version of the whole object.
    pub(crate) version: String,
}

impl Stamp {
    /// Any state.
    pub(crate) fn any() -> Self {
        Self { generation: None, version: String::new() }
    }

    /// The stamp of an object as the API server tells it.
    pub(crate) fn of(object: &serde_json::Value) -> Self {
        let metadata = object.get("metadata");
        let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
        let version = field("resourceVersion").and_then(serde_json::Value::as_str).unwrap_or_default();
        Self {
            generation: field("generation").and_then(serde_json::Value::as_i64),
            version: version.to_owned(),
        }
    }
}

impl Expectation {
    /// Which object.
    pub(crate) fn object(&self) -> &ObjectRef {
        match self {
            Self::Says(object, _) | Self::Reaches(object, _, _) | Self::Gone(object) => object,
        }
    }

    fn is_met(&self, found: Option<&ObjectSummary>) -> bool {
        match (self, found) {
            (Self::Gone(_), found) => found.is_none(),
            (Self::Says(_, text), Some(found)) => {
                !found.held && say_the_same(&found.yaml, text) && is_enforced(found)
            }
            (Self::Reaches(_, _, Goal::Accepted), Some(found)) => !found.held,
            (Self::Reaches(_, _, Goal::Enforced), Some(found)) => !found.held && is_enforced(found),
            (Self::Says(_, _) | Self::Reaches(_, _, _), None) => false,
        }
    }
}

fn is_enforced(found: &ObjectSummary) -> bool {
    found.enforced.is_none_or(|(taken, selected)| taken == selected)
}

/// Waits until all expectations are met, at most `bound`.
///
/// # Errors
/// When they are not met in time, with what is in the way; when a proxy refuses the change; when the control
/// plane does not answer.
pub(crate) async fn wait(mesh: &Mesh, expectations: &[Expectation], bound: Duration) -> Result<(), Failure> {
    if let Mesh::Cluster(_) = mesh {
        return spread::wait(mesh, expectations, bound).await;
    }
    let end = Instant::now() + bound;
    let mut looks = 0;
    let mut is_confirmed = false;
    loop {
        let objects = objects(mesh, expectations).await?;
        let status = mesh.control_status().await?;
        if let Some(refusal) = refusal(&status) {
            return Err(Failure::new(refusal).hint(
                "What was written stays, and the proxy keeps what it had. `meshctl proxy-status` says more.",
            ));
        }
        if !is_confirmed
            && let Mesh::Local(local) = mesh
            && let Some(folder) = to_confirm(local, &status, expectations)
        {
            // The folder was emptied by this very command: that is no accident.
            local.confirm(&folder).await?;
            is_confirmed = true;
        }
        let unmet: Vec<&Expectation> = expectations
            .iter()
            .filter(|expectation| !expectation.is_met(find(&objects, expectation.object())))
            .collect();
        let behind: Vec<&ProxyStatus> = status.proxies.iter().filter(|proxy| is_behind(proxy)).collect();
        looks = if unmet.is_empty() && behind.is_empty() { looks + 1 } else { 0 };
        if looks == LOOKS {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(late(&objects, &unmet, &behind, bound));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn objects(mesh: &Mesh, expectations: &[Expectation]) -> Result<Vec<ObjectSummary>, AskError> {
    if expectations.len() > ONE_BY_ONE_MAX {
        return mesh.objects().await;
    }
    let mut found = Vec::new();
    for expectation in expectations {
        found.extend(mesh.object(expectation.object()).await?);
    }
    Ok(found)
}

fn find<'a>(objects: &'a [ObjectSummary], wanted: &ObjectRef) -> Option<&'a ObjectSummary> {
    objects.iter().find(|object| {
        object.kind == wanted.kind
            && object.namespace == wanted.namespace.as_str()
            && object.name == wanted.name.as_str()
    })
}

/// A connected proxy that has not answered yet. One that is not connected catches up when it comes back.
fn is_behind(proxy: &ProxyStatus) -> bool {
    proxy.connected && proxy.types.values().any(|sync| sync.state == "STALE")
}

fn refusal(status: &ControlStatus) -> Option<String> {
    let refused = |proxy: &&ProxyStatus| proxy.types.values().any(|sync| sync.state == "ERROR");
    let proxy = status.proxies.iter().filter(|proxy| proxy.connected).find(refused)?;
    remarks(proxy).into_iter().find(|text| text.contains(" is ERROR"))
}

/// The configuration folder, if it is held and everything held in it is what this command deleted.
fn to_confirm(mesh: &LocalMesh, status: &ControlStatus, expectations: &[Expectation]) -> Option<String> {
    let config = mesh.config().to_string_lossy();
    let source = status.sources.iter().find(|source| source.path == config && source.suspended.is_some())?;
    let is_deleted = |held: &ObjectRef| {
        expectations
            .iter()
            .any(|expectation| matches!(expectation, Expectation::Gone(object) if object == held))
    };
    (!source.held.is_empty() && source.held.iter().all(is_deleted)).then(|| source.path.clone())
}

fn late(
    objects: &[ObjectSummary],
    unmet: &[&Expectation],
    behind: &[&ProxyStatus],
    bound: Duration,
) -> Failure {
    let mut reasons: Vec<String> = Vec::new();
    for expectation in unmet {
        let name = kind::display(expectation.object());
        let found = find(objects, expectation.object());
        let errors = found.into_iter().flat_map(|found| &found.problems);
        let errors: Vec<String> =
            errors.filter(|problem| problem.severity == Severity::Error).map(ToString::to_string).collect();
        reasons.push(match (expectation, found) {
            _ if !errors.is_empty() => errors.join("; "),
            (Expectation::Gone(_), _) => format!("{name} is still in force"),
            (Expectation::Says(_, text), Some(found)) if say_the_same(&found.yaml, text) => {
                acknowledged(&name, found)
            }
            (Expectation::Reaches(_, _, _), Some(found)) if !found.held => acknowledged(&name, found),
            (Expectation::Says(_, _) | Expectation::Reaches(_, _, _), Some(_)) => {
                format!("{name} is in force in its former version")
            }
            (Expectation::Says(_, _) | Expectation::Reaches(_, _, _), None) => {
                format!("{name} is not in force")
            }
        });
    }
    reasons.extend(behind.iter().flat_map(|proxy| remarks(proxy)));
    Failure::new(format!("after {} s the change is not everywhere: {}", bound.as_secs(), reasons.join("; ")))
        .hint("What was written stays, and the mesh goes on taking it. `meshctl status` and `meshctl proxy-status` show how far it is.")
        .status(EXIT_TIMEOUT)
}

fn acknowledged(name: &str, found: &ObjectSummary) -> String {
    let (taken, selected) = found.enforced.unwrap_or_default();
    format!("{name} is acknowledged by {taken} of {selected} proxies")
}
