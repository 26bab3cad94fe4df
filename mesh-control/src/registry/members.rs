//! Who is behind which service: the workloads and services of one namespace, found without walking over all of them.
//!
//! A selector demands every one of its pairs, so whoever is selected carries its last one. Services are kept by that
//! pair and workloads by each of theirs. The last in order, because where names have a common beginning
//! (`app.kubernetes.io/instance`, `app.kubernetes.io/name`) it is the one that tells more apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh_api::model::{Kind, ObjectRef, Selector, Service, Workload};
use mesh_api::name::ObjectName;

type Pair = (String, String);

/// Whether a workload is behind a service of its own namespace.
///
/// A Service without a selector, or with an empty one, selects nothing (Kubernetes, "Services without selectors").
pub(super) fn is_behind(service: &Service, workload: &Workload) -> bool {
    let is_selected = pairs_of(service).is_some_and(|selector| selector.selects(&workload.labels));
    service.meta.object.namespace == workload.meta.object.namespace
        && (is_selected || is_named(service, workload))
}

fn is_named(service: &Service, workload: &Workload) -> bool {
    workload.meta.object.kind == Kind::Pod && service.members.contains(&workload.meta.object.name)
}

fn pairs_of(service: &Service) -> Option<&Selector> {
    service.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn key_of(service: &Service) -> Option<Pair> {
    let (name, value) = pairs_of(service)?.match_labels.last_key_value()?;
    Some((name.clone(), value.clone()))
}

/// Workloads of one namespace.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    by_name: BTreeMap<(ObjectName, Kind), Arc<Workload>>,
    by_pair: HashMap<Pair, BTreeSet<(ObjectName, Kind)>>,
}

impl Workloads {
    pub(super) fn insert(&mut self, workload: Arc<Workload>) {
        let key = key(&workload.meta.object);
        for (name, value) in &workload.labels {
            self.by_pair.entry((name.clone(), value.clone())).or_default().insert(key.clone());
        }
        self.by_name.insert(key, workload);
    }

    pub(super) fn remove(&mut self, workload: &Workload) {
        let key = key(&workload.meta.object);
        for (name, value) in &workload.labels {
            take_out(&mut self.by_pair, &(name.clone(), value.clone()), &key);
        }
        self.by_name.remove(&key);
    }

    /// The workload of an object.
    pub(super) fn find(&self, object: &ObjectRef) -> Option<&Arc<Workload>> {
        self.by_name.get(&key(object))
    }

    /// The workload of a name: a pod before an entry.
    pub(super) fn named(&self, name: &ObjectName) -> Option<&Arc<Workload>> {
        let of = |kind| self.by_name.get(&(name.clone(), kind));
        of(Kind::Pod).or_else(|| of(Kind::WorkloadEntry))
    }

    /// Every workload.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_name.values()
    }

    /// Workloads behind a service, in order of name.
    pub(super) fn behind(&self, service: &Service) -> Vec<Arc<Workload>> {
        let mut found = BTreeMap::new();
        if let Some(pair) = key_of(service) {
            for key in self.by_pair.get(&pair).into_iter().flatten() {
                let workload = self.by_name.get(key).filter(|workload| is_behind(service, workload));
                found.extend(workload.map(|workload| (key.clone(), Arc::clone(workload))));
            }
        }
        for name in &service.members {
            let key = (name.clone(), Kind::Pod);
            found.extend(self.by_name.get(&key).map(|workload| (key, Arc::clone(workload))));
        }
        found.into_values().collect()
    }
}

/// Services of one namespace.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_object: BTreeMap<ObjectRef, Arc<Service>>,
    by_pair: HashMap<Pair, BTreeSet<ObjectRef>>,
    by_member: HashMap<ObjectName, BTreeSet<ObjectRef>>,
}

impl Services {
    pub(super) fn insert(&mut self, service: Arc<Service>) {
        let object = service.meta.object.clone();
        if let Some(pair) = key_of(&service) {
            self.by_pair.entry(pair).or_default().insert(object.clone());
        }
        for member in &service.members {
            self.by_member.entry(member.clone()).or_default().insert(object.clone());
        }
        self.by_object.insert(object, service);
    }

    pub(super) fn remove(&mut self, service: &Service) {
        let object = &service.meta.object;
        if let Some(pair) = key_of(service) {
            take_out(&mut self.by_pair, &pair, object);
        }
        for member in &service.members {
            take_out(&mut self.by_member, member, object);
        }
        self.by_object.remove(object);
    }

    /// The service of an object.
    pub(super) fn find(&self, object: &ObjectRef) -> Option<&Arc<Service>> {
        self.by_object.get(object)
    }

    /// Every service.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_object.values()
    }

    /// Services that a workload is behind, each once.
    pub(super) fn before(&self, workload: &Workload) -> Vec<Arc<Service>> {
        let pairs = workload.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
        let by_label = pairs.filter_map(|pair| self.by_pair.get(&pair)).flatten();
        let by_name = self.by_member.get(&workload.meta.object.name).into_iter().flatten();
        let objects: BTreeSet<&ObjectRef> = by_label.chain(by_name).collect();
        let services = objects.into_iter().filter_map(|object| self.by_object.get(object));
        services.filter(|service| is_behind(service, workload)).cloned().collect()
    }
}

fn key(object: &ObjectRef) -> (ObjectName, Kind) {
    (object.name.clone(), object.kind)
}

fn take_out<K: Eq + std::hash::Hash, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
