use super::*;
use crate::fixture::{plane, workload};
use crate::registry::{Change, Entry};
use mesh_api::model::Workload;

fn object() -> ObjectRef {
    crate::fixture::object(Kind::AuthorizationPolicy, "shop", "access")
}

fn report(generation: i64, applies: usize, enforced: usize) -> BTreeMap<ObjectRef, ObjectStatus> {
    let status = ObjectStatus {
        kind: Kind::AuthorizationPolicy,
        namespace: "shop".to_owned(),
        name: "access".to_owned(),
        generation,
        accepted: true,
        held: false,
        reason: String::new(),
        applies,
        enforced,
        laggards: vec!["far.shop".to_owned(); applies - enforced],
    };
    BTreeMap::from([(object(), status)])
}

fn peers(replicas: &[(&str, u64, BTreeMap<ObjectRef, ObjectStatus>)]) -> Peers {
    let mut peers = Peers::new(&plane());
    for (name, instance, objects) in replicas {
        let mut peer = Peer::new(Instant::now());
        peer.take((*instance, 1, Some(objects.clone())));
        peers.peers.insert((*name).to_owned(), peer);
    }
    peers
}

#[test]
fn numbers_of_all_replicas_are_added_and_those_of_oneself_are_not() {
    let peers =
        peers(&[("a", 1, report(2, 3, 2)), ("self", instance(), report(2, 9, 9)), ("b", 2, report(2, 1, 1))]);
    let mut spread = Spread { applies: 5, enforced: 5, laggards: Vec::new() };
    assert_eq!(peers.add(&object(), 2, &mut spread), Vec::<String>::new());
    assert_eq!(spread, Spread { applies: 9, enforced: 8, laggards: vec!["far.shop".to_owned()] });
}

#[test]
fn a_replica_that_is_behind_enforces_a_generation_nowhere() {
    let peers = peers(&[("a", 1, report(1, 3, 3))]);
    let mut spread = Spread::default();
    peers.add(&object(), 2, &mut spread);
    assert_eq!((spread.applies, spread.enforced), (3, 0));
}

#[test]
fn a_replica_that_has_not_answered_for_a_while_is_named() {
    let mut peers = peers(&[("a", 1, report(2, 3, 3))]);
    let before = peers.activity();
    let peer = peers.peers.get_mut("a").expect("there");
    peer.heard = Instant::now().checked_sub(SILENT_AFTER).expect("a time");
    let mut spread = Spread::default();
    assert_eq!(peers.add(&object(), 2, &mut spread), ["a"]);
    assert_eq!(spread, Spread::default(), "what it said once is not known any more");
    assert_ne!(peers.activity(), before, "silence is news");
}

fn pod(name: &str, component: &str, availability: Availability) -> Workload {
    let mut pod = workload("istio-system", name, "mesh-control", "10.0.0.9");
    pod.meta.object.kind = Kind::Pod;
    pod.labels.insert(LABEL_COMPONENT.to_owned(), component.to_owned());
    pod.availability = availability;
    pod
}

#[test]
fn replicas_are_the_ready_pods_of_the_control_plane() {
    let plane = plane();
    let mut elsewhere = pod("c", "control", Availability::Ready);
    elsewhere.meta.object.namespace = crate::fixture::namespace("shop");
    let pods = [
        pod("a", "control", Availability::Ready),
        pod("b", "control", Availability::Unready),
        pod("d", "other", Availability::Ready),
        elsewhere,
    ];
    plane.snapshot().apply(None, pods.map(|pod| Change::Set(Entry::from(pod))));
    let found = replicas(&plane);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(found["a"].port(), PORT_DISCOVERY);
}
