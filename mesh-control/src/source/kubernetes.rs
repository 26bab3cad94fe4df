//! A cluster as the source of the mesh's configuration: watches of the API server, and what is in force by them.
//!
//! [`watch`] follows one kind, [`pod`], [`mod@slice`] and [`document`] say what an object means to the mesh, [`cluster`]
//! (pure) keeps what is in force and what has changed. [`KubernetesSource`] puts them together: it gathers for a moment
//! what many watches tell at once and hands it to the [`Plane`], at the cost of what happened and not of what there is.
//!
//! The way in is [`KubernetesSource::first`], which waits until everything has been listed, so that no proxy is told of
//! half a mesh; then [`KubernetesSource::hand_over`], and [`KubernetesSource::run`] for ever.
//!
//! At the edges: what cannot be asked removes nothing. Each watch says in its [`SourceStatus`] since when it is down
//! and why. A kind of Istio that the API server does not know is looked for again, and is no failure.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace as NamespaceObject, Node, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use mesh_api::admin::{SourceStatus, WATCHED};
use mesh_api::model::MeshSettings;
use mesh_api::name::Namespace;
use mesh_identity::certificate::timestamp;
use mesh_kube::name::{CONFIG, DEFAULT_REVISION};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::cluster::Cluster;
pub(crate) use self::object::{ISTIO, Istio};
use self::object::{Item, Topic};
use self::pod::Pod;
use self::watch::{Ended, Fed, Feed, MetadataOnly, Reader, Watch, Whole};
use super::{Context, Events};
use crate::plane::Plane;

mod cluster;
mod document;
mod object;
mod pod;
mod slice;
mod watch;

/// What watches have told and is not taken in yet; a watch waits when there is more.
const FEED: usize = 1024;
/// Changes of one moment are handed over together; the first one after a quiet time goes at once.
const BETWEEN: Duration = Duration::from_millis(50);
/// Events that are taken in before what they change is handed over, at most.
const TOGETHER: usize = 20_000;

/// What the source asks of the API server, for whoever writes the role: API group, resources, verbs. The ConfigMap is
/// followed in the namespace of the configuration alone, and by name.
pub const CLUSTER_RULES: [(&str, &[&str], &[&str]); 5] = [
    ("", &["namespaces", "nodes", "pods", "services", "serviceaccounts"], &["list", "watch"]),
    ("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
    (
        "security.istio.io",
        &["authorizationpolicies", "peerauthentications", "requestauthentications"],
        &["list", "watch"],
    ),
    (
        "networking.istio.io",
        &["destinationrules", "virtualservices", "serviceentries", "workloadentries"],
        &["list", "watch"],
    ),
    ("telemetry.istio.io", &["telemetries"], &["list", "watch"]),
];
/// The same within the namespace of the configuration.
pub const NAMESPACE_RULES: [(&str, &[&str], &[&str]); 1] = [("", &["configmaps"], &["list", "watch"])];

/// What a source is made of.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// Revision of the installation, whose ConfigMap holds the settings of the mesh.
    pub revision: String,
    /// Namespace of that ConfigMap.
    pub config_namespace: Namespace,
}

impl KubernetesSettings {
    /// Name of the ConfigMap with the settings.
    #[must_use]
    pub fn config_map(&self) -> String {
        match self.revision == DEFAULT_REVISION {
            true => CONFIG.to_owned(),
            false => format!("{CONFIG}-{}", self.revision),
        }
    }
}

/// Why there is no first state.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// Something could not be read in time. Asking again goes on where this left off.
    #[error("the cluster could not be read: {missing}")]
    Incomplete {
        /// What is missing, and why as far as it is known.
        missing: String,
    },
    /// The settings cannot be used, and there are no former ones.
    #[error("the settings of the mesh cannot be used: {problem}")]
    Settings {
        /// What is wrong with them.
        problem: String,
    },
}

/// How one watch is doing.
#[derive(Debug, Default)]
struct Health {
    is_listed: bool,
    down: Option<(SystemTime, String)>,
    missing: Option<String>,
}

/// The source. Dropping it ends its watches.
#[derive(Debug)]
pub struct KubernetesSource {
    cluster: Cluster,
    health: BTreeMap<Topic, Health>,
    has_other_health: bool,
    feed: mpsc::Receiver<Fed>,
    handed_over: Option<Instant>,
    /// The watches; they end with this.
    watches: JoinSet<()>,
}

impl KubernetesSource {
    /// Begins to watch. Must be called within a runtime.
    #[must_use]
    pub fn new(client: &Client, settings: &KubernetesSettings) -> Self {
        let (sender, feed) = mpsc::channel(FEED);
        let context = Context { root_namespace: settings.config_namespace.clone(), ..Context::default() };
        let mut source = Self {
            cluster: Cluster::new(context),
            health: Topic::all().map(|topic| (topic, Health::default())).collect(),
            has_other_health: true,
            feed,
            handed_over: None,
            watches: JoinSet::new(),
        };
        source.begin(client, settings, &sender);
        source
    }

    fn begin(&mut self, client: &Client, settings: &KubernetesSettings, feed: &Feed) {
        let map = Whole::<ConfigMap> {
            api: Api::namespaced(client.clone(), settings.config_namespace.as_str()),
            fields: Some(format!("metadata.name={}", settings.config_map())),
            item: Box::new(|map| Item::Config(Box::new(map))),
        };
        self.spawn(Topic::Config, map, feed);
        let namespaces = MetadataOnly::<NamespaceObject> {
            api: Api::all(client.clone()),
            item: |meta| Item::Namespace(Box::new(meta)),
        };
        self.spawn(Topic::Namespaces, namespaces, feed);
        let nodes =
            MetadataOnly::<Node> { api: Api::all(client.clone()), item: |meta| Item::Node(Box::new(meta)) };
        self.spawn(Topic::Nodes, nodes, feed);
        let accounts = MetadataOnly::<ServiceAccount> {
            api: Api::all(client.clone()),
            item: |meta| Item::ServiceAccount(Box::new(meta)),
        };
        self.spawn(Topic::ServiceAccounts, accounts, feed);
        let core = |kind| ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let services = Whole::<DynamicObject> {
            api: Api::all_with(client.clone(), &core("Service")),
            fields: None,
            item: Box::new(|service| Item::Service(Box::new(service))),
        };
        self.spawn(Topic::Services, services, feed);
        let slices = Whole::<EndpointSlice> {
            api: Api::all(client.clone()),
            fields: None,
            item: Box::new(|slice| Item::Slice(Box::new(slice))),
        };
        self.spawn(Topic::EndpointSlices, slices, feed);
        let pods = Whole::<Pod> {
            api: Api::all_with(client.clone(), &core("Pod")),
            fields: None,
            item: Box::new(|pod| Item::Pod(Box::new(pod))),
        };
        self.spawn(Topic::Pods, pods, feed);
        for istio in &ISTIO {
            self.watches.spawn(follow_istio(client.clone(), istio, feed.clone()));
        }
    }

    fn spawn<R: Reader + 'static>(&mut self, topic: Topic, reader: R, feed: &Feed) {
        let mut watch = Watch::new(topic, feed.clone());
        self.watches.spawn(async move {
            while watch.follow(&reader).await == Ended::Unknown {
                // The API server always knows these kinds: it is another server that answers in its place.
                if watch.down("404: the API server does not know the kind".to_owned()).await.is_err() {
                    break;
                }
            }
        });
    }

    /// Waits until every kind has been listed once, and answers with the settings of the mesh. Nothing is lost when
    /// this is dropped or fails; call it again to go on.
    ///
    /// # Errors
    /// When that takes longer than `within`, with what is missing.
    pub async fn first(&mut self, within: Duration) -> Result<MeshSettings, FirstError> {
        let deadline = Instant::now() + within;
        while !self.is_complete() {
            match tokio::time::timeout_at(deadline, self.feed.recv()).await {
                Ok(Some(fed)) => self.take(fed),
                Ok(None) | Err(_) => return Err(self.incomplete()),
            }
        }
        let stated = self.cluster.settings();
        Ok(stated.map_or_else(MeshSettings::default, |settings| settings.as_ref().clone()))
    }

    fn is_complete(&self) -> bool {
        self.health.values().all(|health| health.is_listed) && self.cluster.unconfigured().is_none()
    }

    fn incomplete(&self) -> FirstError {
        if let Some(problem) = self.cluster.unconfigured() {
            return FirstError::Settings { problem };
        }
        let missing = self.health.iter().filter(|(_, health)| !health.is_listed).map(|(topic, health)| {
            match &health.down {
                Some((_, reason)) => format!("{topic} ({reason})"),
                None => format!("{topic} (no answer yet)"),
            }
        });
        FirstError::Incomplete { missing: missing.collect::<Vec<_>>().join("; ") }
    }

    /// Hands over what has changed since the last time. Blocks on the disk when addresses were given.
    pub fn hand_over(&mut self, plane: &Plane) {
        self.handed_over = Some(Instant::now());
        if let Some(events) = self.events() {
            take_in(plane, events);
        }
    }

    /// Follows the cluster for ever. What was gathered and not handed over is lost when this is dropped, with the
    /// source.
    pub async fn run(mut self, plane: Arc<Plane>) -> Infallible {
        loop {
            self.handed_over = Some(Instant::now());
            if let Some(events) = self.events() {
                let plane = Arc::clone(&plane);
                let work = tokio::task::spawn_blocking(move || take_in(&plane, events));
                if let Err(error) = work.await {
                    tracing::error!(%error, "a change of the cluster was not taken in; what is in force stays");
                }
            }
            self.gather().await;
        }
    }

    /// Takes in what watches tell: what is there already, and after a recent hand-over what comes within a moment.
    async fn gather(&mut self) {
        let Some(fed) = self.feed.recv().await else { return std::future::pending().await };
        self.take(fed);
        let due = self.handed_over.map_or_else(Instant::now, |at| at + BETWEEN);
        for _ in 0..TOGETHER {
            let fed = match self.feed.try_recv() {
                Ok(fed) => fed,
                Err(_) => match tokio::time::timeout_at(due, self.feed.recv()).await {
                    Ok(Some(fed)) => fed,
                    Ok(None) | Err(_) => return,
                },
            };
            self.take(fed);
        }
    }

    fn take(&mut self, fed: Fed) {
        match fed {
            Fed::Set(item) => return self.cluster.set(item),
            Fed::Gone(topic, key) => return self.cluster.gone(topic, &key),
            Fed::Listed(topic) => {
                let health = self.health.entry(topic).or_default();
                health.missing = None;
                if std::mem::replace(&mut health.is_listed, true) {
                    return;
                }
            }
            Fed::Up(topic) => {
                self.health.entry(topic).or_default().down = None;
                tracing::info!(%topic, "the API server is watched again");
            }
            Fed::Down(topic, reason) => {
                let health = self.health.entry(topic).or_default();
                let since = health.down.as_ref().map(|(since, _)| *since);
                if since.is_none() {
                    tracing::warn!(%topic, reason, "the API server cannot be watched; what is known stays in force");
                }
                let next = (since.unwrap_or_else(SystemTime::now), reason);
                if health.down.replace(next.clone()) == Some(next) {
                    return;
                }
            }
            Fed::Missing(topic, reason) => {
                let health = self.health.entry(topic).or_default();
                if health.missing.replace(reason.clone()).as_ref() == Some(&reason) && health.is_listed {
                    return;
                }
                tracing::warn!(%topic, reason, "a kind is not served; it is looked for again");
                health.is_listed = true;
                health.down = None;
            }
        }
        self.has_other_health = true;
    }

    /// What has changed; `None` when nothing has.
    fn events(&mut self) -> Option<Events> {
        if !std::mem::take(&mut self.has_other_health) && !self.cluster.has_changed() {
            return None;
        }
        let problems = self.cluster.take_problems();
        let (set, removed) = self.cluster.take_changed();
        Some(Events { set, removed, problems, sources: self.status() })
    }

    fn status(&self) -> Vec<SourceStatus> {
        let watches = self.health.iter().map(|(topic, health)| {
            let kind = topic.kind();
            SourceStatus {
                path: format!("{WATCHED}{topic}"),
                files: 0,
                objects: kind.map_or(0, |kind| self.cluster.count(kind)),
                held: kind.map(|kind| self.cluster.held(kind)).unwrap_or_default(),
                suspended: health.down.as_ref().map(|(since, reason)| {
                    let since = timestamp(*since);
                    format!("since {since}: {reason}; what is known stays in force")
                }),
                missing: health.missing.clone(),
            }
        });
        watches.collect()
    }
}

/// Blocks on the disk when addresses were given.
fn take_in(plane: &Plane, events: Events) {
    plane.take_events(events);
    let settings = Arc::clone(&plane.configuration().objects.settings);
    let wanted: Vec<_> =
        std::iter::once(&settings.trust_domain).chain(&settings.trust_domain_aliases).cloned().collect();
    if *plane.identity.current().trust_domains != *wanted {
        plane.identity.publish_trust_domains(wanted);
    }
}

/// Follows a kind of Istio in the version that the API server has.
async fn follow_istio(client: Client, istio: &'static Istio, feed: Feed) {
    let topic = Topic::Istio(istio.kind);
    let mut watch = Watch::new(topic, feed);
    loop {
        let waited = match served(&client, istio).await {
            Ok(Some(version)) => {
                let kind = GroupVersionKind::gvk(istio.group, version, istio.kind.as_str());
                let resource = ApiResource::from_gvk_with_plural(&kind, istio.plural);
                let api_version = resource.api_version.clone();
                let reader = Whole::<DynamicObject> {
                    api: Api::all_with(client.clone(), &resource),
                    fields: None,
                    item: Box::new(move |mut object| {
                        // Lists leave out what their items are.
                        object.types.get_or_insert_default().api_version.clone_from(&api_version);
                        Item::Istio(istio.kind, Box::new(object))
                    }),
                };
                match watch.follow(&reader).await {
                    Ended::Unheard => return,
                    Ended::Unknown => Ok(()),
                }
            }
            Ok(None) => {
                let reason = format!(
                    "the API server does not know {topic}; install the mesh's CRDs (`meshctl install --crds`)"
                );
                watch.missing(reason).await
            }
            Err(reason) => watch.down(reason).await,
        };
        if waited.is_err() {
            return;
        }
    }
}

/// The preferred version of a kind that the API server has; `None` when it has none of them.
async fn served(client: &Client, istio: &Istio) -> Result<Option<&'static str>, String> {
    for version in istio.versions {
        match watch::resources(client, istio.group, version).await? {
            Some(plurals) if plurals.iter().any(|plural| plural == istio.plural) => return Ok(Some(version)),
            Some(_) | None => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
