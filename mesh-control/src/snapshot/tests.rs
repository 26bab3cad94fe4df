use super::*;
use std::net::IpAddr;

use crate::fixture::{
    host, namespace, object, peer, policy, registry, routes, rule, service, silence, workload,
};
use crate::registry::Entry;
use mesh_api::model::telemetry::AccessLogRule;
use mesh_api::model::traffic::{ClientTlsMode, Subset, TrafficPolicy};
use mesh_api::model::{Destination, Kind, MeshSettings, MtlsMode, PeerTls, ProxyConfig, WorkloadPolicies};
use mesh_api::name::ObjectName;
use proptest::prelude::*;
use serde::de::DeserializeOwned;

mod pods;

const CATALOG: &str = "catalog.backend.svc.cluster.local";

fn key(in_namespace: &str, name: &str) -> WorkloadKey {
    WorkloadKey { namespace: namespace(in_namespace), name: ObjectName::parse(name).expect("valid") }
}

fn destination_of(client: &str, name: &str) -> ResourceKey {
    ResourceKey::Destination(namespace(client), DestinationKey::parse(name).expect("valid"))
}

fn with(entries: impl IntoIterator<Item = Entry>) -> Snapshot {
    let mut snapshot = Snapshot::new(registry(), TrustBundleSet::default());
    snapshot.apply(None, entries.into_iter().map(Change::Set));
    snapshot
}

fn read<T: DeserializeOwned>(desired: &Desired) -> T {
    let Desired::Present(encoded) = desired else { panic!("nothing there: {desired:?}") };
    serde_json::from_slice(&encoded.to_any().value).expect("valid")
}

fn destination(snapshot: &mut Snapshot, client: &str, name: &str) -> Destination {
    read(&snapshot.subscribe(SubscriberId(0), &destination_of(client, name)))
}

fn catalog() -> [Entry; 2] {
    [
        service("backend", "catalog", "catalog").into(),
        workload("backend", "catalog-0", "catalog", "10.0.0.1").into(),
    ]
}

fn expected(account: &str) -> PeerTls {
    let id = format!("spiffe://cluster.local/ns/backend/sa/{account}");
    PeerTls::Mutual { identity: mesh_api::name::SpiffeId::parse(&id).expect("valid") }
}

#[test]
fn the_expected_identity_is_that_of_the_endpoints_account() {
    let mut snapshot = with(catalog());
    let found = destination(&mut snapshot, "web", &format!("host/{CATALOG}"));
    assert_eq!(found.endpoints[0].tls, [expected("catalog")]);
    assert_eq!(found.endpoints[0].target_ports, [8080]);
}

#[test]
fn endpoints_without_a_proxy_and_ports_in_disable_are_called_in_plaintext() {
    let mut outside = workload("backend", "catalog-1", "catalog", "10.0.0.2");
    outside.meshed = false;
    let mut mode = peer("backend", "mode", Some("catalog"), MtlsMode::Strict);
    mode.port_level = BTreeMap::from([(8080, Some(MtlsMode::Disable)), (9090, None)]);
    let mut snapshot = with(catalog().into_iter().chain([outside.into()]));
    let name = format!("host/{CATALOG}");
    let found = destination(&mut snapshot, "web", &name);
    let tls: Vec<_> = found.endpoints.iter().map(|endpoint| endpoint.tls[0].clone()).collect();
    assert_eq!(tls, [expected("catalog"), PeerTls::Plaintext]);
    let updates = snapshot.apply(None, [Change::Set(mode.into())]);
    assert!(updates[&SubscriberId(0)].contains(&destination_of("web", &name)));
    let found = destination(&mut snapshot, "web", &name);
    assert!(found.endpoints.iter().all(|endpoint| endpoint.tls[0] == PeerTls::Plaintext));
}

#[test]
fn telemetry_reaches_whom_it_selects_with_the_policies() {
    let other = workload("backend", "orders-0", "orders", "10.0.0.2");
    let mut snapshot = with(catalog().into_iter().chain([other.into()]));
    let keys = ["catalog-0", "orders-0"].map(|name| ResourceKey::WorkloadPolicies(key("backend", name)));
    let log = |snapshot: &mut Snapshot, of: usize| {
        let sent: WorkloadPolicies = read(&snapshot.subscribe(SubscriberId(0), &keys[of]));
        sent.telemetry.server.access_log
    };
    assert_eq!(log(&mut snapshot, 0), AccessLogRule::OfMesh);
    assert_eq!(log(&mut snapshot, 1), AccessLogRule::OfMesh);
    let narrow = silence("backend", "quiet", Some("catalog"));
    let updates = snapshot.apply(None, [Change::Set(narrow.clone().into())]);
    assert_eq!(updates[&SubscriberId(0)], BTreeSet::from([keys[0].clone()]));
    assert_eq!(log(&mut snapshot, 0), AccessLogRule::Off);
    let updates = snapshot.apply(None, [Change::Set(silence("istio-system", "mesh", None).into())]);
    assert_eq!(updates[&SubscriberId(0)], BTreeSet::from([keys[1].clone()]));
    assert_eq!(log(&mut snapshot, 1), AccessLogRule::Off);
    let gone = object(Kind::Telemetry, "istio-system", "mesh");
    snapshot.apply(None, [Change::Remove(narrow.meta.object), Change::Remove(gone)]);
    assert_eq!(log(&mut snapshot, 0), AccessLogRule::OfMesh);
}

#[test]
fn what_is_tried_is_sent_beside_what_is_in_force_and_changes_nothing_of_it() {
    let annotated = |mut tried: mesh_api::model::PeerAuthentication, annotations: &[(&str, &str)]| {
        for (name, value) in annotations {
            tried.meta.annotations.insert((*name).to_owned(), (*value).to_owned());
        }
        tried
    };
    let live = peer("backend", "live", None, MtlsMode::Permissive);
    let mut snapshot = with(catalog().into_iter().chain([live.clone().into()]));
    let name = ResourceKey::WorkloadPolicies(key("backend", "catalog-0"));
    let sent =
        |snapshot: &mut Snapshot| -> WorkloadPolicies { read(&snapshot.subscribe(SubscriberId(0), &name)) };
    let before = sent(&mut snapshot);
    assert_eq!(before.candidate, None);
    // It selects other workloads than what it would replace: this one would be without either.
    let edited = annotated(
        peer("backend", "edited", Some("orders"), MtlsMode::Strict),
        &[("mini-mesh.io/dry-run", "true"), ("mini-mesh.io/dry-run-replaces", "live")],
    );
    let updates = snapshot.apply(None, [Change::Set(edited.clone().into())]);
    assert!(updates[&SubscriberId(0)].contains(&name));
    let now = sent(&mut snapshot);
    assert_eq!(WorkloadPolicies { candidate: None, ..now.clone() }, before);
    let candidate = now.candidate.expect("something is tried");
    assert_eq!((candidate.without.len(), candidate.peer.len()), (1, 0));
    let strict = annotated(
        peer("backend", "edited", Some("catalog"), MtlsMode::Strict),
        &[("mini-mesh.io/dry-run", "true")],
    );
    snapshot.apply(None, [Change::Set(strict.into())]);
    let now = sent(&mut snapshot);
    assert_eq!((now.mtls, now.peer.len()), (MtlsMode::Permissive, 1));
    let candidate = now.candidate.clone().expect("something is tried");
    assert_eq!((candidate.mtls, candidate.without.len(), candidate.peer.len()), (MtlsMode::Strict, 0, 1));
    assert_eq!(candidate.applied_to(&now).peer.len(), 2);
    snapshot.apply(None, [Change::Remove(edited.meta.object.clone())]);
    assert_eq!(sent(&mut snapshot), before);
    let deleted = annotated(live, &[("mini-mesh.io/dry-run", "delete")]);
    snapshot.apply(None, [Change::Set(deleted.clone().into())]);
    let now = sent(&mut snapshot);
    assert_eq!((now.mtls, now.peer.len()), (MtlsMode::Permissive, 1));
    let candidate = now.candidate.expect("its deletion is tried");
    assert_eq!((candidate.without, candidate.peer.len()), (vec![deleted.meta.object], 0));
}

#[test]
fn keys_of_what_is_tried_are_sent_with_it() {
    const URL: &str = "https://issuer.example/keys";
    let mut snapshot = with(catalog());
    let name = ResourceKey::WorkloadPolicies(key("backend", "catalog-0"));
    snapshot.subscribe(SubscriberId(0), &name);
    let mut meta = peer("backend", "jwt", None, MtlsMode::Strict).meta;
    meta.object.kind = Kind::RequestAuthentication;
    meta.annotations.insert("mini-mesh.io/dry-run".to_owned(), "true".to_owned());
    let tried = mesh_api::model::RequestAuthentication {
        meta,
        selector: mesh_api::model::Selector::default(),
        targets: Vec::new(),
        jwt_rules: vec![mesh_api::model::JwtRule {
            issuer: "i".to_owned(),
            jwks_uri: URL.to_owned(),
            ..mesh_api::model::JwtRule::default()
        }],
    };
    snapshot.apply(None, [Change::Set(Entry::Request(std::sync::Arc::new(tried)))]);
    let keys = KeySet { jwks: Some("{}".into()), problem: String::new() };
    let updates = snapshot.set_keys(BTreeMap::from([(URL.to_owned(), Some(keys.clone()))]));
    assert!(updates[&SubscriberId(0)].contains(&name));
    let sent: WorkloadPolicies = read(&snapshot.subscribe(SubscriberId(0), &name));
    let candidate = sent.candidate.expect("something is tried");
    assert_eq!((sent.request.len(), sent.key_sets.len()), (0, 0));
    assert_eq!((candidate.request.len(), candidate.key_sets.get(URL)), (1, Some(&keys)));
}

#[test]
fn a_destination_rule_that_asks_for_mutual_tls_is_never_weakened() {
    let mut outside = workload("backend", "catalog-0", "catalog", "10.0.0.1");
    outside.meshed = false;
    let asks = rule("backend", "r", CATALOG, Some(ClientTlsMode::IstioMutual));
    let [service, _] = catalog();
    let mut snapshot = with([service, outside.into(), asks.into()]);
    let found = destination(&mut snapshot, "web", &format!("host/{CATALOG}"));
    assert_eq!(found.endpoints[0].tls, [expected("catalog")]);
}

#[test]
fn rules_of_the_clients_namespace_go_before_the_services_and_the_roots() {
    let rules = ["web", "backend", "istio-system"].map(|ns| Entry::from(rule(ns, "r", CATALOG, None)));
    let mut snapshot = with(catalog().into_iter().chain(rules));
    let mut from = |client: &str| {
        let found = destination(&mut snapshot, client, &format!("host/{CATALOG}"));
        found.destination_rule.expect("a rule").namespace.as_str().to_owned()
    };
    assert_eq!(from("web"), "web");
    assert_eq!(from("other"), "backend");
    let gone = Change::Remove(object(Kind::DestinationRule, "backend", "r"));
    snapshot.apply(None, [gone]);
    let found = destination(&mut snapshot, "other", &format!("host/{CATALOG}"));
    assert_eq!(found.destination_rule.expect("a rule").namespace.as_str(), "istio-system");
}

#[test]
fn a_port_level_entry_drops_the_hosts_tls_and_subsets_are_taken_together() {
    let mut older = rule("backend", "a", CATALOG, Some(ClientTlsMode::Disable));
    older.port_level = vec![(80, TrafficPolicy::default())];
    let mut younger = rule("backend", "b", CATALOG, None);
    let subset = |name: &str| Subset {
        name: name.to_owned(),
        labels: mesh_api::name::Labels::new(),
        policy: TrafficPolicy::default(),
    };
    older.subsets = vec![subset("v1")];
    younger.subsets = vec![subset("v1"), subset("v2")];
    let mut snapshot = with(catalog().into_iter().chain([older.into(), younger.into()]));
    let found = destination(&mut snapshot, "web", &format!("host/{CATALOG}"));
    assert_eq!(found.endpoints[0].tls, [expected("catalog")]);
    assert_eq!(found.subsets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["v1", "v2"]);
}

#[test]
fn the_oldest_virtual_service_of_a_host_routes_it() {
    let a = routes("z-team", "a", CATALOG, "a.backend.svc.cluster.local");
    let b = routes("a-team", "b", CATALOG, "b.backend.svc.cluster.local");
    let mut gateway_only = routes("backend", "0", CATALOG, "c.backend.svc.cluster.local");
    gateway_only.gateways = vec!["ingress".to_owned()];
    let mut snapshot = with(catalog().into_iter().chain([a.into(), b.into(), gateway_only.into()]));
    let found = destination(&mut snapshot, "web", &format!("host/{CATALOG}"));
    assert_eq!(found.routes.expect("routes").object, object(Kind::VirtualService, "z-team", "a"));
}

#[test]
fn a_workloads_own_address_has_the_security_of_each_of_its_ports() {
    let mut mode = peer("backend", "mode", Some("catalog"), MtlsMode::Strict);
    mode.port_level = BTreeMap::from([(7000, Some(MtlsMode::Disable))]);
    let mut snapshot = with(catalog().into_iter().chain([mode.into()]));
    let found = destination(&mut snapshot, "web", "addr/10.0.0.1");
    assert_eq!(found.direct, Some(expected("catalog")));
    assert_eq!(found.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [7000, 8080]);
    assert_eq!(found.endpoints[0].tls, [PeerTls::Plaintext, expected("catalog")]);
}

#[test]
fn a_host_that_nobody_has_is_absent_until_somebody_claims_it() {
    let mut snapshot = with([]);
    let name = destination_of("web", &format!("host/{CATALOG}"));
    assert_eq!(snapshot.subscribe(SubscriberId(7), &name), Desired::Absent);
    let updates = snapshot.apply(None, catalog().map(Change::Set));
    assert_eq!(updates[&SubscriberId(7)], BTreeSet::from([name.clone()]));
    assert!(matches!(snapshot.desired(&name), Some(Desired::Present(_))));
}

#[test]
fn a_policy_reaches_whom_it_selects_and_nobody_else() {
    let bystander = workload("backend", "orders-0", "orders", "10.0.0.9");
    let mut snapshot = with(catalog().into_iter().chain([bystander.into()]));
    for (subscriber, name) in [(1, "catalog-0"), (2, "orders-0")] {
        snapshot.subscribe(SubscriberId(subscriber), &ResourceKey::WorkloadPolicies(key("backend", name)));
    }
    let updates = snapshot.apply(None, [Change::Set(policy("backend", "p", Some("catalog")).into())]);
    assert_eq!(updates.keys().copied().collect::<Vec<_>>(), [SubscriberId(1)]);
    let updates = snapshot.apply(None, [Change::Set(policy("istio-system", "all", None).into())]);
    assert_eq!(updates.len(), 2, "a policy of the root namespace holds for everybody");
    let policies: WorkloadPolicies =
        read(&snapshot.desired(&ResourceKey::WorkloadPolicies(key("backend", "catalog-0"))).expect("kept"));
    assert_eq!(policies.authorization.len(), 2);
}

#[test]
fn a_workload_that_goes_away_takes_nothing_from_its_running_proxy() {
    let mut snapshot = with(catalog());
    let own = ResourceKey::ProxyConfig(key("backend", "catalog-0"));
    let config: ProxyConfig = read(&snapshot.subscribe(SubscriberId(1), &own));
    assert_eq!(config.inbound.iter().map(|port| port.port).collect::<Vec<_>>(), [8080]);
    snapshot.apply(None, [Change::Remove(object(Kind::WorkloadEntry, "backend", "catalog-0"))]);
    assert_eq!(snapshot.desired(&own), Some(Desired::Unknown));
}

#[test]
fn what_nobody_subscribes_to_any_more_is_forgotten() {
    let mut snapshot = with(catalog());
    snapshot.subscribe(SubscriberId(1), &destination_of("web", &format!("host/{CATALOG}")));
    snapshot.subscribe(SubscriberId(1), &ResourceKey::TrustBundle);
    snapshot.watch_workload(SubscriberId(1), &key("web", "w"));
    snapshot.leave(SubscriberId(1));
    assert_eq!(snapshot.sizes(), (0, 0));
    assert!(snapshot.readers.is_empty() && snapshot.watchers.is_empty());
}

/// Every resource that somebody could ask for in the small mesh of the property below.
fn every_key() -> Vec<ResourceKey> {
    let mut keys = vec![ResourceKey::TrustBundle];
    for ns in ["a", "b"] {
        for name in ["w0", "w1"] {
            keys.push(ResourceKey::ProxyConfig(key(ns, name)));
            keys.push(ResourceKey::WorkloadPolicies(key(ns, name)));
        }
        for to in ["a", "b"] {
            for name in ["s0", "s1"] {
                keys.push(destination_of(ns, &format!("host/{name}.{to}.svc.cluster.local")));
                keys.push(destination_of(ns, &format!("host/w0.{name}.{to}.svc.cluster.local")));
            }
        }
        for last in 0..4_u8 {
            keys.push(destination_of(ns, &format!("addr/{}", IpAddr::from([10, 0, 0, last]))));
        }
    }
    keys
}

fn change() -> impl Strategy<Value = Change> {
    let ns = || prop_oneof![Just("a"), Just("b"), Just("istio-system")];
    let app = || prop_oneof![Just("x"), Just("y")];
    let number = || 0..2_u8;
    let mode = || prop_oneof![Just(MtlsMode::Disable), Just(MtlsMode::Permissive), Just(MtlsMode::Strict)];
    let host = || {
        prop_oneof![
            Just("s0.a.svc.cluster.local"),
            Just("s1.b.svc.cluster.local"),
            Just("*.a.svc.cluster.local")
        ]
    };
    let set = prop_oneof![
        (ns(), number(), app(), 0..4_u8).prop_map(|(ns, n, of, last)| {
            Entry::from(workload(ns, &format!("w{n}"), of, &IpAddr::from([10, 0, 0, last]).to_string()))
        }),
        (ns(), number(), app()).prop_map(|(ns, n, of)| service(ns, &format!("s{n}"), of).into()),
        (ns(), number(), app(), 0..4_u8, any::<(bool, bool, bool)>()).prop_map(pods::any_pod),
        (ns(), number(), app(), any::<(bool, bool, bool)>()).prop_map(pods::any_service),
        (ns(), number(), proptest::option::of(app()), mode()).prop_map(|(ns, n, of, mode)| peer(
            ns,
            &format!("p{n}"),
            of,
            mode
        )
        .into()),
        (ns(), number(), proptest::option::of(app())).prop_map(|(ns, n, of)| policy(
            ns,
            &format!("p{n}"),
            of
        )
        .into()),
        (ns(), number(), host())
            .prop_map(|(ns, n, of)| { rule(ns, &format!("r{n}"), of, Some(ClientTlsMode::Disable)).into() }),
        (ns(), number(), host()).prop_map(|(ns, n, of)| routes(ns, &format!("v{n}"), of, "s0.b").into()),
    ];
    let kinds = prop_oneof![
        Just((Kind::WorkloadEntry, "w")),
        Just((Kind::Pod, "w")),
        Just((Kind::Service, "s")),
        Just((Kind::PeerAuthentication, "p")),
        Just((Kind::AuthorizationPolicy, "p")),
        Just((Kind::DestinationRule, "r")),
        Just((Kind::VirtualService, "v")),
    ];
    let remove = (kinds, ns(), number())
        .prop_map(|((kind, letter), ns, n)| Change::Remove(object(kind, ns, &format!("{letter}{n}"))));
    prop_oneof![4 => set.prop_map(Change::Set), 1 => remove]
}

#[test]
fn a_service_is_found_by_its_own_name_and_port_and_nothing_else_is() {
    let idp = service("backend", "idp", "idp");
    let mut foreign = service("web", "other", "idp");
    foreign.meta.object.kind = Kind::ServiceEntry;
    foreign.hosts = vec![host("idp.example")];
    let entries: [Entry; 4] = [
        idp.into(),
        foreign.into(),
        workload("backend", "idp-0", "idp", "10.0.0.9").into(),
        workload("web", "idp-0", "idp", "10.0.0.10").into(),
    ];
    let snapshot = with(entries);
    let found = |name: &str, port| snapshot.service_addresses(name, port);
    assert_eq!(found("idp.backend.svc.cluster.local", 80), ["10.0.0.9:8080".parse().expect("valid")]);
    for (name, port) in [("idp.backend.svc.cluster.local", 81), ("idp.example", 80), ("idp", 80), ("*", 80)] {
        assert!(found(name, port).is_empty(), "{name}:{port}");
    }
}

proptest! {
    #[test]
    fn what_is_kept_is_what_would_be_built_anew_and_every_difference_is_told(
        changes in proptest::collection::vec(change(), 1..25),
        aliases in any::<bool>(),
    ) {
        let mut snapshot = Snapshot::new(registry(), TrustBundleSet::default());
        let keys = every_key();
        for key in &keys {
            snapshot.subscribe(SubscriberId(1), key);
        }
        for (position, change) in changes.into_iter().enumerate() {
            let before: Vec<_> = keys.iter().map(|key| snapshot.desired(key)).collect();
            let domain = if aliases && position == 3 { "other.example" } else { "cluster.local" };
            let settings = MeshSettings { cluster_domain: domain.to_owned(), ..MeshSettings::default() };
            let updates = snapshot.apply(Some(settings), [change]);
            let told = updates.get(&SubscriberId(1)).cloned().unwrap_or_default();
            for (key, before) in keys.iter().zip(before) {
                let (fresh, _) = build::build(snapshot.knowledge(), key);
                prop_assert_eq!(snapshot.desired(key), Some(fresh.clone()), "{:?} is out of date", key);
                prop_assert_eq!(before != Some(fresh), told.contains(key), "{:?}", key);
            }
        }
    }
}
