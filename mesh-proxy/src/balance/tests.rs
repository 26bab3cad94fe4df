use std::collections::BTreeMap;

use mesh_api::model::destination::Balance;
use mesh_api::model::service::Resolution;
use mesh_api::model::traffic::{ClientTlsMode, Subset, TrafficPolicy};
use mesh_api::model::{
    Destination, DestinationKey, Endpoint, Kind, ObjectRef, PeerTls, Protocol, ServicePort,
};
use mesh_api::name::{Namespace, ObjectName, SpiffeId};

use super::*;

fn endpoint(number: u8) -> Endpoint {
    let identity = SpiffeId::parse("spiffe://cluster.local/ns/web/sa/server").expect("valid");
    let version = format!("v{number}");
    Endpoint {
        address: [10, 0, 0, number].into(),
        workload: format!("server-{number}"),
        namespace: Namespace::parse("web").expect("valid"),
        labels: BTreeMap::from(
            [("app", "server"), ("version", version.as_str())]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        ),
        target_ports: vec![8080],
        tls: vec![PeerTls::Mutual { identity }],
        weight: 1,
        draining: false,
        zones: Vec::new(),
    }
}

fn destination(balance: Balance, endpoints: Vec<Endpoint>) -> Destination {
    Destination {
        host: "server.web.svc.cluster.local".to_owned(),
        object: ObjectRef {
            kind: Kind::Service,
            namespace: Namespace::parse("web").expect("valid"),
            name: ObjectName::parse("server").expect("valid"),
        },
        addresses: Vec::new(),
        headless: false,
        ports: vec![ServicePort {
            name: String::new(),
            port: 80,
            target_port: 8080,
            target_port_name: None,
            protocol: Protocol::Http,
        }],
        endpoints,
        resolution: Resolution::Static,
        policy: TrafficPolicy { balance: Some(balance), ..TrafficPolicy::default() },
        port_level: Vec::new(),
        subsets: Vec::new(),
        destination_rule: None,
        routes: None,
        direct: None,
    }
}

fn state(destination: Destination, generation: u64) -> Arc<DestinationState> {
    let key = DestinationKey::Address([240, 0, 0, 1].into());
    Arc::new(DestinationState::new(key, destination, None, "1".into(), generation))
}

fn request<'a>(state: &'a Arc<DestinationState>, tried: &'a [usize]) -> Request<'a> {
    Request {
        destination: state,
        port: 80,
        subset: None,
        alpn: UpstreamAlpn::Http1,
        dialled: "240.0.0.1:80".parse().expect("address"),
        tried,
        zone: "",
        connect_timeout: Duration::from_secs(10),
    }
}

/// How often each endpoint is picked.
fn counts(balancer: &Balancer, request: &Request<'_>, picks: usize) -> BTreeMap<usize, usize> {
    let mut rng = fastrand::Rng::with_seed(42);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let picked = balancer.pick(request, &mut rng).expect("there is one");
        *counts.entry(picked.endpoint).or_default() += 1;
    }
    counts
}

fn three() -> Vec<Endpoint> {
    (1..=3).map(endpoint).collect()
}

#[test]
fn round_robin_takes_turns_by_weight() {
    let state = state(destination(Balance::RoundRobin, three()), 1);
    let balancer = Balancer::default();
    assert_eq!(counts(&balancer, &request(&state, &[]), 30), BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
    let mut weighted = three();
    weighted[1].weight = 3;
    weighted[2].weight = 4;
    let state = tests::state(destination(Balance::RoundRobin, weighted), 2);
    assert_eq!(counts(&balancer, &request(&state, &[]), 80), BTreeMap::from([(0, 10), (1, 30), (2, 40)]));
}

#[test]
fn every_way_of_balancing_uses_every_endpoint() {
    for (generation, balance) in (1..).zip([Balance::Random, Balance::LeastRequest]) {
        let state = state(destination(balance, three()), generation);
        let counts = counts(&Balancer::default(), &request(&state, &[]), 3000);
        assert!(counts.len() == 3 && counts.values().all(|&count| count > 700), "{balance:?}: {counts:?}");
    }
}

#[test]
fn what_drains_or_has_no_weight_or_was_tried_is_left_out() {
    let mut endpoints = three();
    endpoints[0].draining = true;
    endpoints[1].weight = 0;
    for (generation, balance) in (1..).zip([Balance::RoundRobin, Balance::Random, Balance::LeastRequest]) {
        let state = state(destination(balance, endpoints.clone()), generation);
        let balancer = Balancer::default();
        assert_eq!(counts(&balancer, &request(&state, &[]), 20), BTreeMap::from([(2, 20)]));
        assert!(balancer.pick(&request(&state, &[2]), &mut fastrand::Rng::with_seed(1)).is_none());
        let all = tests::state(destination(balance, three()), generation + 10);
        let left = counts(&balancer, &request(&all, &[0, 2]), 20);
        assert_eq!(left, BTreeMap::from([(1, 20)]), "{balance:?}");
    }
}

#[test]
fn what_drains_serves_while_there_is_no_other() {
    let mut endpoints = three();
    endpoints.iter_mut().for_each(|one| one.draining = true);
    endpoints[2].weight = 0;
    let state = state(destination(Balance::RoundRobin, endpoints), 1);
    let counted = counts(&Balancer::default(), &request(&state, &[]), 20);
    assert_eq!(counted, BTreeMap::from([(0, 10), (1, 10)]));
}

#[test]
fn endpoints_meant_for_the_own_zone_are_kept_to_while_one_of_them_can_serve() {
    let mut endpoints = three();
    for (one, zone) in endpoints.iter_mut().zip(["a", "b", "b"]) {
        one.zones = vec![zone.to_owned()];
    }
    let balancer = Balancer::default();
    let all = state(destination(Balance::RoundRobin, endpoints.clone()), 1);
    let of_zone = |state, zone, tried| Request { zone, ..request(state, tried) };
    assert_eq!(counts(&balancer, &of_zone(&all, "a", &[]), 20), BTreeMap::from([(0, 20)]));
    assert_eq!(counts(&balancer, &of_zone(&all, "b", &[]), 20), BTreeMap::from([(1, 10), (2, 10)]));
    assert_eq!(counts(&balancer, &of_zone(&all, "b", &[1, 2]), 5), BTreeMap::from([(0, 5)]), "none is left");
    assert_eq!(counts(&balancer, &of_zone(&all, "c", &[]), 30).len(), 3, "none is meant for it");
    assert_eq!(counts(&balancer, &of_zone(&all, "", &[]), 30).len(), 3, "the zone is not known");
    endpoints[1].zones.clear();
    let partly = state(destination(Balance::RoundRobin, endpoints), 2);
    assert_eq!(counts(&balancer, &of_zone(&partly, "a", &[]), 30).len(), 3, "hints that are not complete");
}

#[test]
fn least_request_avoids_what_is_busy_or_fails() {
    let state = state(destination(Balance::LeastRequest, three()), 1);
    let balancer = Balancer::default();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut busy = Vec::new();
    while busy.len() < 20 {
        let picked = balancer.pick(&request(&state, &[1, 2]), &mut rng).expect("there is one");
        busy.push(picked.in_flight);
    }
    let counted = counts(&balancer, &request(&state, &[]), 300);
    assert!(counted.get(&0).copied().unwrap_or_default() < 20, "{counted:?}");
    drop(busy);
    let failing = balancer.pick(&request(&state, &[0, 2]), &mut rng).expect("there is one");
    failing.in_flight.note_failure();
    drop(failing);
    let counted = counts(&balancer, &request(&state, &[]), 300);
    assert!(counted.get(&1).copied().unwrap_or_default() < 60, "{counted:?}");
}

#[test]
fn in_flight_is_told_while_it_lasts_and_outlives_a_new_state() {
    let active = ActiveRequests::default();
    let balancer = Balancer::new(active.clone());
    let mut rng = fastrand::Rng::with_seed(7);
    let first = state(destination(Balance::RoundRobin, vec![endpoint(1)]), 1);
    let picked = balancer.pick(&request(&first, &[]), &mut rng).expect("there is one");
    let address = picked.target.address;
    assert_eq!(active.of(address), 1);
    drop(first);
    let second = state(destination(Balance::RoundRobin, vec![endpoint(1)]), 2);
    let again = balancer.pick(&request(&second, &[]), &mut rng).expect("there is one");
    assert_eq!(active.of(address), 2, "both states count in one place");
    assert_eq!(balancer.groups.borrow().len(), 1, "the group of the state that is gone is gone");
    drop((picked, again));
    assert_eq!(active.of(address), 0);
}

#[test]
fn a_target_says_whom_to_expect_and_what_to_ask_for() {
    let mut model = destination(Balance::RoundRobin, three());
    model.subsets = vec![Subset {
        name: "two".to_owned(),
        labels: BTreeMap::from([("version".to_owned(), "v2".to_owned())]),
        policy: TrafficPolicy { connect_timeout_ms: Some(7), ..TrafficPolicy::default() },
    }];
    let state = state(model, 1);
    let subset = Request { subset: Some("two"), ..request(&state, &[]) };
    let balancer = Balancer::default();
    let mut rng = fastrand::Rng::with_seed(7);
    let picked = balancer.pick(&subset, &mut rng).expect("there is one");
    assert_eq!(picked.endpoint, 1);
    assert_eq!(picked.target.address, "10.0.0.2:8080".parse().expect("address"));
    assert_eq!(&*picked.target.sni, "outbound_.80_.two_.server.web.svc.cluster.local");
    assert_eq!(picked.target.connect_timeout, Duration::from_millis(7));
    assert!(
        matches!(&picked.target.tls, PeerTls::Mutual { identity } if identity.as_str().ends_with("/sa/server"))
    );
    assert_eq!(picked.labels.cluster, "outbound|80|two|server.web.svc.cluster.local");
    assert_eq!(
        (picked.labels.workload.version.as_str(), picked.labels.service_name.as_str()),
        ("v2", "server")
    );
    let unknown = Request { subset: Some("three"), ..request(&state, &[]) };
    assert!(balancer.pick(&unknown, &mut rng).is_none(), "a subset that does not exist has no endpoint");
    let other_port = Request { port: 81, ..request(&state, &[]) };
    assert!(balancer.pick(&other_port, &mut rng).is_none());
}

#[test]
fn the_policy_of_a_port_overrides_that_of_the_host() {
    let mut model = destination(Balance::Random, three());
    let disabled = TrafficPolicy {
        balance: Some(Balance::RoundRobin),
        tls: Some(ClientTlsMode::Disable),
        connect_timeout_ms: Some(9),
    };
    model.port_level = vec![(80, disabled)];
    let state = state(model, 1);
    let picked =
        Balancer::default().pick(&request(&state, &[]), &mut fastrand::Rng::with_seed(7)).expect("one");
    assert_eq!(picked.target.tls, PeerTls::Plaintext);
    assert_eq!(picked.target.connect_timeout, Duration::from_millis(9));
}

#[test]
fn a_destination_without_addresses_of_its_own_is_reached_where_it_was_dialled() {
    let mut by_none = destination(Balance::LeastRequest, Vec::new());
    by_none.resolution = Resolution::None;
    let by_none = state(by_none, 1);
    let identity = SpiffeId::parse("spiffe://cluster.local/ns/web/sa/server").expect("valid");
    let mut direct = destination(Balance::LeastRequest, vec![endpoint(1)]);
    direct.direct = Some(PeerTls::Mutual { identity: identity.clone() });
    let direct = state(direct, 2);
    let balancer = Balancer::default();
    let mut rng = fastrand::Rng::with_seed(7);
    let dialled = "240.0.0.1:80".parse().expect("address");
    let picked = balancer.pick(&request(&by_none, &[]), &mut rng).expect("one");
    assert_eq!((picked.target.address, picked.target.tls), (dialled, PeerTls::Plaintext));
    let unlisted = Request { port: 9999, ..request(&direct, &[]) };
    let picked = balancer.pick(&unlisted, &mut rng).expect("one");
    assert_eq!((picked.target.address, picked.target.tls), (dialled, PeerTls::Mutual { identity }));
    assert!(balancer.pick(&Request { tried: &[0], ..unlisted }, &mut rng).is_none());
}
