//! The answers of several replicas of a control plane as one (pure).

use std::collections::BTreeMap;

use mesh_api::admin::{ControlStatus, ObjectSummary, ProxyStatus};

/// One status: of a proxy that several replicas know, the one says most to which it is connected now, and of
/// those the one to which it came last. `None` without any.
pub(crate) fn status(replicas: Vec<ControlStatus>) -> Option<ControlStatus> {
    let mut replicas = replicas.into_iter();
    let mut whole = replicas.next()?;
    let mut proxies: BTreeMap<String, ProxyStatus> = BTreeMap::new();
    let mut add = |more: Vec<ProxyStatus>| {
        for proxy in more {
            match proxies.get(&proxy.name) {
                Some(known) if !is_newer(&proxy, known) => {}
                Some(_) | None => drop(proxies.insert(proxy.name.clone(), proxy)),
            }
        }
    };
    add(std::mem::take(&mut whole.proxies));
    for replica in replicas {
        add(replica.proxies);
        whole.revision = whole.revision.max(replica.revision);
        whole.errors = whole.errors.max(replica.errors);
        whole.warnings = whole.warnings.max(replica.warnings);
        if !whole.name.split(", ").any(|name| name == replica.name) {
            whole.name = format!("{}, {}", whole.name, replica.name);
        }
        if !whole.version.split(", ").any(|version| version == replica.version) {
            whole.version = format!("{}, {}", whole.version, replica.version);
        }
    }
    whole.proxies = proxies.into_values().collect();
    Some(whole)
}

/// Whether of two replies about a proxy the first says more: it is connected, or came later.
pub(crate) fn is_newer(one: &ProxyStatus, other: &ProxyStatus) -> bool {
    (one.connected, one.connected_at.as_str()) > (other.connected, other.connected_at.as_str())
}

/// The objects of all replicas: each counts its own proxies, so the numbers are added.
pub(super) fn objects(replicas: Vec<Vec<ObjectSummary>>) -> Vec<ObjectSummary> {
    let mut whole: Vec<ObjectSummary> = Vec::new();
    let mut place: BTreeMap<(mesh_api::model::Kind, String, String), usize> = BTreeMap::new();
    for object in replicas.into_iter().flatten() {
        let key = (object.kind, object.namespace.clone(), object.name.clone());
        let Some(known) = place.get(&key).and_then(|at| whole.get_mut(*at)) else {
            place.insert(key, whole.len());
            whole.push(object);
            continue;
        };
        known.enforced = match (known.enforced, object.enforced) {
            (Some((taken, all)), Some((more, others))) => Some((taken + more, all + others)),
            (one, other) => one.or(other),
        };
        // A replica that is behind still has the former text: then the change is not everywhere.
        if known.yaml != object.yaml {
            known.held |= object.held;
            known.enforced = known.enforced.map(|(_, all)| (0, all));
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, connected: bool, since: &str) -> ProxyStatus {
        ProxyStatus {
            name: name.to_owned(),
            identity: String::new(),
            version: String::new(),
            connected,
            connected_at: since.to_owned(),
            types: BTreeMap::new(),
            clock_skew_ms: None,
            address: None,
        }
    }

    fn replica(name: &str, proxies: Vec<ProxyStatus>) -> ControlStatus {
        ControlStatus {
            version: "1".to_owned(),
            name: name.to_owned(),
            trust_domain: String::new(),
            revision: 1,
            sources: Vec::new(),
            proxies,
            key_sources: Vec::new(),
            errors: 0,
            warnings: 0,
            objects: BTreeMap::new(),
        }
    }

    #[test]
    fn a_proxy_is_told_by_the_replica_to_which_it_is_connected() {
        let one = replica("a", vec![proxy("x", false, "2026-01-02"), proxy("y", true, "2026-01-01")]);
        let two = replica("b", vec![proxy("x", true, "2026-01-01"), proxy("y", true, "2026-01-03")]);
        let whole = status(vec![one, two]).expect("there are two");
        assert_eq!(whole.name, "a, b");
        assert_eq!(whole.version, "1");
        assert_eq!(whole.proxies, [proxy("x", true, "2026-01-01"), proxy("y", true, "2026-01-03")]);
        assert_eq!(status(Vec::new()), None);
    }

    fn object(yaml: &str, enforced: Option<(usize, usize)>) -> ObjectSummary {
        serde_json::from_value(serde_json::json!({
            "kind": "PeerAuthentication", "namespace": "a", "name": "b", "file": "", "line": 1, "yaml": yaml,
            "held": false, "problems": [], "enforced": enforced,
        }))
        .expect("an object")
    }

    #[test]
    fn proxies_of_all_replicas_are_counted() {
        let whole = objects(vec![vec![object("x", Some((1, 2)))], vec![object("x", Some((3, 3)))]]);
        assert_eq!(whole, [object("x", Some((4, 5)))]);
    }

    #[test]
    fn while_a_replica_has_another_text_nothing_is_enforced() {
        let whole = objects(vec![vec![object("new", Some((2, 2)))], vec![object("old", Some((3, 3)))]]);
        assert_eq!(whole, [object("new", Some((0, 5)))]);
    }
}
