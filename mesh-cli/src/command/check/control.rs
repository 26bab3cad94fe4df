//! The control plane in a cluster: what it needs, whether it runs, answers, leads and has read everything.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use mesh_api::admin::{ControlStatus, SourceStatus};
use mesh_api::problem::Severity;
use mesh_kube::name;

use super::catalogue::{
    CONTROL_ANSWERS, CONTROL_KEYS, CONTROL_LEADER, CONTROL_POLICIES, CONTROL_READY, CONTROL_SETTINGS,
    CONTROL_SOURCES, CONTROL_VERSION, CRDS,
};
use super::install::{Definition, definitions};
use super::report::{Mark, Report};
use crate::cluster::Cluster;
use crate::cluster::pod::PodView;
use crate::command::mesh::{Mesh, Replica};
use crate::output;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the checks; whether a control plane answers.
pub(super) async fn look(mesh: &Mesh, cluster: &Cluster, report: &mut Report) -> bool {
    match definitions(cluster).await {
        Ok(found) => {
            let missing = found.iter().filter(|(_, state)| *state != Definition::Served);
            let missing = missing.map(|(name, state)| format!("{name} {}", state.told()));
            report.judge(CRDS, Mark::Bad, missing.collect());
        }
        Err(error) => report.unanswered(CRDS, &error),
    }
    settings(cluster, report).await;
    let replicas = ready(cluster, report).await;
    if replicas.is_empty() {
        return false;
    }
    leader(cluster, &replicas, report).await;
    let mut statuses = Vec::new();
    let mut silent = Vec::new();
    match mesh.each_replica::<ControlStatus>("/status").await {
        Ok(answers) => {
            for Replica { name, answer } in answers {
                match answer {
                    Ok(status) => statuses.push((name, status)),
                    Err(error) => silent.push(format!("{name}: {}", output::chain(&error))),
                }
            }
        }
        Err(error) => silent.push(output::chain(&error)),
    }
    report.judge(CONTROL_ANSWERS, Mark::Bad, silent);
    if statuses.is_empty() {
        return false;
    }
    of_statuses(&statuses, report);
    policies(mesh, report).await;
    true
}

/// What the answers of replicas say; of a mesh on this machine too.
pub(super) fn of_statuses(statuses: &[(String, ControlStatus)], report: &mut Report) {
    let others = statuses.iter().filter(|(_, status)| status.version != VERSION);
    let others =
        others.map(|(name, status)| format!("{name} is {}, this program is {VERSION}", status.version));
    report.judge(CONTROL_VERSION, Mark::Doubtful, others.collect());
    let mut held: Vec<String> = statuses
        .iter()
        .flat_map(|(name, status)| status.sources.iter().flat_map(move |one| source(name, one)))
        .collect();
    held.dedup();
    report.judge(CONTROL_SOURCES, Mark::Doubtful, held);
    let mut keyless: Vec<String> = statuses
        .iter()
        .flat_map(|(_, status)| &status.key_sources)
        .filter(|source| source.keys == 0 && !source.problem.is_empty())
        .map(|source| format!("{}: {}", source.url, source.problem))
        .collect();
    keyless.sort();
    keyless.dedup();
    report.judge(CONTROL_KEYS, Mark::Bad, keyless);
}

fn source(name: &str, source: &SourceStatus) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(source.suspended.iter().map(|reason| format!("{name}: {}: {reason}", source.path)));
    lines.extend(source.held.iter().map(|object| format!("{object} is held in its last good version")));
    lines
}

/// Errors of objects.
pub(super) async fn policies(mesh: &Mesh, report: &mut Report) {
    match mesh.problems().await {
        Ok(problems) => {
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            report.judge(CONTROL_POLICIES, Mark::Bad, errors.map(ToString::to_string).collect());
        }
        Err(error) => report.unanswered(CONTROL_POLICIES, &error),
    }
}

async fn settings(cluster: &Cluster, report: &mut Report) {
    let revision = cluster.revision.as_deref().unwrap_or(name::DEFAULT_REVISION);
    // Without a revision all are meant: those that say which they are of.
    let labels = match &cluster.revision {
        Some(revision) => {
            format!("{}={},{}={revision}", name::LABEL_PART_OF, name::PART_OF, name::LABEL_REVISION)
        }
        None => format!("{}={}", name::LABEL_PART_OF, name::PART_OF),
    };
    let namespace = &cluster.system_namespace;
    let found = match cluster.list::<ConfigMap>(Some(namespace), &ListParams::default().labels(&labels)).await
    {
        Ok(found) => found,
        Err(error) => return report.unanswered(CONTROL_SETTINGS, &error),
    };
    let settings: Vec<&ConfigMap> = found
        .iter()
        .filter(|map| {
            let name = map.metadata.name.as_deref().unwrap_or_default();
            let revision = map.metadata.labels.as_ref().and_then(|labels| labels.get(name::LABEL_REVISION));
            let suffix = revision.filter(|revision| *revision != name::DEFAULT_REVISION);
            name == suffix
                .map_or_else(|| name::CONFIG.to_owned(), |suffix| format!("{}-{suffix}", name::CONFIG))
        })
        .collect();
    if settings.is_empty() {
        let suffix = if revision == name::DEFAULT_REVISION { String::new() } else { format!("-{revision}") };
        report.bad(
            CONTROL_SETTINGS,
            vec![format!("there is no ConfigMap {}{suffix} in namespace {namespace}", name::CONFIG)],
        );
        return;
    }
    let lacks = |map: &&ConfigMap| {
        let name = map.metadata.name.clone().unwrap_or_default();
        let data = map.data.clone().unwrap_or_default();
        let absent =
            [name::CONFIG_MESH, name::CONFIG_INJECT].into_iter().filter(move |key| !data.contains_key(*key));
        absent.map(move |key| format!("ConfigMap {name} has no key {key}")).collect::<Vec<_>>()
    };
    report.judge(CONTROL_SETTINGS, Mark::Bad, settings.iter().flat_map(lacks).collect());
}

/// Replicas that run, ready or not.
async fn ready(cluster: &Cluster, report: &mut Report) -> Vec<PodView> {
    let mut labels = format!("{}={}", name::LABEL_COMPONENT, name::COMPONENT_CONTROL);
    if let Some(revision) = &cluster.revision {
        labels.push_str(&format!(",{}={revision}", name::LABEL_REVISION));
    }
    let namespace = &cluster.system_namespace;
    let mut pods = match cluster.pods(Some(namespace), &labels).await {
        Ok(pods) => pods,
        Err(error) => {
            report.unanswered(CONTROL_READY, &error);
            return Vec::new();
        }
    };
    pods.retain(|pod| !pod.is_ending && !pod.has_ended());
    if pods.is_empty() {
        let revision = cluster.revision.as_ref().map(|revision| format!(" of revision {revision}"));
        let revision = revision.unwrap_or_default();
        report.bad_with(
            CONTROL_READY,
            vec![format!("no pod of a control plane{revision} is in namespace {namespace}")],
            "`meshctl install` installs one; -i NAMESPACE names where it is, if it is elsewhere.",
        );
        return Vec::new();
    }
    let is_any = pods.iter().any(|pod| pod.is_ready);
    let late: Vec<String> = pods
        .iter()
        .filter(|pod| !pod.is_ready)
        .map(|pod| format!("{} is {}, not ready{}", pod.name, pod.phase, told(&pod.trouble)))
        .collect();
    // One replica that serves is enough for the mesh; that another does not is worth a look.
    report.judge(CONTROL_READY, if is_any { Mark::Doubtful } else { Mark::Bad }, late);
    pods.retain(|pod| pod.phase == "Running");
    pods
}

fn told(trouble: &str) -> String {
    if trouble.is_empty() { String::new() } else { format!(": {trouble}") }
}

async fn leader(cluster: &Cluster, replicas: &[PodView], report: &mut Report) {
    let lease = match cluster.get::<Lease>(&cluster.system_namespace, name::LEADER_LEASE).await {
        Ok(lease) => lease,
        Err(error) => return report.unanswered(CONTROL_LEADER, &error),
    };
    let names: Vec<&str> = replicas.iter().map(|pod| pod.name.as_str()).collect();
    // All revisions share the lease, so the holder may be a pod that was not asked for.
    let known = if cluster.revision.is_none() { Some(names.as_slice()) } else { None };
    report.judge(CONTROL_LEADER, Mark::Bad, lead(lease.as_ref(), known, Timestamp::now()));
}

/// What is wrong with the leader's lease.
fn lead(lease: Option<&Lease>, replicas: Option<&[&str]>, now: Timestamp) -> Vec<String> {
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else {
        return vec![format!("there is no Lease {}", name::LEADER_LEASE)];
    };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() {
        return vec!["nobody holds the lease".to_owned()];
    }
    let age = spec.renew_time.as_ref().map_or(i64::MAX, |time| now.duration_since(time.0).as_secs());
    let term = i64::from(spec.lease_duration_seconds.unwrap_or(15));
    if age > term {
        let ago = u64::try_from(age)
            .map_or_else(|_| "never".to_owned(), |age| format!("{} ago", output::duration(age)));
        return vec![format!("{holder} holds the lease and renewed it {ago}")];
    }
    match replicas {
        Some(replicas)
            if !replicas.iter().any(|name| holder == *name || holder.starts_with(&format!("{name}_"))) =>
        {
            vec![format!("{holder} holds the lease, and is no running replica")]
        }
        Some(_) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(holder: &str, renewed: &str) -> Vec<String> {
        let lease: Lease = serde_json::from_value(json!({
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
        }))
        .expect("a lease");
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        lead(Some(&lease), Some(&["mesh-control-1"]), now)
    }

    #[test]
    fn a_leader_is_a_running_replica_that_renews_its_lease() {
        assert!(judged("mesh-control-1", "2026-01-01T00:00:55.000000Z").is_empty());
        assert!(judged("mesh-control-1", "2026-01-01T00:00:30.000000Z")[0].contains("30s ago"));
        assert!(judged("mesh-control-0", "2026-01-01T00:00:55.000000Z")[0].contains("no running replica"));
        assert_eq!(judged("", "2026-01-01T00:00:55.000000Z"), ["nobody holds the lease"]);
        assert!(lead(None, None, Timestamp::UNIX_EPOCH)[0].contains("there is no Lease"));
    }
}
