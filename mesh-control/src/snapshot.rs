//! What each proxy is sent: resources built from the registry, with a version each, and who subscribes.
//!
//! [`build`] makes one resource and says which facts of the mesh it read. [`Snapshot`] keeps the resources
//! that somebody subscribes to, with the reverse index from fact to resource, so that a change costs what it
//! touches times who asked for it and nothing is built that nobody wants.
//!
//! Pure: no clock, no IO. The caller locks it, applies a change, and wakes the subscribers that are named.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use mesh_api::model::{
    Availability, DestinationKey, KeySet, KeySets, Kind, ObjectRef, TrustBundleSet, Workload,
};
use mesh_api::name::{Host, Namespace};
use mesh_api::wire::TypeUrl;

use crate::registry::{Change, Effect, Registry, WorkloadKey};

pub mod build;
mod destination;
mod enforcement;
mod resource;

pub use build::Knowledge;
pub use resource::{Desired, Encoded};

/// Names one resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKey {
    /// The trust bundle, the same for everybody.
    TrustBundle,
    /// Settings and own workload of a proxy.
    ProxyConfig(WorkloadKey),
    /// Policies of a proxy's workload.
    WorkloadPolicies(WorkloadKey),
    /// A destination as clients of one namespace see it: DestinationRules are looked up from there first.
    Destination(Namespace, DestinationKey),
}

impl ResourceKey {
    /// The type on the wire.
    #[must_use]
    pub fn kind(&self) -> TypeUrl {
        match self {
            Self::TrustBundle => TypeUrl::TrustBundle,
            Self::ProxyConfig(_) => TypeUrl::ProxyConfig,
            Self::WorkloadPolicies(_) => TypeUrl::WorkloadPolicies,
            Self::Destination(..) => TypeUrl::Destination,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn wire_name(&self) -> String {
        match self {
            Self::TrustBundle | Self::ProxyConfig(_) | Self::WorkloadPolicies(_) => {
                mesh_api::wire::SELF.to_owned()
            }
            Self::Destination(_, key) => key.to_string(),
        }
    }

    /// The resource that `workload`'s proxy means by a type and a name; `None` when there can be none.
    #[must_use]
    pub fn resolve(kind: TypeUrl, name: &str, workload: &WorkloadKey) -> Option<Self> {
        let is_self = name == mesh_api::wire::SELF;
        match kind {
            TypeUrl::TrustBundle => is_self.then_some(Self::TrustBundle),
            TypeUrl::ProxyConfig => is_self.then(|| Self::ProxyConfig(workload.clone())),
            TypeUrl::WorkloadPolicies => is_self.then(|| Self::WorkloadPolicies(workload.clone())),
            TypeUrl::Destination => {
                let key = DestinationKey::parse(name)?;
                Some(Self::Destination(workload.namespace.clone(), key))
            }
        }
    }
}

/// Identifies a subscriber: one stream of one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub u64);

#[derive(Debug)]
struct Kept {
    desired: Desired,
    facts: HashSet<Effect>,
    subscribers: BTreeSet<SubscriberId>,
    /// Versions that were current before.
    former: enforcement::Former,
}

/// Registry, resources in use, and subscriptions.
#[derive(Debug)]
pub struct Snapshot {
    registry: Registry,
    bundle: TrustBundleSet,
    keys: KeySets,
    kept: HashMap<ResourceKey, Kept>,
    readers: HashMap<Effect, HashSet<ResourceKey>>,
    subscriptions: HashMap<SubscriberId, BTreeSet<ResourceKey>>,
    /// Streams that wait for a workload to become known, or to change.
    watchers: HashMap<WorkloadKey, BTreeSet<SubscriberId>>,
    revision: u64,
    /// At which revision each object was taken in as it is.
    taken: HashMap<ObjectRef, u64>,
}

/// Who is to be told what, after a change.
pub type Updates = BTreeMap<SubscriberId, BTreeSet<ResourceKey>>;

impl Snapshot {
    /// A snapshot of `registry` that nobody subscribes to yet.
    #[must_use]
    pub fn new(registry: Registry, bundle: TrustBundleSet) -> Self {
        Self {
            registry,
            bundle,
            keys: KeySets::new(),
            kept: HashMap::new(),
            readers: HashMap::new(),
            subscriptions: HashMap::new(),
            watchers: HashMap::new(),
            revision: 0,
            taken: HashMap::new(),
        }
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry, for taking what has to be persisted.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Number of changes so far.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes changes in and says who is to be told. `settings` are replaced first if given.
    pub fn apply(
        &mut self,
        settings: Option<mesh_api::model::MeshSettings>,
        changes: impl IntoIterator<Item = Change>,
    ) -> Updates {
        let mut effects = HashSet::new();
        if let Some(settings) = settings {
            effects.extend(self.registry.set_settings(settings));
        }
        let mut has_changed = !effects.is_empty();
        for change in changes {
            has_changed = true;
            self.note(&change);
            effects.extend(self.registry.apply(change));
        }
        if !has_changed {
            return Updates::new();
        }
        // A change that concerns no proxy is one all the same: operators see that it was taken in.
        self.revision += 1;
        self.rebuild(&effects, self.revision - 1)
    }

    /// Trusts `bundle` from now on, and says who is to be told.
    pub fn set_bundle(&mut self, bundle: TrustBundleSet) -> Updates {
        if self.bundle == bundle {
            return Updates::new();
        }
        self.bundle = bundle;
        self.revision += 1;
        self.rebuild(&HashSet::from([Effect::TrustBundle]), self.revision - 1)
    }

    /// Knows these keys from now on (`None`: nothing of the source), and says who is to be told: those whose
    /// policies use a source of which something else is known now.
    pub fn set_keys(&mut self, keys: BTreeMap<String, Option<KeySet>>) -> Updates {
        let mut effects = HashSet::new();
        for (source, set) in keys {
            if self.keys.get(&source) == set.as_ref() {
                continue;
            }
            match set {
                Some(set) => drop(self.keys.insert(source.clone(), set)),
                None => drop(self.keys.remove(&source)),
            }
            effects.insert(Effect::Keys(source));
        }
        if effects.is_empty() {
            return Updates::new();
        }
        self.rebuild(&effects, self.revision)
    }

    /// Subscribes; answers with what is to be sent.
    pub fn subscribe(&mut self, subscriber: SubscriberId, key: &ResourceKey) -> Desired {
        self.subscriptions.entry(subscriber).or_default().insert(key.clone());
        if let Some(kept) = self.kept.get_mut(key) {
            kept.subscribers.insert(subscriber);
            return kept.desired.clone();
        }
        let (desired, facts) = build::build(self.knowledge(), key);
        self.keep_facts(key, &facts);
        let kept = Kept {
            desired: desired.clone(),
            facts,
            subscribers: BTreeSet::from([subscriber]),
            former: enforcement::Former::default(),
        };
        self.kept.insert(key.clone(), kept);
        desired
    }

    /// Unsubscribes. A resource that nobody wants any more is forgotten.
    pub fn unsubscribe(&mut self, subscriber: SubscriberId, key: &ResourceKey) {
        if let Some(keys) = self.subscriptions.get_mut(&subscriber) {
            keys.remove(key);
        }
        let Some(kept) = self.kept.get_mut(key) else { return };
        kept.subscribers.remove(&subscriber);
        if kept.subscribers.is_empty()
            && let Some(kept) = self.kept.remove(key)
        {
            self.drop_facts(key, &kept.facts);
        }
    }

    /// Ends every subscription of a stream.
    pub fn leave(&mut self, subscriber: SubscriberId) {
        for key in self.subscriptions.remove(&subscriber).unwrap_or_default() {
            self.unsubscribe(subscriber, &key);
        }
        self.subscriptions.remove(&subscriber);
        self.watchers.retain(|_, watching| {
            watching.remove(&subscriber);
            !watching.is_empty()
        });
    }

    /// Wakes `subscriber` whenever `workload` changes, appears or goes away.
    pub fn watch_workload(&mut self, subscriber: SubscriberId, workload: &WorkloadKey) {
        self.watchers.entry(workload.clone()).or_default().insert(subscriber);
    }

    /// Addresses and target ports behind a core Service's own name, for the control plane's own requests. Not
    /// of a ServiceEntry: it may state any host, and must not say where others' requests to that host go.
    #[must_use]
    pub fn service_addresses(&self, name: &str, port: u16) -> Vec<SocketAddr> {
        let host = Host::parse(name).ok();
        let service = host.and_then(|host| self.registry.service_by_host(&host));
        let Some(service) = service.filter(|service| service.meta.object.kind == Kind::Service) else {
            return Vec::new();
        };
        let Some(port) = service.ports.iter().find(|declared| declared.port == port) else {
            return Vec::new();
        };
        let mut addresses = Vec::new();
        let takes_new = |workload: &Workload| match workload.availability {
            Availability::Ready => true,
            Availability::Unready => service.publish_not_ready,
            Availability::Draining => false,
        };
        for workload in self.registry.selected_by(service).into_iter().filter(|workload| takes_new(workload))
        {
            let target = destination::target_port(port, &workload);
            addresses.extend(workload.addresses.iter().map(|address| SocketAddr::new(*address, target)));
        }
        addresses
    }

    /// What a subscriber is to be sent for a resource now; `None` when nobody subscribes to it.
    #[must_use]
    pub fn desired(&self, key: &ResourceKey) -> Option<Desired> {
        self.kept.get(key).map(|kept| kept.desired.clone())
    }

    /// Numbers of resources kept and of subscriptions.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.kept.len(), self.subscriptions.values().map(BTreeSet::len).sum())
    }

    fn knowledge(&self) -> Knowledge<'_> {
        Knowledge { registry: &self.registry, bundle: &self.bundle, keys: &self.keys }
    }

    /// Builds anew what reads `effects`. What was built before is of the objects up to revision `until`.
    fn rebuild(&mut self, effects: &HashSet<Effect>, until: u64) -> Updates {
        let mut affected: BTreeSet<ResourceKey> = BTreeSet::new();
        let mut updates = Updates::new();
        for effect in effects {
            affected.extend(self.readers.get(effect).into_iter().flatten().cloned());
            if let Effect::Workload(workload) = effect {
                for watcher in self.watchers.get(workload).into_iter().flatten() {
                    updates.entry(*watcher).or_default();
                }
            }
        }
        for key in affected {
            let (desired, facts) = build::build(self.knowledge(), &key);
            let Some(kept) = self.kept.get_mut(&key) else { continue };
            let former_facts = std::mem::replace(&mut kept.facts, facts.clone());
            if kept.desired != desired {
                kept.former.push(&kept.desired, until);
                kept.desired = desired;
                for subscriber in &kept.subscribers {
                    updates.entry(*subscriber).or_default().insert(key.clone());
                }
            }
            if former_facts != facts {
                self.drop_facts(&key, &former_facts);
                self.keep_facts(&key, &facts);
            }
        }
        updates
    }

    fn keep_facts(&mut self, key: &ResourceKey, facts: &HashSet<Effect>) {
        for fact in facts {
            self.readers.entry(fact.clone()).or_default().insert(key.clone());
        }
    }

    fn drop_facts(&mut self, key: &ResourceKey, facts: &HashSet<Effect>) {
        for fact in facts {
            if let Some(readers) = self.readers.get_mut(fact) {
                readers.remove(key);
                if readers.is_empty() {
                    self.readers.remove(fact);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
