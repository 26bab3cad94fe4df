use super::*;
use crate::fixture::{host, namespace, object, registry, service, workload};

fn set(registry: &mut Registry, entry: impl Into<Entry>) -> HashSet<Effect> {
    registry.apply(Change::Set(entry.into()))
}

#[test]
fn a_node_id_is_divided_at_its_last_dot() {
    let key = WorkloadKey::from_node_id("api.v2-0.web").expect("valid");
    assert_eq!((key.name.as_str(), key.namespace.as_str()), ("api.v2-0", "web"));
    for bad in ["", "web", ".web", "a.", "A.web", "a.we_b"] {
        assert_eq!(WorkloadKey::from_node_id(bad), None, "{bad:?}");
    }
}

#[test]
fn a_core_service_goes_before_a_service_entry_that_claims_its_host() {
    let mut registry = registry();
    let mut claim = service("attacker", "a-claim", "x");
    claim.meta.object.kind = Kind::ServiceEntry;
    claim.meta.created = -1;
    claim.hosts = vec![host("catalog.backend.svc.cluster.local")];
    set(&mut registry, claim);
    set(&mut registry, service("backend", "catalog", "catalog"));
    let owner = registry.service_by_host(&host("catalog.backend.svc.cluster.local")).expect("owned");
    assert_eq!(owner.meta.object, object(Kind::Service, "backend", "catalog"));
    assert_eq!(registry.contested_hosts().count(), 1);
    registry.apply(Change::Remove(object(Kind::Service, "backend", "catalog")));
    let owner = registry.service_by_host(&host("catalog.backend.svc.cluster.local")).expect("owned");
    assert_eq!(owner.meta.object.kind, Kind::ServiceEntry);
}

#[test]
fn services_without_an_address_are_given_one_and_headless_ones_are_not() {
    let mut registry = registry();
    set(&mut registry, service("backend", "catalog", "catalog"));
    let mut headless = service("backend", "store", "store");
    headless.headless = true;
    set(&mut registry, headless);
    let addresses: BTreeMap<_, _> =
        registry.services().map(|s| (s.meta.object.name.as_str().to_owned(), s.addresses.clone())).collect();
    assert_eq!(addresses["store"], Vec::<IpAddr>::new());
    let [v4, v6] = addresses["catalog"][..] else { panic!("{:?}", addresses["catalog"]) };
    assert!(v4.is_ipv4() && v6.is_ipv6());
    assert!(registry.service_by_address(v4).is_some() && registry.service_by_address(v6).is_some());
}

#[test]
fn what_is_removed_leaves_no_trace() {
    let mut registry = registry();
    set(&mut registry, service("backend", "catalog", "catalog"));
    set(&mut registry, workload("backend", "catalog-0", "catalog", "10.0.0.1"));
    registry.apply(Change::Remove(object(Kind::Service, "backend", "catalog")));
    registry.apply(Change::Remove(object(Kind::WorkloadEntry, "backend", "catalog-0")));
    assert_eq!((registry.services().count(), registry.workloads().count()), (0, 0));
    assert!(registry.hosts.is_empty() && registry.service_addresses.is_empty());
    assert!(registry.workload_addresses.is_empty());
}

#[test]
fn a_workload_touches_the_services_that_select_it_before_and_after() {
    let mut registry = registry();
    set(&mut registry, service("backend", "old", "old"));
    set(&mut registry, service("backend", "new", "new"));
    set(&mut registry, workload("backend", "w", "old", "10.0.0.1"));
    let effects = set(&mut registry, workload("backend", "w", "new", "10.0.0.2"));
    for name in ["old", "new"] {
        assert!(effects.contains(&Effect::Service(object(Kind::Service, "backend", name))), "{name}");
    }
    for address in ["10.0.0.1", "10.0.0.2"] {
        assert!(effects.contains(&Effect::Address(address.parse().expect("valid"))), "{address}");
    }
}

#[test]
fn the_closest_wildcard_covers_a_host() {
    let mut registry = registry();
    for (name, wildcard) in [("wide", "*.com"), ("close", "*.example.com")] {
        let mut entry = service("web", name, "x");
        entry.meta.object.kind = Kind::ServiceEntry;
        entry.hosts = vec![host(wildcard)];
        set(&mut registry, entry);
    }
    let of = |name: &str| {
        registry.service_by_wildcard(&host(name)).map(|service| service.meta.object.name.as_str().to_owned())
    };
    assert_eq!(of("api.example.com").as_deref(), Some("close"));
    assert_eq!(of("api.other.com").as_deref(), Some("wide"));
    assert_eq!(of("example.org"), None);
}

#[test]
fn an_empty_selector_of_a_service_selects_nobody() {
    let mut registry = registry();
    set(&mut registry, workload("backend", "w", "a", "10.0.0.1"));
    let mut open = service("backend", "open", "a");
    open.selector = Some(mesh_api::model::Selector::default());
    assert!(registry.selected_by(&open).is_empty());
    assert_eq!(registry.rules_in(&namespace("backend"), &host("a.b")), Vec::new());
}
