//! What is in force of a cluster (pure): the last good version of each object, and what is different since it was
//! handed over.
//!
//! Objects are shared with the registry, so that what stands here is a name and a pointer for each.
//!
//! At the edges: an object that cannot be used keeps its last good version in force and is reported. That version is
//! kept in memory alone: after a restart such an object is not in force, and still reported. The settings of the mesh
//! stay as they were when their ConfigMap disappears.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DynamicObject, ObjectMeta as KubeMeta};
use mesh_api::model::{Kind, MeshSettings, ObjectMeta, ObjectRef, Origin, Service};
use mesh_api::name::{Labels, Namespace, ObjectName};
use mesh_api::problem::{Problem, Severity};
use mesh_kube::name::CONFIG_MESH;

use super::document;
use super::object::{Item, Key, Topic};
use super::pod::{self, Pod};
use super::slice::{self, Slice};
use crate::registry::Entry;
use crate::source::document::{Context, Document, InForce, Payload, read};

/// Labels of a node that say where it stands.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";

/// Seconds of the Unix epoch at which an object was made.
pub(super) fn created(meta: &KubeMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

/// Objects of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    context: Context,
    /// Where pods and the like stand: nobody looks for their text.
    origin: Origin,
    good: HashMap<ObjectRef, InForce>,
    counts: BTreeMap<Kind, usize>,
    problems: BTreeMap<ObjectRef, Vec<Problem>>,
    has_other_problems: bool,
    held: BTreeSet<ObjectRef>,
    /// Services as they are without their slices.
    services: HashMap<ObjectRef, Arc<Service>>,
    slices: HashMap<Key, Slice>,
    slices_of: HashMap<Key, BTreeSet<Key>>,
    localities: HashMap<String, String>,
    on_node: HashMap<String, BTreeSet<ObjectRef>>,
    node_of: HashMap<ObjectRef, String>,
    /// What is different; `None` for what is gone.
    pending: BTreeMap<ObjectRef, Option<InForce>>,
    /// Whether the settings were read well, or there are none to read.
    is_configured: bool,
}

impl Cluster {
    /// A cluster of which nothing is known.
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            origin: Origin { file: "cluster".into(), line: 0 },
            good: HashMap::new(),
            counts: BTreeMap::new(),
            problems: BTreeMap::new(),
            has_other_problems: false,
            held: BTreeSet::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            localities: HashMap::new(),
            on_node: HashMap::new(),
            node_of: HashMap::new(),
            pending: BTreeMap::new(),
            is_configured: true,
        }
    }

    /// Settings of the mesh, if they are stated.
    pub(super) fn settings(&self) -> Option<Arc<MeshSettings>> {
        self.good.values().find_map(|document| match &document.payload {
            Payload::Settings(settings) => Some(Arc::clone(settings)),
            Payload::Entry(_) | Payload::Noted(_) => None,
        })
    }

    /// Why the settings that are stated are not in force, when none are.
    pub(super) fn unconfigured(&self) -> Option<String> {
        if self.is_configured {
            return None;
        }
        let of_settings = self.problems.iter().find(|(object, _)| object.kind == Kind::MeshConfig);
        let problem = of_settings.and_then(|(_, problems)| problems.first());
        Some(problem.map_or_else(String::new, ToString::to_string))
    }

    /// Number of objects in force of a kind.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// Objects whose last good version is kept.
    pub(super) fn held(&self, kind: Kind) -> Vec<ObjectRef> {
        self.held.iter().filter(|object| object.kind == kind).cloned().collect()
    }

    /// Whether there is anything to hand over.
    pub(super) fn has_changed(&self) -> bool {
        !self.pending.is_empty() || self.has_other_problems
    }

    /// What is new or different, and what is gone, since the last call.
    pub(super) fn take_changed(&mut self) -> (Vec<InForce>, Vec<ObjectRef>) {
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        for (object, document) in std::mem::take(&mut self.pending) {
            match document {
                Some(document) => set.push(document),
                None => removed.push(object),
            }
        }
        (set, removed)
    }

    /// Every problem, if they are others than at the last call.
    pub(super) fn take_problems(&mut self) -> Option<Vec<Problem>> {
        std::mem::take(&mut self.has_other_problems)
            .then(|| self.problems.values().flatten().cloned().collect())
    }

    /// Takes an object in.
    pub(super) fn set(&mut self, item: Item) {
        match item {
            Item::Config(map) => self.set_config(&map),
            Item::Namespace(meta) => self.note(Kind::Namespace, &meta),
            Item::ServiceAccount(meta) => self.note(Kind::ServiceAccount, &meta),
            Item::Node(meta) => self.set_node(&meta),
            Item::Service(service) => self.set_service(*service),
            Item::Slice(slice) => self.set_slice(Key::of(&slice.metadata), slice::read(&slice)),
            Item::Pod(pod) => self.set_pod(&pod),
            Item::Istio(kind, object) => self.set_istio(kind, *object),
        }
    }

    /// Takes in that an object is gone.
    pub(super) fn gone(&mut self, topic: Topic, key: &Key) {
        match topic {
            Topic::Nodes => self.move_pods(&key.name, ""),
            Topic::EndpointSlices => self.set_slice(key.clone(), None),
            Topic::Config => self.config_is_gone(),
            Topic::Namespaces | Topic::ServiceAccounts | Topic::Services | Topic::Pods | Topic::Istio(_) => {
                let object = topic.kind().and_then(|kind| object(kind, &key.namespace, &key.name));
                if let Some(object) = object {
                    self.remove(&object);
                }
            }
        }
    }

    fn put(&mut self, document: InForce) {
        if self.good.get(&document.object) == Some(&document) {
            return;
        }
        if self.good.insert(document.object.clone(), document.clone()).is_none() {
            *self.counts.entry(document.object.kind).or_default() += 1;
        }
        self.pending.insert(document.object.clone(), Some(document));
    }

    fn remove(&mut self, object: &ObjectRef) {
        self.services.remove(object);
        self.held.remove(object);
        self.has_other_problems |= self.problems.remove(object).is_some();
        if let Some(node) = self.node_of.remove(object)
            && let Some(pods) = self.on_node.get_mut(&node)
        {
            pods.remove(object);
        }
        if self.good.remove(object).is_some() {
            if let Some(count) = self.counts.get_mut(&object.kind) {
                *count -= 1;
            }
            self.pending.insert(object.clone(), None);
        }
    }

    fn set_problems(&mut self, object: &ObjectRef, problems: Vec<Problem>) {
        self.has_other_problems |= match problems.is_empty() {
            true => self.problems.remove(object).is_some(),
            false => self.problems.get(object) != Some(&problems),
        };
        if !problems.is_empty() {
            self.problems.insert(object.clone(), problems);
        }
    }

    /// Reads an object's text; what cannot be used leaves the last good version in force.
    fn read(&mut self, object: &ObjectRef, text: &str, generation: i64) -> Option<InForce> {
        let mut problems = Vec::new();
        let documents = read("cluster", text, &self.context, &mut problems);
        for problem in &mut problems {
            problem.object.get_or_insert_with(|| object.clone());
        }
        let good = documents.into_iter().find_map(|document| match document {
            Document::Good(good) if good.object == *object => Some(InForce { generation, ..good }),
            Document::Good(_) | Document::Bad { .. } | Document::Foreign => None,
        });
        self.set_problems(object, problems);
        match &good {
            Some(_) => drop(self.held.remove(object)),
            None => self.hold(object),
        }
        good
    }

    fn hold(&mut self, object: &ObjectRef) {
        let Some(last) = self.good.get(object) else { return };
        self.held.insert(object.clone());
        self.put(InForce { is_held: true, ..last.clone() });
    }

    fn set_istio(&mut self, kind: Kind, object_read: DynamicObject) {
        let meta = &object_read.metadata;
        let Some(object) = named(kind, meta) else { return };
        let generation = meta.generation.unwrap_or_default();
        let types = object_read.types.clone().unwrap_or_default();
        let text = document::istio(object_read, &types.api_version, kind.as_str());
        if let Some(document) = self.read(&object, &text, generation) {
            self.put(document);
        }
    }

    fn set_config(&mut self, map: &ConfigMap) {
        let text = map.data.as_ref().and_then(|data| data.get(CONFIG_MESH)).cloned().unwrap_or_default();
        let name = map.metadata.name.as_deref().unwrap_or_default();
        let namespace = map.metadata.namespace.as_deref().unwrap_or_default();
        let Some(owner) = object(Kind::MeshConfig, namespace, name) else { return };
        let file = format!("ConfigMap {namespace}/{name}, {CONFIG_MESH}");
        let mut problems = Vec::new();
        let documents = read(&file, &text, &self.context, &mut problems);
        let good = documents.into_iter().find_map(|document| match document {
            Document::Good(good) if matches!(good.payload, Payload::Settings(_)) => Some(good),
            Document::Good(_) | Document::Bad { .. } | Document::Foreign => None,
        });
        if good.is_none() && problems.is_empty() {
            let message = format!("has no MeshConfig under the key {CONFIG_MESH}");
            problems.push(about(
                &owner,
                &file,
                message,
                "Write one, or delete the ConfigMap for the defaults.",
            ));
        }
        self.set_problems(&owner, problems);
        let Some(good) = good else {
            self.is_configured = self.good.contains_key(&owner);
            self.hold(&owner);
            return;
        };
        self.is_configured = true;
        self.held.remove(&owner);
        let context = context_of(&good.payload);
        // Named by its map: what the document calls itself may change, and would be another object then.
        self.put(InForce { object: owner, ..good });
        if let Some(context) = context.filter(|context| *context != self.context) {
            self.reread(context);
        }
    }

    fn config_is_gone(&mut self) {
        self.is_configured = true;
        let settings = self.good.keys().find(|object| object.kind == Kind::MeshConfig).cloned();
        let Some(owner) = settings else {
            let broken: Vec<_> =
                self.problems.keys().filter(|object| object.kind == Kind::MeshConfig).cloned().collect();
            for object in broken {
                self.set_problems(&object, Vec::new());
            }
            return;
        };
        let file = format!("ConfigMap {}/{}", owner.namespace, owner.name);
        let message = "is gone; the settings that it held stay in force until the control plane starts anew";
        let problem = about(&owner, &file, message.to_owned(), "Apply it again.");
        self.set_problems(&owner, vec![problem]);
        self.hold(&owner);
    }

    /// Reads everything anew in another context.
    fn reread(&mut self, context: Context) {
        let former = std::mem::replace(&mut self.context, context);
        let texts: Vec<InForce> =
            self.good.values().filter(|document| !document.text.is_empty()).cloned().collect();
        for document in texts {
            match document.object.kind {
                Kind::MeshConfig => {}
                Kind::Service => self.read_service(&document.object, &document.text),
                Kind::AuthorizationPolicy
                | Kind::PeerAuthentication
                | Kind::RequestAuthentication
                | Kind::Telemetry
                | Kind::DestinationRule
                | Kind::VirtualService
                | Kind::ServiceEntry
                | Kind::WorkloadEntry
                | Kind::Pod
                | Kind::ServiceAccount
                | Kind::Namespace => {
                    if let Some(again) = self.read(&document.object, &document.text, document.generation) {
                        self.put(again);
                    }
                }
            }
        }
        let (former, next) = (format!(".{}", former.cluster_domain), self.context.cluster_domain.clone());
        let renamed = |host: &mesh_api::name::Host| {
            let stem = host.as_str().strip_suffix(&former)?;
            mesh_api::name::Host::parse(&format!("{stem}.{next}")).ok()
        };
        let pods: Vec<ObjectRef> = self.node_of.keys().cloned().collect();
        for object in pods {
            self.change_pod(&object, |workload| {
                workload.hosts = workload.hosts.iter().filter_map(renamed).collect();
            });
        }
    }

    fn note(&mut self, kind: Kind, meta: &KubeMeta) {
        let Some(object) = named(kind, meta) else { return };
        let labels = match kind == Kind::Namespace {
            true => (meta.labels.clone().unwrap_or_default(), annotations_of(meta)),
            false => (Labels::new(), Labels::new()),
        };
        let noted = ObjectMeta {
            object: object.clone(),
            labels: labels.0,
            annotations: labels.1,
            created: created(meta),
            origin: self.origin.clone(),
        };
        self.put(self.in_force(object, Payload::Noted(Arc::new(noted))));
    }

    fn in_force(&self, object: ObjectRef, payload: Payload) -> InForce {
        InForce {
            object,
            payload,
            origin: self.origin.clone(),
            text: Arc::default(),
            is_held: false,
            generation: 0,
        }
    }

    fn set_node(&mut self, meta: &KubeMeta) {
        let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        let parts = [label(REGION), label(ZONE), label(SUBZONE)];
        // A zone without its region would be read as one.
        let stated = parts.into_iter().map_while(|part| part.filter(|part| !part.is_empty()));
        let locality = stated.collect::<Vec<_>>().join("/");
        self.move_pods(meta.name.as_deref().unwrap_or_default(), &locality);
    }

    fn move_pods(&mut self, node: &str, locality: &str) {
        if self.locality_of(node) == locality {
            return;
        }
        match locality.is_empty() {
            true => drop(self.localities.remove(node)),
            false => drop(self.localities.insert(node.to_owned(), locality.to_owned())),
        }
        for object in self.on_node.get(node).cloned().unwrap_or_default() {
            self.change_pod(&object, |workload| locality.clone_into(&mut workload.locality));
        }
    }

    fn locality_of(&self, node: &str) -> String {
        self.localities.get(node).cloned().unwrap_or_default()
    }

    fn change_pod(&mut self, object: &ObjectRef, change: impl FnOnce(&mut mesh_api::model::Workload)) {
        let known = self.good.get(object).map(|document| &document.payload);
        if let Some(Payload::Entry(Entry::Workload(workload))) = known {
            let mut changed = workload.as_ref().clone();
            change(&mut changed);
            let payload = Payload::Entry(Entry::Workload(Arc::new(changed)));
            self.put(self.in_force(object.clone(), payload));
        }
    }

    fn set_pod(&mut self, pod: &Pod) {
        let Some(object) = named(Kind::Pod, &pod.metadata) else { return };
        let node = pod.spec.node_name.clone().unwrap_or_default();
        let locality = self.locality_of(&node);
        let workload = pod::workload(pod, &self.origin, &locality, &self.context.cluster_domain);
        let Some(workload) = workload else {
            self.remove(&object);
            return;
        };
        self.on_node.entry(node.clone()).or_default().insert(object.clone());
        // A pod is bound once: it comes from no node, and stays.
        if let Some(former) =
            self.node_of.insert(object.clone(), node.clone()).filter(|former| *former != node)
            && let Some(pods) = self.on_node.get_mut(&former)
        {
            pods.remove(&object);
        }
        let payload = Payload::Entry(Entry::Workload(Arc::new(workload)));
        self.put(self.in_force(object, payload));
    }

    fn set_service(&mut self, service: DynamicObject) {
        let Some(object) = named(Kind::Service, &service.metadata) else { return };
        match document::service(service) {
            Some(text) => self.read_service(&object, &text),
            None => self.remove(&object),
        }
    }

    fn read_service(&mut self, object: &ObjectRef, text: &str) {
        let Some(document) = self.read(object, text, 0) else { return };
        if let Payload::Entry(Entry::Service(service)) = &document.payload {
            self.services.insert(object.clone(), Arc::clone(service));
        }
        self.put(self.with_slices(document));
    }

    fn with_slices(&self, document: InForce) -> InForce {
        let object = &document.object;
        let Some(service) = self.services.get(object) else { return document };
        let key = Key { namespace: object.namespace.to_string(), name: object.name.to_string() };
        let Some(names) = self.slices_of.get(&key) else { return document };
        let slices = names.iter().filter_map(|name| self.slices.get(name));
        let merged = Arc::new(slice::merge(service, slices));
        InForce { payload: Payload::Entry(Entry::Service(merged)), ..document }
    }

    fn set_slice(&mut self, key: Key, slice: Option<Slice>) {
        if self.slices.get(&key) == slice.as_ref() {
            return;
        }
        let service_of =
            |slice: &Slice| Key { namespace: key.namespace.clone(), name: slice.service.clone() };
        let former = self.slices.remove(&key).map(|slice| service_of(&slice));
        if let Some(former) = &former
            && let Some(names) = self.slices_of.get_mut(former)
        {
            names.remove(&key);
            if names.is_empty() {
                self.slices_of.remove(former);
            }
        }
        let next = slice.as_ref().map(service_of);
        if let (Some(slice), Some(next)) = (slice, &next) {
            self.slices_of.entry(next.clone()).or_default().insert(key.clone());
            self.slices.insert(key, slice);
        }
        let touched: BTreeSet<Key> = former.into_iter().chain(next).collect();
        for service in touched {
            let Some(object) = object(Kind::Service, &service.namespace, &service.name) else { continue };
            let (Some(document), Some(base)) = (self.good.get(&object), self.services.get(&object)) else {
                continue;
            };
            let plain =
                InForce { payload: Payload::Entry(Entry::Service(Arc::clone(base))), ..document.clone() };
            self.put(self.with_slices(plain));
        }
    }
}

fn context_of(payload: &Payload) -> Option<Context> {
    match payload {
        Payload::Settings(settings) => Some(Context {
            cluster_domain: settings.cluster_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..Context::default()
        }),
        Payload::Entry(_) | Payload::Noted(_) => None,
    }
}

/// Annotations of a namespace, but for those that say it once more.
fn annotations_of(meta: &KubeMeta) -> Labels {
    let all = meta.annotations.iter().flatten();
    all.filter(|(name, _)| !name.starts_with("kubectl.kubernetes.io/"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn named(kind: Kind, meta: &KubeMeta) -> Option<ObjectRef> {
    object(kind, meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref()?)
}

/// The reference of an object; cluster-scoped kinds carry their own name as namespace.
fn object(kind: Kind, namespace: &str, name: &str) -> Option<ObjectRef> {
    let namespace = if kind == Kind::Namespace { name } else { namespace };
    Some(ObjectRef {
        kind,
        namespace: Namespace::parse(namespace).ok()?,
        name: ObjectName::parse(name).ok()?,
    })
}

fn about(object: &ObjectRef, file: &str, message: String, hint: &str) -> Problem {
    Problem {
        code: "MM0111".to_owned(),
        severity: Severity::Error,
        object: Some(object.clone()),
        origin: Origin { file: file.into(), line: 0 },
        field: String::new(),
        message,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests;
