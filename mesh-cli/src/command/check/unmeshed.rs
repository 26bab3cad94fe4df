//! Pods that should have a proxy and have none, and what events tell of pods that could not get one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::ListParams;
use mesh_kube::name;

use super::catalogue::{INJECTION_EVENTS, UNMESHED};
use super::report::{Mark, Report};
use crate::cluster::Cluster;
use crate::cluster::pod::PodView;

/// How far back events are told.
const EVENTS_SINCE: SignedDuration = SignedDuration::from_hours(1);
/// A pod younger than this may be on its way.
const GRACE: SignedDuration = SignedDuration::from_secs(10);
/// Namespaces that are never injected, so that cluster and control plane can always start.
const NEVER: [&str; 4] = [name::SYSTEM_NAMESPACE, "kube-system", "kube-public", "kube-node-lease"];

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

async fn pods(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<String>, crate::cluster::ClusterError> {
    let all = cluster.list_global::<Namespace>(&ListParams::default()).await?;
    let now = Timestamp::now();
    let mut lines = Vec::new();
    for one in &all {
        let Some(name) = one.metadata.name.as_deref() else { continue };
        let labels = one.metadata.labels.clone().unwrap_or_default();
        let annotations = one.metadata.annotations.clone().unwrap_or_default();
        if namespace.is_some_and(|wanted| wanted != name) || !asks(name, &labels, &annotations) {
            continue;
        }
        let pods = cluster.pods(Some(name), "").await?;
        let unmeshed = pods.iter().filter(|pod| lacks_proxy(pod, now)).map(|pod| format!("pod {}", pod.id()));
        lines.extend(unmeshed);
    }
    Ok(lines)
}

/// Whether a namespace asks for injection into all of its pods.
fn asks(name: &str, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
    let says = |key: &str, value: &str| {
        labels.get(key).or_else(|| annotations.get(key)).is_some_and(|found| found == value)
    };
    if NEVER.contains(&name) || says(name::LABEL_INJECTION, "disabled") || says(name::INJECT, "disabled") {
        return false;
    }
    says(name::LABEL_INJECTION, "enabled")
        || labels.contains_key(name::LABEL_REVISION)
        || says(name::LINKERD_INJECT, "enabled")
        || says(name::INJECT, "enabled")
}

fn lacks_proxy(pod: &PodView, now: Timestamp) -> bool {
    let says = |key: &str, value: &str| {
        pod.labels.get(key).or_else(|| pod.annotations.get(key)).is_some_and(|found| found == value)
    };
    let has_opted_out = says(name::SIDECAR_INJECT, "false")
        || says(name::LINKERD_INJECT, "disabled")
        || says(name::INJECT, "disabled");
    let is_new = pod.created.is_some_and(|created| now.duration_since(created) < GRACE);
    !(pod.has_proxy
        || has_opted_out
        || pod.uses_host_network
        || pod.is_mirror
        || pod.is_ending
        || pod.has_ended()
        || is_new)
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

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn namespaces_ask_by_the_labels_of_three_meshes() {
        for labels in [
            [("istio-injection", "enabled")],
            [("istio.io/rev", "canary")],
            [("mini-mesh.io/inject", "enabled")],
        ] {
            assert!(asks("web", &map(&labels), &map(&[])), "{labels:?}");
            assert!(!asks("istio-system", &map(&labels), &map(&[])), "{labels:?}");
        }
        assert!(asks("web", &map(&[]), &map(&[("linkerd.io/inject", "enabled")])));
        assert!(!asks("web", &map(&[("istio-injection", "disabled"), ("istio.io/rev", "x")]), &map(&[])));
        assert!(!asks("web", &map(&[]), &map(&[])));
    }

    #[test]
    fn pods_that_cannot_or_need_not_have_a_proxy_are_not_told() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let pod = PodView {
            created: Some("2026-01-01T00:00:00Z".parse().expect("a time")),
            phase: "Running".to_owned(),
            ..PodView::default()
        };
        assert!(lacks_proxy(&pod, now));
        for other in [
            PodView { has_proxy: true, ..pod.clone() },
            PodView { uses_host_network: true, ..pod.clone() },
            PodView { phase: "Succeeded".to_owned(), ..pod.clone() },
            PodView { labels: map(&[("sidecar.istio.io/inject", "false")]), ..pod.clone() },
            PodView { created: Some(now), ..pod.clone() },
        ] {
            assert!(!lacks_proxy(&other, now), "{other:?}");
        }
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
