//! Whether what a proxy has acknowledged holds an object as it is now.
//!
//! An object is taken in at a revision. A resource that was built at that revision or later holds it, so a
//! proxy that has acknowledged such a version enforces it, also while a later version of the same resource,
//! for the sake of another object, is still under way. Versions are hashes of content: one that was current
//! until a revision is good for every object taken in by then.

use std::collections::{BTreeSet, VecDeque};

use mesh_api::model::{DestinationKey, ObjectRef};
use mesh_api::name::Host;

use super::{Desired, ResourceKey, Snapshot, SubscriberId};
use crate::registry::{Change, Effect, Entry, WorkloadKey};

/// Former versions of one resource that are remembered. A proxy that is further behind has not acknowledged for
/// as many changes, and is a laggard for what it lacks and for what it has.
const FORMER_MAX: usize = 16;

/// Versions of one resource that were current before, with the revision until which they were.
#[derive(Debug, Default)]
pub(super) struct Former(VecDeque<(String, u64)>);

impl Former {
    pub(super) fn push(&mut self, desired: &Desired, until: u64) {
        let Some(version) = desired.version() else { return };
        // A version that comes back (a policy is taken away again) is good until then.
        self.0.retain(|(former, _)| former != version);
        self.0.push_back((version.to_owned(), until));
        if self.0.len() > FORMER_MAX {
            self.0.pop_front();
        }
    }

    fn until(&self, version: &str) -> Option<u64> {
        self.0.iter().find(|(former, _)| former == version).map(|(_, until)| *until)
    }
}

impl Snapshot {
    /// Remembers at which revision an object comes in.
    pub(super) fn note(&mut self, change: &Change) {
        match change {
            Change::Set(entry) => drop(self.taken.insert(entry.meta().object.clone(), self.revision + 1)),
            Change::Remove(object) => drop(self.taken.remove(object)),
        }
    }

    /// The revision at which an object was taken in as it is now.
    #[must_use]
    pub fn taken_at(&self, object: &ObjectRef) -> Option<u64> {
        self.taken.get(object).copied()
    }

    /// The revision up to which a version of a resource holds all objects; `None` when nobody subscribes to the
    /// resource, or the version is not known any more.
    #[must_use]
    pub fn holds_until(&self, key: &ResourceKey, version: &str) -> Option<u64> {
        let kept = self.kept.get(key)?;
        match kept.desired.version() == Some(version) {
            true => Some(self.revision),
            false => kept.former.until(version),
        }
    }

    /// Destinations in use that an object has a say in, with their subscribers; empty for policies of workloads.
    #[must_use]
    pub fn destinations_of(&self, entry: &Entry) -> Vec<(&ResourceKey, &BTreeSet<SubscriberId>)> {
        let (effects, hosts): (Vec<Effect>, &[Host]) = match entry {
            Entry::VirtualService(routes) => {
                let effect = |host: &Host| match host.is_wildcard() {
                    true => Effect::WildcardRoutes,
                    false => Effect::Routes(host.clone()),
                };
                (routes.hosts.iter().map(effect).collect(), &routes.hosts)
            }
            Entry::DestinationRule(rule) => {
                let namespace = rule.meta.object.namespace.clone();
                let effect = match rule.host.is_wildcard() {
                    true => Effect::WildcardRules(namespace),
                    false => Effect::Rules(namespace, rule.host.clone()),
                };
                (vec![effect], std::slice::from_ref(&rule.host))
            }
            Entry::Service(service) => (vec![Effect::Service(service.meta.object.clone())], &[]),
            Entry::Workload(workload) => (vec![Effect::Workload(WorkloadKey::of(workload))], &[]),
            Entry::Authorization(_) | Entry::Peer(_) | Entry::Request(_) | Entry::Telemetry(_) => {
                return Vec::new();
            }
        };
        let keys: BTreeSet<&ResourceKey> =
            effects.iter().filter_map(|effect| self.readers.get(effect)).flatten().collect();
        keys.into_iter()
            .filter(|key| self.is_covered(key, hosts))
            .filter_map(|key| Some((key, &self.kept.get(key)?.subscribers)))
            .collect()
    }

    /// Whether a destination is one of `hosts`; with none, whichever it is. Whoever asked for a destination has
    /// looked at wildcards that may not cover it.
    fn is_covered(&self, key: &ResourceKey, hosts: &[Host]) -> bool {
        let covers = |name: &Host| hosts.is_empty() || hosts.iter().any(|host| host.covers(name.as_str()));
        match key {
            ResourceKey::Destination(_, DestinationKey::Host(host)) => covers(host),
            ResourceKey::Destination(_, DestinationKey::Address(address)) => {
                let service = self.registry.service_by_address(*address);
                hosts.is_empty() || service.is_some_and(|service| service.hosts.iter().any(covers))
            }
            ResourceKey::TrustBundle | ResourceKey::ProxyConfig(_) | ResourceKey::WorkloadPolicies(_) => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{object, policy, registry, routes, service, workload};
    use mesh_api::model::Kind;
    use mesh_api::wire::TypeUrl;

    fn set(entry: impl Into<Entry>) -> Change {
        Change::Set(entry.into())
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::new(registry(), Default::default());
        let workloads =
            [workload("shop", "web-0", "web", "10.0.0.1"), workload("shop", "db-0", "db", "10.0.0.2")];
        snapshot.apply(None, workloads.into_iter().map(set));
        snapshot
    }

    fn policies(of: &str) -> ResourceKey {
        ResourceKey::WorkloadPolicies(WorkloadKey::from_node_id(of).expect("valid"))
    }

    fn version(snapshot: &Snapshot, key: &ResourceKey) -> String {
        snapshot.desired(key).expect("kept").version().expect("present").to_owned()
    }

    #[test]
    fn a_version_holds_what_came_before_it_and_not_what_came_after() {
        let mut snapshot = snapshot();
        let key = policies("web-0.shop");
        snapshot.subscribe(SubscriberId(1), &key);
        let before = version(&snapshot, &key);
        snapshot.apply(None, [set(policy("shop", "a", Some("web")))]);
        let with_a = version(&snapshot, &key);
        snapshot.apply(None, [set(policy("shop", "b", Some("web")))]);
        let taken =
            |name| snapshot.taken_at(&object(Kind::AuthorizationPolicy, "shop", name)).expect("taken in");
        let holds = |version: &str| snapshot.holds_until(&key, version).expect("known");
        assert!(holds(&before) < taken("a"));
        assert!(holds(&with_a) >= taken("a") && holds(&with_a) < taken("b"));
        assert!(holds(&version(&snapshot, &key)) >= taken("b"));
        assert_eq!(snapshot.holds_until(&key, "unheard of"), None);
    }

    #[test]
    fn a_version_that_a_change_left_alone_holds_the_change() {
        let mut snapshot = snapshot();
        let key = policies("web-0.shop");
        snapshot.subscribe(SubscriberId(1), &key);
        let unchanged = version(&snapshot, &key);
        snapshot.apply(None, [set(policy("shop", "of-others", Some("db")))]);
        let taken =
            snapshot.taken_at(&object(Kind::AuthorizationPolicy, "shop", "of-others")).expect("taken in");
        assert!(snapshot.holds_until(&key, &unchanged).expect("known") >= taken);
    }

    #[test]
    fn a_version_that_comes_back_is_good_until_it_goes_again() {
        let mut snapshot = snapshot();
        let key = policies("web-0.shop");
        snapshot.subscribe(SubscriberId(1), &key);
        let empty = version(&snapshot, &key);
        for name in ["a", "b"] {
            snapshot.apply(None, [set(policy("shop", name, Some("web")))]);
            snapshot.apply(None, [Change::Remove(object(Kind::AuthorizationPolicy, "shop", name))]);
        }
        assert_eq!(snapshot.holds_until(&key, &empty), Some(snapshot.revision()));
        assert_eq!(
            snapshot.taken_at(&object(Kind::AuthorizationPolicy, "shop", "a")),
            None,
            "what is gone is forgotten"
        );
    }

    #[test]
    fn what_is_remembered_of_former_versions_is_bounded() {
        let mut snapshot = snapshot();
        let key = policies("web-0.shop");
        snapshot.subscribe(SubscriberId(1), &key);
        let first = version(&snapshot, &key);
        for number in 0..=FORMER_MAX {
            snapshot.apply(None, [set(policy("shop", &format!("p{number}"), Some("web")))]);
        }
        assert_eq!(snapshot.kept[&key].former.0.len(), FORMER_MAX);
        assert_eq!(snapshot.holds_until(&key, &first), None);
    }

    #[test]
    fn routes_concern_those_who_asked_for_the_host_and_nobody_else() {
        let mut snapshot = snapshot();
        snapshot.apply(None, [set(service("shop", "db", "db")), set(service("shop", "web", "web"))]);
        let web = WorkloadKey::from_node_id("web-0.shop").expect("valid");
        let of = |host: &str| ResourceKey::resolve(TypeUrl::Destination, host, &web).expect("a destination");
        snapshot.subscribe(SubscriberId(1), &of("host/db.shop.svc.cluster.local"));
        snapshot.subscribe(SubscriberId(2), &of("host/web.shop.svc.cluster.local"));
        for host in ["db.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*.elsewhere"] {
            let entry = Entry::from(routes("shop", "r", host, "db.shop.svc.cluster.local"));
            snapshot.apply(None, [Change::Set(entry.clone())]);
            let found: BTreeSet<_> =
                snapshot.destinations_of(&entry).into_iter().flat_map(|(_, who)| who.clone()).collect();
            let expected: &[u64] = match host {
                "db.shop.svc.cluster.local" => &[1],
                "*.elsewhere" => &[],
                _ => &[1, 2],
            };
            assert_eq!(found, expected.iter().copied().map(SubscriberId).collect(), "{host}");
        }
    }
}
