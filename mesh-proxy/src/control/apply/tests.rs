use super::*;
use crate::args::{Args, Command};
use clap::Parser as _;
use mesh_api::model::destination::{HttpMatch, HttpRoute, StringMatch, WeightedTarget};
use mesh_api::model::{Kind, MeshSettings, ObjectRef, RouteSet};
use mesh_api::name::{Host, Labels, Namespace, ObjectName, ServiceAccount};
use mesh_api::wire::{SELF, encode};
use proptest::prelude::*;

pub(in crate::control) fn settings() -> Settings {
    let args = [
        "mesh-proxy",
        "run",
        "--node-id",
        "frontend-0.web",
        "--control",
        "10.0.0.1:15012",
        "--control-root-cert",
        "r",
        "--join-token-file",
        "t",
        "--admin-socket",
        "s",
    ];
    let Command::Run(args) = Args::try_parse_from(args).expect("arguments").command else {
        panic!("another command")
    };
    Settings::new(*args).expect("valid")
}

fn model() -> Model {
    Model::new(&settings())
}

fn resource<T: serde::Serialize>(kind: TypeUrl, name: &str, version: &str, value: &T) -> Change {
    Change::Set(Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(encode(kind, value)),
    })
}

fn config() -> ProxyConfig {
    ProxyConfig {
        mesh: MeshSettings::default(),
        workload: "frontend-0".to_owned(),
        namespace: Namespace::parse("web").expect("valid"),
        service_account: ServiceAccount::parse("frontend").expect("valid"),
        labels: Labels::new(),
        addresses: Vec::new(),
        inbound: Vec::new(),
        locality: String::new(),
        completed: false,
    }
}

fn host(name: &str) -> Host {
    Host::parse(&format!("{name}.b.svc.cluster.local")).expect("valid")
}

fn key(name: &str) -> DestinationKey {
    DestinationKey::Host(host(name))
}

/// A destination whose routes name other hosts.
fn destination(name: &str, targets: &[&str]) -> Destination {
    let object = |kind| ObjectRef {
        kind,
        namespace: Namespace::parse("b").expect("valid"),
        name: ObjectName::parse(name).expect("valid"),
    };
    let targets: Vec<_> = targets
        .iter()
        .map(|to| WeightedTarget { host: host(to), port: None, subset: None, weight: 1 })
        .collect();
    let routes = (!targets.is_empty()).then(|| RouteSet {
        object: object(Kind::VirtualService),
        http: vec![HttpRoute { targets, ..HttpRoute::default() }],
    });
    Destination {
        host: host(name).as_str().to_owned(),
        object: object(Kind::Service),
        addresses: Vec::new(),
        headless: false,
        ports: Vec::new(),
        endpoints: Vec::new(),
        resolution: mesh_api::model::service::Resolution::Static,
        policy: mesh_api::model::traffic::TrafficPolicy::default(),
        port_level: Vec::new(),
        subsets: Vec::new(),
        destination_rule: None,
        routes,
        direct: None,
    }
}

fn set(name: &str, version: &str, targets: &[&str]) -> Change {
    resource(TypeUrl::Destination, &key(name).to_string(), version, &destination(name, targets))
}

fn configured() -> Model {
    let mut model = model();
    model
        .apply(TypeUrl::ProxyConfig, &[resource(TypeUrl::ProxyConfig, SELF, "1", &config())])
        .expect("taken");
    model
}

fn version_of(model: &Model, name: &str) -> Option<String> {
    match model.known(&key(name))? {
        Known::Present(state) => Some(state.version.to_string()),
        Known::Absent => Some("absent".to_owned()),
    }
}

#[test]
fn a_route_waits_for_the_hosts_that_it_names_and_the_old_one_stays_meanwhile() {
    let mut model = configured();
    model.apply(TypeUrl::Destination, &[set("a", "1", &[])]).expect("taken");
    assert_eq!(version_of(&model, "a").as_deref(), Some("1"));
    let applied = model.apply(TypeUrl::Destination, &[set("a", "2", &["c"])]).expect("taken");
    assert!(!applied.is_changed);
    assert_eq!(version_of(&model, "a").as_deref(), Some("1"), "the new routes are in force too early");
    assert!(model.route_hosts().contains(&key("c")), "nobody would ask for it");
    model.apply(TypeUrl::Destination, &[set("c", "1", &[])]).expect("taken");
    assert_eq!(version_of(&model, "a").as_deref(), Some("2"));
}

#[test]
fn a_host_that_does_not_exist_is_an_answer_too_and_routes_may_name_each_other() {
    let mut model = configured();
    model.apply(TypeUrl::Destination, &[set("a", "1", &["c"])]).expect("taken");
    assert_eq!(version_of(&model, "a"), None);
    model.apply(TypeUrl::Destination, &[Change::Remove(key("c").to_string())]).expect("taken");
    assert_eq!(version_of(&model, "a").as_deref(), Some("1"));
    model.apply(TypeUrl::Destination, &[set("x", "1", &["y"])]).expect("taken");
    model.apply(TypeUrl::Destination, &[set("y", "1", &["x"])]).expect("taken");
    assert_eq!((version_of(&model, "x"), version_of(&model, "y")), (Some("1".into()), Some("1".into())));
}

#[test]
fn one_bad_resource_refuses_its_response_and_changes_nothing() {
    let mut model = configured();
    let mut bad = destination("c", &["a"]);
    let uri = Some(StringMatch::Regex("(".to_owned()));
    bad.routes.as_mut().expect("routes").http[0].matches = vec![HttpMatch { uri, ..HttpMatch::default() }];
    let bad = resource(TypeUrl::Destination, &key("c").to_string(), "1", &bad);
    let refused = model.apply(TypeUrl::Destination, &[set("a", "1", &[]), bad]);
    assert!(matches!(refused, Err(ApplyError::Routes { .. })), "{refused:?}");
    assert!(model.state().destinations.is_empty());
    let strange = Change::Set(Resource {
        name: SELF.to_owned(),
        version: "1".to_owned(),
        resource: Some(mesh_api_any(br#"{"authorization":[],"invented":1}"#)),
    });
    assert!(matches!(model.apply(TypeUrl::WorkloadPolicies, &[strange]), Err(ApplyError::Decode(_))));
    let mut other = config();
    other.workload = "catalog-0".to_owned();
    let other = model.apply(TypeUrl::ProxyConfig, &[resource(TypeUrl::ProxyConfig, SELF, "2", &other)]);
    assert!(matches!(other, Err(ApplyError::OtherWorkload { .. })));
    let nobody = TrustBundleSet::default();
    let nobody = model.apply(TypeUrl::TrustBundle, &[resource(TypeUrl::TrustBundle, SELF, "1", &nobody)]);
    assert!(matches!(nobody, Err(ApplyError::NoRoot { .. })));
    assert_eq!(model.missing(), ["trust bundle", "policies"]);
}

fn mesh_api_any(value: &[u8]) -> prost_types::Any {
    prost_types::Any { type_url: TypeUrl::WorkloadPolicies.as_str().to_owned(), value: value.to_vec() }
}

#[test]
fn the_last_use_of_a_destination_outlives_its_version() {
    let mut model = configured();
    model.apply(TypeUrl::Destination, &[set("a", "1", &[])]).expect("taken");
    let Some(Known::Present(first)) = model.known(&key("a")) else { panic!("not there") };
    first.touch(77);
    model.apply(TypeUrl::Destination, &[set("a", "2", &[])]).expect("taken");
    let Some(Known::Present(second)) = model.known(&key("a")) else { panic!("not there") };
    assert_eq!(second.last_used(), 77);
}

proptest! {
    /// Whatever comes in whatever order: nothing in force names a host that is not known.
    #[test]
    fn no_route_in_force_names_a_host_that_was_not_answered(
        steps in proptest::collection::vec((0..4_usize, 0..3_u8, proptest::collection::vec(0..4_usize, 0..3)), 1..30),
    ) {
        const NAMES: [&str; 4] = ["a", "c", "d", "e"];
        let mut model = configured();
        for (index, (name, action, targets)) in steps.into_iter().enumerate() {
            let version = index.to_string();
            let targets: Vec<_> = targets.into_iter().map(|target| NAMES[target]).collect();
            let change = match action {
                0 => Change::Remove(key(NAMES[name]).to_string()),
                _ => set(NAMES[name], &version, &targets),
            };
            model.apply(TypeUrl::Destination, &[change]).expect("valid");
            let state = model.state();
            for known in state.destinations.values() {
                if let Known::Present(present) = known {
                    for host in hosts(present) {
                        prop_assert!(state.destinations.contains_key(&host), "{host} is not known");
                    }
                }
            }
        }
    }
}
