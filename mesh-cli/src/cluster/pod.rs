//! A pod, as far as commands look at it (pure).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use mesh_kube::name;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodView {
    /// Name.
    pub(crate) name: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub(crate) phase: String,
    /// Its condition `Ready`.
    pub(crate) is_ready: bool,
    /// It is being deleted.
    pub(crate) is_ending: bool,
    /// It has a proxy of this mesh.
    pub(crate) has_proxy: bool,
    /// Revision that its label names: of a replica of the control plane its own.
    pub(crate) revision: Option<String>,
    /// Its containers without proxy and initialisation.
    pub(crate) containers: Vec<String>,
    /// Its proxy's container runs, so that it can be asked. A pod whose init containers are at work is not
    /// `Running`, and its native sidecars may be.
    pub(crate) proxy_runs: bool,
    /// Its proxy says of itself that it is ready.
    pub(crate) proxy_is_ready: bool,
    /// What its proxy's container waits for, or was ended by; empty when it runs.
    pub(crate) proxy_trouble: String,
    /// What any of its containers waits for; empty when all run.
    pub(crate) trouble: String,
    /// Since when it is there.
    pub(crate) created: Option<Timestamp>,
}

impl PodView {
    /// Reads what is needed.
    pub(crate) fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let plain = spec.into_iter().flat_map(|spec| &spec.containers);
        let initial = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
        let has_proxy = plain.clone().chain(initial).any(|container| container.name == name::PROXY_CONTAINER);
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let statuses = || {
            let of = |status: Option<&Vec<ContainerStatus>>| status.cloned().unwrap_or_default();
            let mut all = of(status.and_then(|status| status.container_statuses.as_ref()));
            all.extend(of(status.and_then(|status| status.init_container_statuses.as_ref())));
            all
        };
        let proxy = statuses().into_iter().find(|container| container.name == name::PROXY_CONTAINER);
        let proxy_state = proxy.as_ref().and_then(|container| container.state.as_ref());
        Self {
            name: meta.name.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            is_ready: conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            is_ending: meta.deletion_timestamp.is_some(),
            has_proxy,
            revision: meta.labels.as_ref().and_then(|labels| labels.get(name::LABEL_REVISION).cloned()),
            containers: plain
                .map(|container| container.name.clone())
                .filter(|name| name != name::PROXY_CONTAINER)
                .collect(),
            proxy_runs: proxy_state.is_some_and(|state| state.running.is_some()),
            proxy_is_ready: proxy.as_ref().is_some_and(|container| container.ready),
            proxy_trouble: proxy.as_ref().map(trouble).unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            trouble: statuses().iter().map(trouble).find(|trouble| !trouble.is_empty()).unwrap_or_default(),
        }
    }

    /// `NAME.NAMESPACE`: the node id of its proxy.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }
}

fn trouble(container: &ContainerStatus) -> String {
    let Some(state) = &container.state else { return "not started".to_owned() };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_else(|| "waiting".to_owned());
        return match waiting.message.as_deref().filter(|message| !message.is_empty()) {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        };
    }
    match &state.terminated {
        Some(ended) if ended.exit_code != 0 => format!("ended with status {}", ended.exit_code),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_found_among_init_containers_too() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "containers": [{"name": "app"}],
                "initContainers": [{"name": "mesh-proxy", "restartPolicy": "Always"}],
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "initContainerStatuses": [{
                    "name": "mesh-proxy", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                }],
            },
        }))
        .expect("a pod");
        let view = PodView::of(&pod);
        assert_eq!(view.id(), "a.web");
        assert!(view.has_proxy && view.is_ready && view.is_ending && !view.has_ended());
        assert_eq!(view.containers, ["app"]);
        assert_eq!(view.proxy_trouble, "CrashLoopBackOff: back-off 10s");
        assert!(!view.proxy_runs && !view.proxy_is_ready);
    }
}
