//! Pods that should have a proxy and have none, and what events tell of pods that could not get one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod};
use kube::api::ListParams;
use mesh_kube::inject::{InjectSettings, NamespaceMeta, decide};
use mesh_kube::name;
use serde_json::Value;

use super::catalogue::{INJECTION_EVENTS, UNMESHED};
use super::report::{Mark, Report};
use crate::cluster::pod::PodView;
use crate::cluster::{Cluster, ClusterError};

/// How far back events are told.
const EVENTS_SINCE: SignedDuration = SignedDuration::from_hours(1);
/// A pod younger than this may be on its way.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// Makes the checks.
pub(super) async fn look(cluster: &Cluster, namespace: Option<&str>, report: &mut Report) {
    match pods(cluster, namespace).await {
        Ok(lines) => report.judge(UNMESHED, Mark::Doubtful, lines),
        Err(error) => report.unanswered(UNMESHED, &error),
    }
    match cluster.list::<Event>(namespace, &ListParams::default().fields("type=Warning")).await {
        Ok(events) => report.judge(INJECTION_EVENTS, Mark::Doubtful, told(&events, Timestamp::now())),
        Err(error) => report.unanswered(INJECTION_EVENTS, &error),
    }
}

async fn pods(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<String>, ClusterError> {
    let settings = settings(cluster).await?;
    let namespaces: BTreeMap<String, NamespaceMeta> = cluster
        .list_global::<Namespace>(&ListParams::default())
        .await?
        .into_iter()
        .filter_map(|one| {
            let name = one.metadata.name?;
            let labels = one.metadata.labels.unwrap_or_default();
            let annotations = one.metadata.annotations.unwrap_or_default();
            Some((name.clone(), NamespaceMeta { name, labels, annotations }))
        })
        .collect();
    let now = Timestamp::now();
    let pods = cluster.list::<Pod>(namespace, &ListParams::default()).await?;
    let mut lines: Vec<String> = pods
        .iter()
        .filter_map(|pod| {
            let view = PodView::of(pod);
            let namespace = namespaces.get(&view.namespace)?;
            let value = serde_json::to_value(pod).ok()?;
            lacks_proxy(&view, &value, namespace, &settings, now).then(|| format!("pod {}", view.id()))
        })
        .collect();
    lines.sort();
    Ok(lines)
}

/// The settings of injection of each revision. Without any those of a new installation: that pods lack a proxy can
/// be said of a cluster whose control plane is gone, too.
async fn settings(cluster: &Cluster) -> Result<Vec<InjectSettings>, ClusterError> {
    let ours = ListParams::default().labels(&format!("{}={}", name::LABEL_PART_OF, name::PART_OF));
    let maps = cluster.list::<ConfigMap>(Some(&cluster.system_namespace), &ours).await?;
    let mut settings: Vec<InjectSettings> = maps
        .into_iter()
        .filter_map(|map| map.data?.remove(name::CONFIG_INJECT))
        .filter_map(|text| InjectSettings::parse(&text).ok())
        .collect();
    if settings.is_empty() {
        settings.push(InjectSettings::default());
    }
    Ok(settings)
}

/// Whether a pod would be injected if it were created now, by any revision, and has no proxy.
fn lacks_proxy(
    view: &PodView,
    pod: &Value,
    namespace: &NamespaceMeta,
    settings: &[InjectSettings],
    now: Timestamp,
) -> bool {
    let is_new = view.created.is_some_and(|created| now.duration_since(created) < GRACE);
    if view.has_proxy || view.is_ending || view.has_ended() || is_new {
        return false;
    }
    settings.iter().any(|settings| decide(pod, namespace, settings).is_inject())
}

/// Events of the last hour about injection.
fn told(events: &[Event], now: Timestamp) -> Vec<String> {
    let is_about_injection = |event: &&Event| {
        let message = event.message.as_deref().unwrap_or_default();
        match event.reason.as_deref() {
            Some("NotInjected") => true,
            Some("FailedCreate") => {
                message.contains("injector.mini-mesh.io") || message.contains("mini-mesh")
            }
            _ => false,
        }
    };
    let is_recent = |event: &&Event| {
        let time = event.last_timestamp.as_ref().map(|time| time.0);
        let time = time.or_else(|| event.event_time.as_ref().map(|time| time.0));
        let time = time.or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0));
        time.is_none_or(|time| now.duration_since(time) < EVENTS_SINCE)
    };
    let mut lines: Vec<String> = events
        .iter()
        .filter(is_about_injection)
        .filter(is_recent)
        .map(|event| {
            let object = &event.involved_object;
            let kind = object.kind.as_deref().unwrap_or("object").to_lowercase();
            let name = object.name.as_deref().unwrap_or_default();
            let namespace = object.namespace.as_deref().unwrap_or_default();
            format!("{kind} {name}.{namespace}: {}", event.message.as_deref().unwrap_or_default().trim())
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(change: impl Fn(&mut Value)) -> bool {
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a", "namespace": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        let view = PodView::of(&serde_json::from_value(pod.clone()).expect("a pod"));
        let namespace = NamespaceMeta {
            name: "web".to_owned(),
            labels: [("istio-injection".to_owned(), "enabled".to_owned())].into(),
            annotations: BTreeMap::new(),
        };
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        lacks_proxy(&view, &pod, &namespace, &[InjectSettings::default()], now)
    }

    #[test]
    fn a_pod_of_an_injected_namespace_without_a_proxy_is_told() {
        assert!(judged(|_| {}));
    }

    #[test]
    fn pods_that_cannot_or_need_not_have_a_proxy_are_not_told() {
        assert!(!judged(|pod| pod["spec"]["hostNetwork"] = true.into()));
        assert!(!judged(|pod| pod["status"]["phase"] = "Succeeded".into()));
        assert!(!judged(|pod| pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "false"})));
        assert!(!judged(|pod| pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:58Z".into()));
        assert!(!judged(|pod| pod["spec"]["initContainers"] = json!([{"name": "mesh-proxy"}])));
    }

    #[test]
    fn only_recent_events_about_injection_are_told() {
        let event = |reason: &str, message: &str, time: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "reason": reason, "message": message, "lastTimestamp": time,
                "involvedObject": {"kind": "Pod", "name": "a", "namespace": "n"},
            }))
            .expect("an event")
        };
        let now = "2026-01-01T02:00:00Z".parse().expect("a time");
        let events = [
            event("NotInjected", "no", "2026-01-01T01:30:00Z"),
            event("NotInjected", "old", "2026-01-01T00:30:00Z"),
            event("FailedCreate", "exceeded quota", "2026-01-01T01:30:00Z"),
        ];
        assert_eq!(told(&events, now), ["pod a.n: no"]);
    }
}
