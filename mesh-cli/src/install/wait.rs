//! Waiting for what takes its time in a cluster: definitions, a rollout, the trust of the webhooks.

use std::time::{Duration, Instant};

use mesh_kube::crd::{DEFINITIONS, Definition};
use mesh_kube::name;
use serde_json::Value;

use super::object::Kind;
use super::server;
use crate::cluster::{Cluster, ClusterError};
use crate::output;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A reason is told when it has stood for this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why something did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Definitions.
    #[error("the API server did not take up the definition {0} in time")]
    Definition(String),
    /// The control plane.
    #[error("the control plane did not come up in time: {reason}")]
    Rollout {
        /// The revision.
        revision: String,
        /// What stands in its way.
        reason: String,
    },
    /// Webhooks.
    #[error("the control plane did not write its certificate into {0} in time")]
    Webhook(String),
}

impl WaitError {
    /// What to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        let control = |revision: &str| name::of_revision(name::CONTROL, revision);
        match self {
            Self::Cluster(error) => error.hint(),
            Self::Definition(_) => Some("Run the command again; it goes on where it ended.".to_owned()),
            Self::Rollout { revision, .. } => Some(format!(
                "`kubectl -n {0} describe pods -l app={1}` and `kubectl -n {0} logs deploy/{2}` say more; run the \
                 command again when it is mended, --timeout waits longer.",
                name::SYSTEM_NAMESPACE,
                name::CONTROL,
                control(revision)
            )),
            Self::Webhook(_) => Some("`meshctl check` and the log of the leader say more.".to_owned()),
        }
    }
}

/// Until every definition of a kind is served.
pub(super) async fn established(cluster: &Cluster, until: Instant) -> Result<(), WaitError> {
    let Some(kind) = Kind::named("CustomResourceDefinition") else { return Ok(()) };
    for definition in DEFINITIONS.iter().map(Definition::name) {
        loop {
            let found = server::get(cluster, kind, None, &definition).await?.unwrap_or_default();
            if has_condition(&found, "Established") {
                break;
            }
            pause(until).await.ok_or_else(|| WaitError::Definition(definition.clone()))?;
        }
    }
    Ok(())
}

/// Until every replica of the control plane is of the newest kind and ready; says how many there are.
pub(super) async fn rolled_out(
    cluster: &Cluster,
    revision: &str,
    until: Instant,
) -> Result<String, WaitError> {
    let Some(kind) = Kind::named("Deployment") else { return Ok(String::new()) };
    let deployment = name::of_revision(name::CONTROL, revision);
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let found = server::get(cluster, kind, Some(name::SYSTEM_NAMESPACE), &deployment).await?;
        let Some(reason) = missing(&found.unwrap_or_default()) else {
            let ready = cluster.pods(Some(name::SYSTEM_NAMESPACE), &selector(revision)).await?;
            let ready = ready.iter().filter(|pod| pod.is_ready && !pod.is_ending).count();
            return Ok(format!(", {}", output::count(ready, "replica ready", "replicas ready")));
        };
        let troubles = troubles(cluster, revision).await?;
        let is_hopeless = troubles.iter().any(|trouble| trouble.is_hopeless);
        let reason = match troubles.first() {
            Some(trouble) => format!("{reason}; {}", trouble.text),
            None => reason,
        };
        if started.elapsed() > PATIENCE && reason != told {
            output::note(&format!("  waiting: {reason}"));
            told.clone_from(&reason);
        }
        if is_hopeless || pause(until).await.is_none() {
            return Err(WaitError::Rollout { revision: revision.to_owned(), reason });
        }
    }
}

/// Until the control plane has written what its webhooks' certificate is verified with.
pub(super) async fn trusted(cluster: &Cluster, revision: &str, until: Instant) -> Result<(), WaitError> {
    let labels = format!("{}={},{}={revision}", name::LABEL_PART_OF, name::PART_OF, name::LABEL_REVISION);
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let Some(kind) = Kind::named(kind) else { continue };
        loop {
            let found = server::list(cluster, kind, None, &labels).await?;
            let Some(without) = found.iter().find(|configuration| !is_trusted(configuration)) else { break };
            let name = without["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            pause(until).await.ok_or(WaitError::Webhook(name))?;
        }
    }
    Ok(())
}

fn is_trusted(configuration: &Value) -> bool {
    let webhooks = configuration["webhooks"].as_array();
    let bundle =
        |webhook: &Value| webhook["clientConfig"]["caBundle"].as_str().is_some_and(|text| !text.is_empty());
    webhooks.into_iter().flatten().all(bundle)
}

/// Sleeps a little, unless the time is over.
async fn pause(until: Instant) -> Option<()> {
    if Instant::now() >= until {
        return None;
    }
    tokio::time::sleep(INTERVAL).await;
    Some(())
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Labels of the pods of a revision.
pub(crate) fn selector(revision: &str) -> String {
    format!("{}={},{}={revision}", name::LABEL_COMPONENT, name::COMPONENT_CONTROL, name::LABEL_REVISION)
}

/// What a Deployment still lacks; nothing when it is rolled out.
fn missing(deployment: &Value) -> Option<String> {
    let number = |field: &Value| field.as_i64().unwrap_or_default();
    let status = &deployment["status"];
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    if number(&status["observedGeneration"]) < number(&deployment["metadata"]["generation"])
        || deployment["metadata"]["generation"].is_null()
    {
        return Some("its Deployment is not looked at yet".to_owned());
    }
    let updated = number(&status["updatedReplicas"]);
    let available = number(&status["availableReplicas"]);
    let all = number(&status["replicas"]);
    if updated < wanted {
        Some(format!("{updated} of {wanted} new replicas started"))
    } else if available < wanted {
        Some(format!("{available} of {wanted} replicas ready"))
    } else if all > updated {
        Some(format!("{} old replicas still to end", all - updated))
    } else {
        None
    }
}

/// Why a pod does not run.
struct Trouble {
    text: String,
    /// Whether waiting cannot help.
    is_hopeless: bool,
}

async fn troubles(cluster: &Cluster, revision: &str) -> Result<Vec<Trouble>, ClusterError> {
    let params = kube::api::ListParams::default().labels(&selector(revision));
    let pods = cluster.list::<k8s_openapi::api::core::v1::Pod>(Some(name::SYSTEM_NAMESPACE), &params).await?;
    Ok(pods.iter().filter_map(trouble).collect())
}

fn trouble(pod: &k8s_openapi::api::core::v1::Pod) -> Option<Trouble> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(Trouble { text: format!("pod {name} finds no node: {message}"), is_hopeless: false });
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        (reason != "ContainerCreating").then(|| (reason, waiting.message.as_deref().unwrap_or_default()))
    })?;
    let (reason, message) = waiting;
    Some(Trouble {
        text: format!("pod {name}: {reason}: {message}"),
        is_hopeless: matches!(
            reason,
            "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError"
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_done_when_every_replica_is_new_and_ready() {
        let state =
            |status: Value| json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
        for (status, reason) in [
            (json!({}), Some("not looked at")),
            (
                json!({"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2}),
                Some("not looked at"),
            ),
            (json!({"observedGeneration": 2, "updatedReplicas": 1}), Some("1 of 2 new replicas")),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 1}),
                Some("1 of 2 replicas"),
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 3}),
                Some("1 old replicas"),
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}),
                None,
            ),
        ] {
            let found = missing(&state(status.clone()));
            assert_eq!(found.is_some(), reason.is_some(), "{status}: {found:?}");
            assert!(found.unwrap_or_default().contains(reason.unwrap_or_default()), "{status}");
        }
    }
}
