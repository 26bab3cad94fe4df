//! The registry: every object in force, with the look-ups that translation needs.
//!
//! Objects are kept behind `Arc`, indexed by namespace, host and address, so that one change costs what it
//! touches and a look-up never walks the mesh. [`Registry::apply`] takes one change and answers with its
//! [`Effect`]s: which facts of the mesh are different now. Translation remembers which facts each resource
//! was made from and rebuilds exactly those that meet.
//!
//! "The oldest wins" (SEMANTICS 1.4) is decided here wherever two objects claim the same host or address; a
//! core Service goes before a ServiceEntry, so that nobody takes over a service's name from another
//! namespace.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, Kind, MeshSettings, MtlsMode, ObjectMeta, ObjectRef,
    PeerAuthentication, RequestAuthentication, Service, Telemetry, VirtualService, Workload,
};
use mesh_api::name::{Host, Namespace, ObjectName};
use mesh_policy::select::Subject;

mod change;
pub(crate) mod lookup;
mod members;
pub mod virtual_address;

pub use change::{Change, Effect};
use members::{Services, Workloads};
pub use virtual_address::{VirtualAddressState, VirtualAddresses};

/// Names a workload: namespace and name of its pod or WorkloadEntry. Where both exist a pod is meant, so that nobody
/// takes over a pod's name by stating an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// Namespace.
    pub namespace: Namespace,
    /// Name.
    pub name: ObjectName,
}

impl WorkloadKey {
    /// The key of a workload.
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        let object = &workload.meta.object;
        Self { namespace: object.namespace.clone(), name: object.name.clone() }
    }

    /// Parses the node id of a proxy, `NAME.NAMESPACE`. A namespace holds no dot, so the last one divides.
    #[must_use]
    pub fn from_node_id(id: &str) -> Option<Self> {
        let (name, namespace) = id.rsplit_once('.')?;
        Some(Self { namespace: Namespace::parse(namespace).ok()?, name: ObjectName::parse(name).ok()? })
    }
}

impl std::fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// An object that takes part in translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Service or ServiceEntry.
    Service(Arc<Service>),
    /// WorkloadEntry.
    Workload(Arc<Workload>),
    /// AuthorizationPolicy.
    Authorization(Arc<AuthorizationPolicy>),
    /// PeerAuthentication.
    Peer(Arc<PeerAuthentication>),
    /// RequestAuthentication.
    Request(Arc<RequestAuthentication>),
    /// Telemetry.
    Telemetry(Arc<Telemetry>),
    /// VirtualService.
    VirtualService(Arc<VirtualService>),
    /// DestinationRule.
    DestinationRule(Arc<DestinationRule>),
}

impl Entry {
    /// Metadata of the object.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Service(object) => &object.meta,
            Self::Workload(object) => &object.meta,
            Self::Authorization(object) => &object.meta,
            Self::Peer(object) => &object.meta,
            Self::Request(object) => &object.meta,
            Self::Telemetry(object) => &object.meta,
            Self::VirtualService(object) => &object.meta,
            Self::DestinationRule(object) => &object.meta,
        }
    }
}

/// Orders competitors for one name or address: what the cluster itself runs first, then by age.
type Rank = (bool, i64, ObjectName, Namespace, Kind);

fn rank(meta: &ObjectMeta) -> Rank {
    let object = &meta.object;
    let is_stated = !matches!(object.kind, Kind::Service | Kind::Pod);
    // An address that is given to a new pod was taken from one that has ended, or is about to be gone.
    let age = if object.kind == Kind::Pod { meta.created.saturating_neg() } else { meta.created };
    (is_stated, age, object.name.clone(), object.namespace.clone(), object.kind)
}

/// Objects of one namespace.
#[derive(Debug, Default)]
struct InNamespace {
    services: Services,
    workloads: Workloads,
    authorization: BTreeMap<ObjectName, Arc<AuthorizationPolicy>>,
    peer: BTreeMap<ObjectName, Arc<PeerAuthentication>>,
    request: BTreeMap<ObjectName, Arc<RequestAuthentication>>,
    telemetry: BTreeMap<ObjectName, Arc<Telemetry>>,
    destination_rules: BTreeMap<ObjectName, Arc<DestinationRule>>,
}

/// Every object in force.
#[derive(Debug)]
pub struct Registry {
    settings: Arc<MeshSettings>,
    namespaces: BTreeMap<Namespace, InNamespace>,
    virtual_services: BTreeMap<ObjectRef, Arc<VirtualService>>,
    hosts: BTreeMap<Host, BTreeMap<Rank, Arc<Service>>>,
    service_addresses: BTreeMap<IpAddr, BTreeMap<Rank, Arc<Service>>>,
    workload_addresses: BTreeMap<IpAddr, BTreeMap<Rank, Arc<Workload>>>,
    workload_hosts: BTreeMap<Host, BTreeMap<Rank, Arc<Workload>>>,
    routes: BTreeMap<Host, BTreeMap<Rank, Arc<VirtualService>>>,
    addresses: VirtualAddresses,
}

impl Registry {
    /// An empty registry that gives addresses from `addresses`.
    #[must_use]
    pub fn new(settings: MeshSettings, addresses: VirtualAddresses) -> Self {
        Self {
            settings: Arc::new(settings),
            namespaces: BTreeMap::new(),
            virtual_services: BTreeMap::new(),
            hosts: BTreeMap::new(),
            service_addresses: BTreeMap::new(),
            workload_addresses: BTreeMap::new(),
            workload_hosts: BTreeMap::new(),
            routes: BTreeMap::new(),
            addresses,
        }
    }

    /// Settings of the mesh.
    #[must_use]
    pub fn settings(&self) -> &Arc<MeshSettings> {
        &self.settings
    }

    /// The pool of virtual addresses.
    #[must_use]
    pub fn virtual_addresses(&self) -> &VirtualAddresses {
        &self.addresses
    }

    /// The state of the address pool, if it has changed since the last call.
    pub fn take_changed_addresses(&mut self) -> Option<VirtualAddressState> {
        self.addresses.take_changed()
    }

    /// Replaces the settings; every resource may be different then.
    pub fn set_settings(&mut self, settings: MeshSettings) -> HashSet<Effect> {
        if *self.settings == settings {
            return HashSet::new();
        }
        self.settings = Arc::new(settings);
        HashSet::from([Effect::Settings])
    }

    /// Takes in one change and says what is different now.
    pub fn apply(&mut self, change: Change) -> HashSet<Effect> {
        let mut effects = HashSet::new();
        let (object, entry) = match change {
            Change::Set(entry) => (entry.meta().object.clone(), Some(entry)),
            Change::Remove(object) => (object, None),
        };
        if let Some(former) = self.find(&object) {
            self.effects_of(&former, &mut effects);
            self.unlink(&former);
        }
        if let Some(entry) = entry {
            let linked = self.link(entry);
            self.effects_of(&linked, &mut effects);
        }
        effects
    }

    /// The entry of an object, if it is in force.
    #[must_use]
    pub fn find(&self, object: &ObjectRef) -> Option<Entry> {
        if object.kind == Kind::VirtualService {
            return self.virtual_services.get(object).cloned().map(Entry::VirtualService);
        }
        let here = self.namespaces.get(&object.namespace)?;
        match object.kind {
            Kind::Service | Kind::ServiceEntry => here.services.find(object).cloned().map(Entry::Service),
            Kind::WorkloadEntry | Kind::Pod => here.workloads.find(object).cloned().map(Entry::Workload),
            Kind::AuthorizationPolicy => {
                here.authorization.get(&object.name).cloned().map(Entry::Authorization)
            }
            Kind::PeerAuthentication => here.peer.get(&object.name).cloned().map(Entry::Peer),
            Kind::RequestAuthentication => here.request.get(&object.name).cloned().map(Entry::Request),
            Kind::DestinationRule => {
                here.destination_rules.get(&object.name).cloned().map(Entry::DestinationRule)
            }
            Kind::Telemetry => here.telemetry.get(&object.name).cloned().map(Entry::Telemetry),
            Kind::VirtualService | Kind::ServiceAccount | Kind::Namespace | Kind::MeshConfig => None,
        }
    }

    fn link(&mut self, entry: Entry) -> Entry {
        let namespace = entry.meta().object.namespace.clone();
        let object = entry.meta().object.clone();
        let by_rank = rank(entry.meta());
        if let Entry::VirtualService(routes) = &entry {
            for host in &routes.hosts {
                self.routes.entry(host.clone()).or_default().insert(by_rank.clone(), Arc::clone(routes));
            }
            self.virtual_services.insert(object, Arc::clone(routes));
            return entry;
        }
        if let Entry::Service(service) = entry {
            let service = self.with_addresses(service);
            for host in &service.hosts {
                self.hosts.entry(host.clone()).or_default().insert(by_rank.clone(), Arc::clone(&service));
            }
            for address in &service.addresses {
                let claims = self.service_addresses.entry(*address).or_default();
                claims.insert(by_rank.clone(), Arc::clone(&service));
            }
            let here = self.namespaces.entry(namespace).or_default();
            here.services.insert(Arc::clone(&service));
            return Entry::Service(service);
        }
        if let Entry::Workload(workload) = &entry {
            for address in own_addresses(workload) {
                let claims = self.workload_addresses.entry(*address).or_default();
                claims.insert(by_rank.clone(), Arc::clone(workload));
            }
            for host in &workload.hosts {
                let claims = self.workload_hosts.entry(host.clone()).or_default();
                claims.insert(by_rank.clone(), Arc::clone(workload));
            }
        }
        let here = self.namespaces.entry(namespace).or_default();
        let name = object.name;
        match &entry {
            Entry::Service(_) | Entry::VirtualService(_) => {}
            Entry::Workload(object) => here.workloads.insert(Arc::clone(object)),
            Entry::Authorization(object) => drop(here.authorization.insert(name, Arc::clone(object))),
            Entry::Peer(object) => drop(here.peer.insert(name, Arc::clone(object))),
            Entry::Request(object) => drop(here.request.insert(name, Arc::clone(object))),
            Entry::Telemetry(object) => drop(here.telemetry.insert(name, Arc::clone(object))),
            Entry::DestinationRule(object) => drop(here.destination_rules.insert(name, Arc::clone(object))),
        }
        entry
    }

    fn unlink(&mut self, entry: &Entry) {
        let object = &entry.meta().object;
        let by_rank = rank(entry.meta());
        match entry {
            Entry::VirtualService(routes) => {
                for host in &routes.hosts {
                    release(&mut self.routes, host, &by_rank);
                }
                self.virtual_services.remove(object);
                return;
            }
            Entry::Service(service) => {
                for host in &service.hosts {
                    release(&mut self.hosts, host, &by_rank);
                }
                for address in &service.addresses {
                    release(&mut self.service_addresses, address, &by_rank);
                }
            }
            Entry::Workload(workload) => {
                for address in own_addresses(workload) {
                    release(&mut self.workload_addresses, address, &by_rank);
                }
                for host in &workload.hosts {
                    release(&mut self.workload_hosts, host, &by_rank);
                }
            }
            Entry::Authorization(_)
            | Entry::Peer(_)
            | Entry::Request(_)
            | Entry::Telemetry(_)
            | Entry::DestinationRule(_) => {}
        }
        let Some(here) = self.namespaces.get_mut(&object.namespace) else { return };
        match entry {
            Entry::VirtualService(_) => {}
            Entry::Service(service) => here.services.remove(service),
            Entry::Workload(workload) => here.workloads.remove(workload),
            Entry::Authorization(_) => drop(here.authorization.remove(&object.name)),
            Entry::Peer(_) => drop(here.peer.remove(&object.name)),
            Entry::Request(_) => drop(here.request.remove(&object.name)),
            Entry::Telemetry(_) => drop(here.telemetry.remove(&object.name)),
            Entry::DestinationRule(_) => drop(here.destination_rules.remove(&object.name)),
        }
    }

    /// A service that needs a virtual address and states none is given its own.
    /// Names of hosts in use that are not at the place of their hash, for the replicas to share.
    #[must_use]
    pub fn displaced_addresses(&self) -> VirtualAddressState {
        let mut displaced = self.addresses.displaced();
        displaced.places.retain(|name, _| Host::parse(name).is_ok_and(|name| self.hosts.contains_key(&name)));
        displaced
    }

    /// Gives addresses as `shared` says from now on. The services that were given others are to be set anew.
    pub fn adopt_addresses(&mut self, shared: &VirtualAddressState) -> Vec<Change> {
        let moved = self.addresses.adopt(shared);
        let hosts = moved.iter().filter_map(|name| Host::parse(name).ok());
        let services = hosts.filter_map(|host| self.hosts.get(&host)).flat_map(BTreeMap::values);
        let is_given = |service: &Service| {
            !service.addresses.is_empty()
                && service.addresses.iter().all(|address| self.addresses.contains(*address))
        };
        services
            .filter(|service| is_given(service))
            .map(|service| {
                let stated = Service { addresses: Vec::new(), ..Service::clone(service) };
                Change::Set(Entry::Service(Arc::new(stated)))
            })
            .collect()
    }

    fn with_addresses(&mut self, service: Arc<Service>) -> Arc<Service> {
        let needs_one = service.addresses.is_empty()
            && !service.headless
            && service.resolution != mesh_api::model::service::Resolution::None;
        let host = service.hosts.iter().find(|host| !host.is_wildcard());
        let (true, Some(host)) = (needs_one, host) else { return service };
        let mut given = Service::clone(&service);
        given.addresses = self.addresses.assign(host.as_str());
        if given.addresses.is_empty() {
            let hosts = &self.hosts;
            self.addresses.forget(|name| Host::parse(name).is_ok_and(|name| hosts.contains_key(&name)));
            given.addresses = self.addresses.assign(host.as_str());
        }
        Arc::new(given)
    }

    fn effects_of(&self, entry: &Entry, effects: &mut HashSet<Effect>) {
        // What would take another's place is something to those also that the other selects.
        let is_placed = |meta: &ObjectMeta| mesh_policy::trial::replaced_by(meta).is_some();
        match entry {
            Entry::Service(service) => self.effects_of_service(service, effects),
            Entry::Workload(workload) => self.effects_of_workload(workload, effects),
            Entry::Authorization(policy) => {
                let chosen = |subject: &Subject<'_>| {
                    is_placed(&policy.meta)
                        || self.selects(subject, &policy.meta, &policy.selector, &policy.targets)
                };
                self.effects_on_workloads(&policy.meta, chosen, Effect::Policies, effects);
            }
            Entry::Request(policy) => {
                let chosen = |subject: &Subject<'_>| {
                    is_placed(&policy.meta)
                        || self.selects(subject, &policy.meta, &policy.selector, &policy.targets)
                };
                self.effects_on_workloads(&policy.meta, chosen, Effect::Policies, effects);
            }
            Entry::Telemetry(policy) => {
                let chosen = |subject: &Subject<'_>| {
                    self.selects(subject, &policy.meta, &policy.selector, &policy.targets)
                };
                self.effects_on_workloads(&policy.meta, chosen, Effect::Policies, effects);
            }
            Entry::Peer(policy) => {
                let chosen = |subject: &Subject<'_>| {
                    is_placed(&policy.meta) || policy.selector.selects(subject.labels)
                };
                self.effects_on_workloads(&policy.meta, chosen, Effect::Policies, effects);
                self.effects_on_workloads(&policy.meta, chosen, Effect::Modes, effects);
            }
            Entry::VirtualService(routes) => {
                effects.extend(routes.hosts.iter().map(|host| match host.is_wildcard() {
                    true => Effect::WildcardRoutes,
                    false => Effect::Routes(host.clone()),
                }));
            }
            Entry::DestinationRule(rule) => {
                let namespace = rule.meta.object.namespace.clone();
                effects.insert(match rule.host.is_wildcard() {
                    true => Effect::WildcardRules(namespace),
                    false => Effect::Rules(namespace, rule.host.clone()),
                });
            }
        }
    }

    /// Whether a policy with this metadata, selector and target references is meant for `subject`.
    fn selects(
        &self,
        subject: &Subject<'_>,
        meta: &ObjectMeta,
        selector: &mesh_api::model::Selector,
        targets: &[mesh_api::model::TargetRef],
    ) -> bool {
        mesh_policy::select::applies(&self.settings, subject, meta, selector, targets)
    }

    fn effects_of_service(&self, service: &Service, effects: &mut HashSet<Effect>) {
        effects.insert(Effect::Service(service.meta.object.clone()));
        effects.extend(service.hosts.iter().map(|host| match host.is_wildcard() {
            true => Effect::WildcardHosts,
            false => Effect::Host(host.clone()),
        }));
        effects.extend(service.addresses.iter().copied().map(Effect::Address));
        for workload in self.selected_by(service) {
            effects.insert(Effect::ServicesOf(WorkloadKey::of(&workload)));
        }
    }

    fn effects_of_workload(&self, workload: &Workload, effects: &mut HashSet<Effect>) {
        let key = WorkloadKey::of(workload);
        effects.insert(Effect::Workload(key.clone()));
        effects.insert(Effect::Policies(key.clone()));
        effects.insert(Effect::Modes(key.clone()));
        effects.insert(Effect::ServicesOf(key));
        effects.extend(own_addresses(workload).iter().copied().map(Effect::Address));
        effects.extend(workload.hosts.iter().cloned().map(Effect::Host));
        for service in self.services_of(workload) {
            effects.insert(Effect::Service(service.meta.object.clone()));
        }
    }

    fn effects_on_workloads(
        &self,
        meta: &ObjectMeta,
        chosen: impl Fn(&Subject<'_>) -> bool,
        effect: impl Fn(WorkloadKey) -> Effect,
        effects: &mut HashSet<Effect>,
    ) {
        let namespace = &meta.object.namespace;
        let is_root = *namespace == self.settings.root_namespace;
        let namespaces = self.namespaces.iter().filter(|(name, _)| is_root || *name == namespace);
        for workload in namespaces.flat_map(|(_, here)| here.workloads.iter()) {
            if chosen(&subject(workload)) {
                effects.insert(effect(WorkloadKey::of(workload)));
            }
        }
    }
}

/// A workload as policies see it.
#[must_use]
pub fn subject(workload: &Workload) -> Subject<'_> {
    Subject {
        namespace: &workload.meta.object.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    }
}

/// The mode of one target port of a workload, and that of the ports that are not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modes {
    /// Mode of unlisted ports.
    pub default: MtlsMode,
    /// Modes of single target ports.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// Addresses by which this very workload is called.
fn own_addresses(workload: &Workload) -> &[IpAddr] {
    if workload.shares_addresses { &[] } else { &workload.addresses }
}

fn release<K: Ord, V>(index: &mut BTreeMap<K, BTreeMap<Rank, V>>, key: &K, claim: &Rank) {
    if let Some(claims) = index.get_mut(key) {
        claims.remove(claim);
        if claims.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
