//! Pods that ask for a proxy and have none.
//!
//! They come to be when a namespace is labelled after its pods were made, when somebody takes the webhook away,
//! or where a webhook that may be passed by was not reached. Each is looked for among the pods that the registry
//! knows, given [`GRACE`] to turn out otherwise, then read whole and judged by the function that injects; what it
//! would have injected gets a warning on the pod that says what to do, is counted, and is listed for operators.
//!
//! Pods that their namespace has injected and that cannot be (the network of their node, Windows, a sidecar of
//! another mesh) get a note once, so that nobody wonders.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use mesh_api::admin::UnmeshedPod;
use mesh_api::error_chain::chain;
use mesh_api::model::{Kind, Workload};
use mesh_kube::inject::{Decision, InjectSettings, NamespaceMeta, Reason, decide};
use mesh_kube::name::{CONFIG_INJECT, CONTROL, LABEL_PART_OF, PART_OF};
use serde_json::{Value, json};

use crate::plane::Plane;
use crate::telemetry::metrics::webhook as metrics;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a pod is given: the registry may know it before its labels are whole.
const GRACE: Duration = Duration::from_secs(10);
/// How often the settings of the revisions are read.
const SETTINGS_EVERY: Duration = Duration::from_secs(30);
/// Pods that are read and told of in one look.
const POD_READS_MAX: usize = 50;
/// Pods that are kept in mind and listed.
const PODS_MAX: usize = 2_000;
/// Namespaces that have a metric of their own.
const NAMESPACES_MAX: usize = 100;
/// Older pods get no note that they are skipped: somebody else noted it.
const NOTE_WITHIN: i64 = 300;

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PodName {
    namespace: String,
    name: String,
}

/// What is known of a pod without a proxy.
#[derive(Debug)]
struct Case {
    seen: Instant,
    /// What was found once it was read.
    found: Option<Found>,
}

/// What a pod without a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// It should have one.
    Unmeshed { reason: String },
    /// It is right as it is.
    Well,
}

/// Looks for pods without a proxy.
pub(super) async fn run(client: &Client, plane: &Arc<Plane>) -> Infallible {
    let reporter = Reporter { controller: CONTROL.to_owned(), instance: None };
    let mut watch = Watch {
        client: client.clone(),
        plane: Arc::clone(plane),
        events: Recorder::new(client.clone(), reporter),
        settings: Vec::new(),
        settings_at: None,
        cases: BTreeMap::new(),
        measured: BTreeSet::new(),
    };
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        watch.look(Instant::now()).await;
    }
}

struct Watch {
    client: Client,
    plane: Arc<Plane>,
    events: Recorder,
    settings: Vec<InjectSettings>,
    settings_at: Option<Instant>,
    cases: BTreeMap<PodName, Case>,
    measured: BTreeSet<String>,
}

impl Watch {
    async fn look(&mut self, now: Instant) {
        if self.settings_at.is_none_or(|at| now.duration_since(at) >= SETTINGS_EVERY) {
            self.read_settings().await;
            self.settings_at = Some(now);
        }
        let candidates = self.candidates();
        self.cases.retain(|pod, _| candidates.contains(pod));
        for pod in candidates {
            if self.cases.len() < PODS_MAX {
                self.cases.entry(pod).or_insert(Case { seen: now, found: None });
            }
        }
        let is_due = |case: &Case| case.found.is_none() && now.duration_since(case.seen) >= GRACE;
        let due: Vec<PodName> = self
            .cases
            .iter()
            .filter(|(_, case)| is_due(case))
            .map(|(pod, _)| pod.clone())
            .take(POD_READS_MAX)
            .collect();
        for pod in due {
            let found = self.read(&pod).await;
            if let Some(case) = self.cases.get_mut(&pod) {
                case.found = found;
            }
        }
        self.publish();
    }

    /// Settings of every revision. One that cannot be read leaves what was known.
    async fn read_settings(&mut self) {
        let root = self.plane.snapshot().registry().settings().root_namespace.clone();
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), root.as_str());
        let ours = ListParams::default().labels(&format!("{LABEL_PART_OF}={PART_OF}"));
        match api.list(&ours).await {
            Ok(maps) => {
                let texts = maps.items.iter().filter_map(|map| map.data.as_ref()?.get(CONFIG_INJECT));
                let settings: Vec<_> = texts.filter_map(|text| InjectSettings::parse(text).ok()).collect();
                if !settings.is_empty() {
                    self.settings = settings;
                }
            }
            Err(error) => tracing::debug!(error = chain(&error), "settings of injection cannot be listed"),
        }
    }

    /// Pods without a proxy that seem to ask for one, by what the registry knows of them.
    fn candidates(&self) -> BTreeSet<PodName> {
        let pods: Vec<Arc<Workload>> = {
            let snapshot = self.plane.snapshot();
            let is_without =
                |workload: &&Arc<Workload>| workload.meta.object.kind == Kind::Pod && !workload.meshed;
            snapshot.registry().workloads().filter(is_without).cloned().collect()
        };
        let mut namespaces: BTreeMap<String, NamespaceMeta> = BTreeMap::new();
        for namespace in self.plane.namespaces() {
            let meta = NamespaceMeta {
                name: namespace.object.name.to_string(),
                labels: namespace.labels.clone(),
                annotations: namespace.annotations.clone(),
            };
            namespaces.insert(meta.name.clone(), meta);
        }
        pods.iter()
            .filter(|pod| {
                let namespace = namespaces.get(pod.meta.object.namespace.as_str());
                namespace.is_some_and(|namespace| self.asks(&outline(pod), namespace))
            })
            .map(|pod| PodName {
                namespace: pod.meta.object.namespace.to_string(),
                name: pod.meta.object.name.to_string(),
            })
            .collect()
    }

    /// Whether a revision injects such a pod, or would if it could.
    fn asks(&self, pod: &Value, namespace: &NamespaceMeta) -> bool {
        self.settings.iter().any(|settings| match decide(pod, namespace, settings) {
            Decision::Inject { .. } | Decision::Refuse { .. } => true,
            Decision::Skip { reason } => is_obstacle(&reason),
        })
    }

    /// Reads a pod and tells of it. `None` when it has to be looked at again.
    async fn read(&self, name: &PodName) -> Option<Found> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &name.namespace, &resource);
        let pod = match api.get(&name.name).await {
            Ok(pod) => pod,
            // It has gone; the registry will know.
            Err(kube::Error::Api(status)) if status.code == 404 => return Some(Found::Well),
            Err(error) => {
                tracing::debug!(
                    pod = name.name,
                    error = chain(&error),
                    "a pod without a proxy cannot be read"
                );
                return None;
            }
        };
        let value = serde_json::to_value(&pod).ok()?;
        let namespace = mesh_api::name::Namespace::parse(&name.namespace).ok()?;
        let known = self.plane.namespace(&namespace)?;
        let meta = NamespaceMeta {
            name: name.namespace.clone(),
            labels: known.labels.clone(),
            annotations: known.annotations.clone(),
        };
        let decisions: Vec<Decision> =
            self.settings.iter().map(|settings| decide(&value, &meta, settings)).collect();
        let (found, event) = judged(&decisions, &value, age(&pod))?;
        if let Some(event) = event {
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(name.namespace.clone()),
                name: Some(name.name.clone()),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            };
            if let Err(error) = self.events.publish(&event, &about).await {
                tracing::warn!(
                    pod = name.name,
                    error = chain(&error),
                    "an event of a pod could not be written"
                );
                return None;
            }
        }
        Some(found)
    }

    /// Metrics and the operators' list.
    fn publish(&mut self) {
        let mut pods = Vec::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (pod, case) in &self.cases {
            let Some(Found::Unmeshed { reason }) = &case.found else { continue };
            let is_own = counts.len() < NAMESPACES_MAX || counts.contains_key(&pod.namespace);
            let label = if is_own { pod.namespace.clone() } else { "_other".to_owned() };
            *counts.entry(label).or_default() += 1;
            pods.push(UnmeshedPod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                reason: reason.clone(),
            });
        }
        for gone in self.measured.iter().filter(|namespace| !counts.contains_key(*namespace)) {
            metrics::unmeshed(gone, 0);
        }
        for (namespace, count) in &counts {
            metrics::unmeshed(namespace, *count);
        }
        self.measured = counts.into_keys().collect();
        self.plane.set_unmeshed(pods);
    }
}

/// A pod as far as the registry knows it.
fn outline(pod: &Workload) -> Value {
    json!({
        "metadata": {"labels": pod.labels, "annotations": pod.meta.annotations},
        "spec": {"hostNetwork": pod.shares_addresses},
    })
}

/// Reasons for which a pod stays without a proxy although it was asked for one.
fn is_obstacle(reason: &Reason) -> bool {
    matches!(reason, Reason::HostNetwork | Reason::Windows | Reason::OtherMesh(_))
}

/// Seconds since a pod was made.
fn age(pod: &DynamicObject) -> i64 {
    let made = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX) - made
}

/// What a pod is by what the revisions decide of it, and what is said on it. `None` when no revision is known.
fn judged(decisions: &[Decision], pod: &Value, age: i64) -> Option<(Found, Option<Event>)> {
    if decisions.is_empty() {
        return None;
    }
    let event = |type_, reason: &str, note: String| Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Inject".to_owned(),
        secondary: None,
    };
    for decision in decisions {
        match decision {
            Decision::Inject { reason } => {
                let note = format!(
                    "The pod has no proxy although {reason}: it was made before that was said, or while the webhook \
                     was not reached. Its traffic is neither encrypted nor checked. To have it injected, {}.",
                    remedy(pod)
                );
                let found = Found::Unmeshed { reason: reason.to_string() };
                return Some((found, Some(event(EventType::Warning, "NotInjected", note))));
            }
            Decision::Refuse { reason } => {
                let note = format!(
                    "The pod asks for a proxy and has none, and it would be refused today: {reason}. Correct its \
                     template, then {}.",
                    remedy(pod)
                );
                let found = Found::Unmeshed { reason: reason.to_string() };
                return Some((found, Some(event(EventType::Warning, "NotInjected", note))));
            }
            Decision::Skip { reason } if is_obstacle(reason) && age < NOTE_WITHIN => {
                let note = format!("The pod is not part of the mesh: {reason}.");
                return Some((Found::Well, Some(event(EventType::Normal, "InjectionSkipped", note))));
            }
            Decision::Skip { .. } => {}
        }
    }
    Some((Found::Well, None))
}

/// How a pod is made anew.
fn remedy(pod: &Value) -> String {
    let owner = pod.pointer("/metadata/ownerReferences/0");
    let text = |key: &str| owner.and_then(|owner| owner.get(key)).and_then(Value::as_str);
    match (text("kind"), text("name")) {
        (Some("ReplicaSet"), Some(name)) => {
            // A Deployment's ReplicaSet is called after it, with a hash behind.
            let deployment = name.rsplit_once('-').map_or(name, |(deployment, _)| deployment);
            format!("run kubectl rollout restart deployment/{deployment}")
        }
        (Some(kind @ ("StatefulSet" | "DaemonSet")), Some(name)) => {
            format!("run kubectl rollout restart {}/{name}", kind.to_lowercase())
        }
        (Some("Job"), Some(name)) => format!("delete and create the job {name} again"),
        (Some(_), _) => "delete it: its owner makes it anew".to_owned(),
        (None, _) => "delete and create it again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::api_server::ApiServer;
    use crate::fixture::{plane, workload};
    use crate::ingest::ingest;
    use crate::registry::{Change, Entry};

    fn inject() -> Decision {
        Decision::Inject { reason: Reason::EnabledByDefault }
    }

    fn skip(reason: Reason) -> Decision {
        Decision::Skip { reason }
    }

    #[test]
    fn a_pod_that_a_revision_would_inject_is_unmeshed_and_told_what_to_do() {
        let pod = json!({"metadata": {"ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d9f"}]}});
        let (found, event) =
            judged(&[skip(Reason::OtherRevision("b".to_owned())), inject()], &pod, 5).expect("judged");
        assert!(matches!(found, Found::Unmeshed { .. }));
        let event = event.expect("an event");
        assert_eq!((event.reason.as_str(), event.type_), ("NotInjected", EventType::Warning));
        let note = event.note.expect("words");
        assert!(note.contains("kubectl rollout restart deployment/web.") && note.len() < 1024, "{note}");
    }

    #[test]
    fn a_pod_that_cannot_be_injected_gets_a_note_while_it_is_young() {
        let (found, event) = judged(&[skip(Reason::HostNetwork)], &json!({}), 5).expect("judged");
        assert_eq!((found, event.map(|event| event.type_)), (Found::Well, Some(EventType::Normal)));
        assert_eq!(
            judged(&[skip(Reason::HostNetwork)], &json!({}), NOTE_WITHIN).expect("judged").1.map(|_| ()),
            None
        );
        assert_eq!(judged(&[skip(Reason::NotAsked)], &json!({}), 5).expect("judged").1.map(|_| ()), None);
        assert!(judged(&[], &json!({}), 5).is_none(), "no revision is known");
    }

    #[test]
    fn whoever_owns_a_pod_is_restarted() {
        let owned = |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "name": "x-1"}]}});
        assert_eq!(remedy(&owned("StatefulSet")), "run kubectl rollout restart statefulset/x-1");
        assert_eq!(remedy(&owned("Job")), "delete and create the job x-1 again");
        assert_eq!(remedy(&owned("Rollout")), "delete it: its owner makes it anew");
        assert_eq!(remedy(&json!({})), "delete and create it again");
    }

    fn namespace(plane: &Plane, name: &str, labels: &[(&str, &str)]) {
        let labels: String = labels.iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n{labels}");
        let mut problems = Vec::new();
        let context = crate::source::Context::default();
        let documents = crate::source::document::read("test", &text, &context, &mut problems);
        let good = documents.into_iter().filter_map(|document| match document {
            crate::source::document::Document::Good(good) => Some(good),
            crate::source::document::Document::Bad { .. } | crate::source::document::Document::Foreign => {
                None
            }
        });
        plane.configuration().objects = ingest(&good.collect::<Vec<_>>(), None);
    }

    #[tokio::test]
    async fn a_pod_is_told_after_its_grace_once_and_forgotten_when_it_goes() {
        let server = ApiServer::new();
        let plane = plane();
        namespace(&plane, "shop", &[("istio-injection", "enabled")]);
        let mut pod = workload("shop", "web-0", "web", "10.0.0.1");
        pod.meta.object.kind = Kind::Pod;
        pod.meshed = false;
        let object = pod.meta.object.clone();
        plane.snapshot().apply(None, [Change::Set(Entry::from(pod))]);
        server.put(
            "/api/v1/namespaces/istio-system/configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": [
                {"metadata": {"name": "mini-mesh"}, "data": {"inject.yaml": ""}}]}),
        );
        server.put(
            "/api/v1/namespaces/shop/pods/web-0",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop", "uid": "u"},
                   "spec": {"containers": [{"name": "web"}]}}),
        );
        let reporter = Reporter { controller: CONTROL.to_owned(), instance: None };
        let mut watch = Watch {
            client: server.client(),
            plane: Arc::clone(&plane),
            events: Recorder::new(server.client(), reporter),
            settings: Vec::new(),
            settings_at: None,
            cases: BTreeMap::new(),
            measured: BTreeSet::new(),
        };
        let start = Instant::now();
        watch.look(start).await;
        assert_eq!(plane.unmeshed(), Vec::new(), "it has its grace");
        for seconds in [10, 15, 20] {
            watch.look(start + Duration::from_secs(seconds)).await;
        }
        assert_eq!(plane.unmeshed().len(), 1);
        let told = server.asked(&http::Method::POST);
        assert_eq!(told.len(), 1, "once: {told:?}");
        assert_eq!(
            (&told[0].body["reason"], &told[0].body["type"]),
            (&json!("NotInjected"), &json!("Warning"))
        );
        plane.snapshot().apply(None, [Change::Remove(object)]);
        watch.look(start + Duration::from_secs(25)).await;
        assert_eq!(plane.unmeshed(), Vec::new());
    }
}
