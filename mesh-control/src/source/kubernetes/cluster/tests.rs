//! What objects of a cluster amount to, and that the order in which they come does not matter.

use std::net::IpAddr;

use mesh_api::model::{Availability, Workload};
use mesh_api::name::Host;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ingest::{self, Objects};
use crate::registry::{Registry, VirtualAddressState, VirtualAddresses};

fn cluster(items: impl IntoIterator<Item = Item>) -> Cluster {
    let mut cluster = Cluster::new(Context::default());
    for item in items {
        cluster.set(item);
    }
    cluster
}

fn registry(cluster: &mut Cluster) -> Registry {
    let pool = VirtualAddresses::new(
        "240.240.0.0/16".parse().expect("valid"),
        "fd77:6d6d::/64".parse().expect("valid"),
        VirtualAddressState::default(),
    );
    let mut registry = Registry::new(MeshSettings::default(), pool);
    let (set, removed) = cluster.take_changed();
    let taken = ingest::advance(&mut Objects::default(), set, removed, None);
    for change in taken.changes {
        registry.apply(change);
    }
    registry
}

fn of<T: serde::de::DeserializeOwned>(object: Value) -> Box<T> {
    Box::new(serde_json::from_value(object).expect("an object"))
}

fn pod(object: Value) -> Item {
    Item::Pod(of(object))
}

fn service(name: &str, spec: &Value) -> Item {
    Item::Service(of(json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z",
                     "annotations": {"a": "b"}, "managedFields": [{"manager": "kubectl"}]},
        "spec": spec, "status": {"loadBalancer": {}},
    })))
}

fn slice(name: &str, of_service: &str, managed_by: &str, endpoints: &Value) -> Item {
    Item::Slice(of(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {
            "kubernetes.io/service-name": of_service, "endpointslice.kubernetes.io/managed-by": managed_by}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "tcp", "port": 5432, "protocol": "TCP"}],
    })))
}

fn running(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z",
                     "labels": {"app": "store", "security.istio.io/tlsMode": "istio"}},
        "spec": {
            "nodeName": "node-a", "serviceAccountName": "store", "restartPolicy": "Always",
            "containers": [
                {"name": "app", "ports": [{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                {"name": "mesh-proxy", "ports": [{"name": "status", "containerPort": 15021}]},
            ],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::1"}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn workload(registry: &Registry, name: &str) -> Workload {
    let found = registry.workloads().find(|workload| workload.meta.object.name.as_str() == name);
    found.expect("it is known").as_ref().clone()
}

fn host(text: &str) -> Host {
    Host::parse(text).expect("valid")
}

#[test]
fn a_pod_is_a_workload_with_everything_that_the_mesh_needs() {
    let node = json!({"name": "node-a", "labels": {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1"}});
    let mut cluster = cluster([pod(running("store-0", "10.0.0.1")), Item::Node(of(node))]);
    let store = workload(&registry(&mut cluster), "store-0");
    let addresses: Vec<String> = store.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1", "fd00::1"]);
    assert_eq!(store.service_account.as_str(), "store");
    assert_eq!(store.ports, BTreeMap::from([("web".to_owned(), 8080)]));
    assert_eq!(store.locality, "eu/eu-1");
    assert_eq!(store.meta.created, 1_767_323_045);
    assert!(store.meshed);
    assert_eq!(store.availability, Availability::Ready);
}

#[test]
fn a_pod_gets_traffic_while_it_is_ready_and_drains_while_it_ends() {
    let state = |ready: &str, is_deleted: bool| {
        let mut object = running("p", "10.0.0.1");
        object["status"]["conditions"][0]["status"] = ready.into();
        if is_deleted {
            object["metadata"]["deletionTimestamp"] = "2026-01-02T03:05:00Z".into();
        }
        workload(&registry(&mut cluster([pod(object)])), "p").availability
    };
    assert_eq!(state("True", false), Availability::Ready);
    assert_eq!(state("False", false), Availability::Unready);
    assert_eq!(state("True", true), Availability::Draining);
    assert_eq!(state("False", true), Availability::Unready);
}

#[test]
fn a_pod_that_has_ended_is_none() {
    let mut ended = running("p", "10.0.0.1");
    ended["status"]["phase"] = "Succeeded".into();
    let mut cluster = cluster([pod(running("p", "10.0.0.1"))]);
    cluster.take_changed();
    cluster.set(pod(ended));
    let (set, removed) = cluster.take_changed();
    assert!(set.is_empty());
    assert_eq!(removed.len(), 1);
    assert_eq!(cluster.count(Kind::Pod), 0);
}

#[test]
fn a_job_is_completed_when_all_but_its_proxy_has_ended_for_good() {
    let completed = |policy: &str, exit: i32| {
        let mut object = running("job", "10.0.0.1");
        object["spec"]["restartPolicy"] = policy.into();
        object["status"]["containerStatuses"] = json!([
            {"name": "app", "state": {"terminated": {"exitCode": exit}}},
            {"name": "mesh-proxy", "state": {"running": {}}},
        ]);
        workload(&registry(&mut cluster([pod(object)])), "job").is_completed
    };
    assert!(completed("Never", 0) && completed("Never", 1) && completed("OnFailure", 0));
    assert!(!completed("OnFailure", 1), "it is started again");
    assert!(!completed("Always", 0), "it is started again");
    assert!(!workload(&registry(&mut cluster([pod(running("p", "10.0.0.1"))])), "p").is_completed);
}

#[test]
fn who_dials_the_address_of_a_node_means_no_pod_on_it() {
    let mut object = running("agent", "192.168.0.7");
    object["spec"]["hostNetwork"] = true.into();
    let registry = registry(&mut cluster([pod(object)]));
    let address: IpAddr = "192.168.0.7".parse().expect("valid");
    assert!(registry.workload_by_address(address).is_none());
    assert!(!workload(&registry, "agent").meshed);
}

#[test]
fn a_newer_pod_owns_an_address_that_was_given_to_it() {
    let mut newer = running("newer", "10.0.0.1");
    newer["metadata"]["creationTimestamp"] = "2026-01-03T00:00:00Z".into();
    let registry = registry(&mut cluster([pod(running("older", "10.0.0.1")), pod(newer)]));
    let owner = registry.workload_by_address("10.0.0.1".parse().expect("valid")).expect("somebody's");
    assert_eq!(owner.meta.object.name.as_str(), "newer");
}

#[test]
fn a_pod_with_hostname_and_subdomain_is_called_by_its_own_name() {
    let mut object = running("web-0", "10.0.0.1");
    object["spec"]["hostname"] = "web-0".into();
    object["spec"]["subdomain"] = "web".into();
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"app": "store"}, "ports": [{"port": 80}]});
    let name = host("web-0.web.shop.svc.cluster.local");
    let with = registry(&mut cluster([pod(object.clone()), service("web", &headless)]));
    assert_eq!(with.workload_by_host(&name).expect("named").0.meta.object.name.as_str(), "web-0");
    let without = registry(&mut cluster([pod(object)]));
    assert!(without.workload_by_host(&name).is_none(), "the name is that of a headless service");
}

#[test]
fn a_service_is_read_by_the_parser_of_manifests_whatever_the_api_server_adds() {
    let spec = json!({
        "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"], "ipFamilies": ["IPv4", "IPv6"],
        "selector": {"app": "store"}, "type": "ClusterIP", "aFieldOfTomorrow": {"x": 1},
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP", "aFieldOfTomorrow": true}],
    });
    let mut cluster = cluster([service("store", &spec), pod(running("store-0", "10.0.0.1"))]);
    assert_eq!(cluster.take_problems(), None);
    let registry = registry(&mut cluster);
    let store = registry.service_by_host(&host("store.shop.svc.cluster.local")).expect("known");
    assert_eq!(store.addresses.len(), 2);
    assert_eq!(store.meta.created, 1_767_323_045);
    assert_eq!(registry.selected_by(store).len(), 1);
}

#[test]
fn an_alias_in_dns_is_left_to_the_clusters_resolver() {
    let mut cluster =
        cluster([service("alias", &json!({"type": "ExternalName", "externalName": "example.org"}))]);
    assert!(registry(&mut cluster).service_by_host(&host("alias.shop.svc.cluster.local")).is_none());
    cluster.set(service("alias", &json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]})));
    assert!(cluster.has_changed());
    cluster.set(service("alias", &json!({"type": "ExternalName", "externalName": "example.org"})));
    assert_eq!(cluster.count(Kind::Service), 0);
}

#[test]
fn a_service_without_selector_has_the_endpoints_of_its_slices() {
    let endpoints = json!([
        {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "store-0", "namespace": "shop"}},
        {"addresses": ["10.0.0.9"], "targetRef": {"kind": "Pod", "name": "store-0", "namespace": "other"}},
        {"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
        {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
    ]);
    let mut cluster = cluster([
        slice("db-1", "db", "somebody", &endpoints),
        service(
            "db",
            &json!({"clusterIP": "10.96.0.8", "ports": [{"name": "tcp", "port": 5432, "targetPort": 1}]}),
        ),
        pod(running("store-0", "10.0.0.1")),
    ]);
    let registry = registry(&mut cluster);
    let db = registry.service_by_host(&host("db.shop.svc.cluster.local")).expect("known");
    let behind = registry.selected_by(db);
    assert_eq!(behind.len(), 1);
    assert_eq!(behind[0].service_account.as_str(), "store");
    assert_eq!(registry.services_of(&behind[0]).len(), 1);
    let listed: Vec<_> =
        db.endpoints.iter().map(|one| (one.addresses[0].to_string(), one.availability)).collect();
    let expected = [
        ("10.0.0.9", Availability::Ready),
        ("192.0.2.1", Availability::Ready),
        ("192.0.2.2", Availability::Unready),
    ];
    assert_eq!(listed, expected.map(|(address, availability)| (address.to_owned(), availability)));
    assert!(db.endpoints.iter().all(|one| !one.meshed && one.ports["tcp"] == 5432));
    cluster.gone(Topic::EndpointSlices, &Key { namespace: "shop".to_owned(), name: "db-1".to_owned() });
    let (set, _) = cluster.take_changed();
    let Payload::Entry(Entry::Service(db)) = &set[0].payload else { panic!("a service") };
    assert!(db.endpoints.is_empty() && db.members.is_empty());
}

#[test]
fn of_the_slices_that_kubernetes_keeps_only_the_zones_are_taken() {
    let endpoints = json!([
        {"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "eu-1"}]}, "targetRef": {"kind": "Pod", "name": "store-0"}},
    ]);
    let mut cluster = cluster([
        service(
            "store",
            &json!({"clusterIP": "10.96.0.7", "selector": {"app": "store"}, "ports": [{"port": 80}]}),
        ),
        slice("store-1", "store", "endpointslice-controller.k8s.io", &endpoints),
    ]);
    let registry = registry(&mut cluster);
    let store = registry.service_by_host(&host("store.shop.svc.cluster.local")).expect("known");
    assert_eq!(
        store.zone_hints,
        BTreeMap::from([("10.0.0.1".parse().expect("valid"), vec!["eu-1".to_owned()])])
    );
    assert!(store.members.is_empty() && store.endpoints.is_empty());
}

#[test]
fn what_says_nothing_new_is_not_handed_over() {
    let mut cluster = cluster([pod(running("p", "10.0.0.1"))]);
    cluster.take_changed();
    let mut noisy = running("p", "10.0.0.1");
    noisy["metadata"]["resourceVersion"] = "99".into();
    noisy["status"]["message"] = "probed again".into();
    cluster.set(pod(noisy));
    assert!(!cluster.has_changed());
}

/// Something that happens to one of a few objects.
#[derive(Debug, Clone)]
enum Happens {
    Pod { name: u8, node: u8, is_ready: bool, label: u8 },
    NoPod { name: u8 },
    Node { name: u8, zone: u8 },
    NoNode { name: u8 },
    Service { name: u8, label: u8 },
    NoService { name: u8 },
    Slice { name: u8, service: u8, address: u8, is_ours: bool },
    NoSlice { name: u8 },
}

impl Happens {
    fn to(&self, cluster: &mut Cluster) {
        let key =
            |prefix: &str, name: &u8| Key { namespace: "shop".to_owned(), name: format!("{prefix}{name}") };
        match self {
            Self::Pod { name, node, is_ready, label } => {
                let mut object = running(&format!("p{name}"), &format!("10.0.0.{name}"));
                object["spec"]["nodeName"] = format!("n{node}").into();
                object["metadata"]["labels"]["app"] = format!("a{label}").into();
                object["status"]["conditions"][0]["status"] = if *is_ready { "True" } else { "False" }.into();
                cluster.set(pod(object));
            }
            Self::NoPod { name } => cluster.gone(Topic::Pods, &key("p", name)),
            Self::Node { name, zone } => {
                let labels = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": format!("z{zone}")});
                cluster.set(Item::Node(of(json!({"name": format!("n{name}"), "labels": labels}))));
            }
            Self::NoNode { name } => {
                cluster.gone(Topic::Nodes, &Key { namespace: String::new(), name: format!("n{name}") });
            }
            Self::Service { name, label } => {
                let selector = if *label == 0 { json!({}) } else { json!({"app": format!("a{label}")}) };
                let spec = json!({"clusterIP": format!("10.96.0.{name}"), "selector": selector, "ports": [{"port": 80}]});
                cluster.set(service(&format!("s{name}"), &spec));
            }
            Self::NoService { name } => cluster.gone(Topic::Services, &key("s", name)),
            Self::Slice { name, service, address, is_ours } => {
                let endpoints = json!([
                    {"addresses": [format!("192.0.2.{address}")], "hints": {"forZones": [{"name": "z"}]}},
                    {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": format!("p{address}")}},
                ]);
                let by = if *is_ours { "endpointslice-controller.k8s.io" } else { "somebody" };
                cluster.set(slice(&format!("e{name}"), &format!("s{service}"), by, &endpoints));
            }
            Self::NoSlice { name } => cluster.gone(Topic::EndpointSlices, &key("e", name)),
        }
    }

    /// Which object it happens to.
    fn of(&self) -> (u8, u8) {
        match self {
            Self::Pod { name, .. } | Self::NoPod { name } => (0, *name),
            Self::Node { name, .. } | Self::NoNode { name } => (1, *name),
            Self::Service { name, .. } | Self::NoService { name } => (2, *name),
            Self::Slice { name, .. } | Self::NoSlice { name } => (3, *name),
        }
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    let few = || 0..3_u8;
    prop_oneof![
        (few(), few(), any::<bool>(), few()).prop_map(|(name, node, is_ready, label)| Happens::Pod {
            name,
            node,
            is_ready,
            label
        }),
        few().prop_map(|name| Happens::NoPod { name }),
        (few(), few()).prop_map(|(name, zone)| Happens::Node { name, zone }),
        few().prop_map(|name| Happens::NoNode { name }),
        (few(), few()).prop_map(|(name, label)| Happens::Service { name, label }),
        few().prop_map(|name| Happens::NoService { name }),
        (few(), few(), few(), any::<bool>()).prop_map(|(name, service, address, is_ours)| Happens::Slice {
            name,
            service,
            address,
            is_ours
        }),
        few().prop_map(|name| Happens::NoSlice { name }),
    ]
}

proptest! {
    /// Whatever happens, what is handed over adds up to what a cluster amounts to that is listed at the end.
    #[test]
    fn what_is_handed_over_step_by_step_is_what_one_list_at_the_end_gives(
        history in proptest::collection::vec((happens(), any::<bool>()), 0..40),
        seed in any::<u64>(),
    ) {
        let mut followed = Cluster::new(Context::default());
        let mut mirror: BTreeMap<ObjectRef, InForce> = BTreeMap::new();
        let mut last: BTreeMap<(u8, u8), Happens> = BTreeMap::new();
        let take = |cluster: &mut Cluster, mirror: &mut BTreeMap<ObjectRef, InForce>| {
            let (set, removed) = cluster.take_changed();
            for object in removed {
                mirror.remove(&object);
            }
            for document in set {
                mirror.insert(document.object.clone(), document);
            }
        };
        for (what, is_taken) in &history {
            what.to(&mut followed);
            last.insert(what.of(), what.clone());
            if *is_taken {
                take(&mut followed, &mut mirror);
            }
        }
        take(&mut followed, &mut mirror);
        let mut final_states: Vec<Happens> = last.into_values().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut final_states);
        let mut listed = Cluster::new(Context::default());
        for state in &final_states {
            state.to(&mut listed);
        }
        let mut expected = BTreeMap::new();
        take(&mut listed, &mut expected);
        prop_assert_eq!(&mirror, &expected);
        prop_assert_eq!(followed.counts.values().sum::<usize>(), expected.len());
    }
}
