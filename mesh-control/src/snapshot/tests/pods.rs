//! What clients are sent of the pods of a cluster.

use std::collections::BTreeSet;

use mesh_api::model::{Availability, Service, Workload};

use super::*;

const CATALOG_ADDRESS: &str = "10.0.0.1";

pub(super) fn pod(in_namespace: &str, name: &str, of: &str, address: &str) -> Workload {
    let mut pod = workload(in_namespace, name, of, address);
    pod.meta.object.kind = Kind::Pod;
    pod
}

pub(super) fn any_pod(
    (ns, n, of, last, (is_ready, is_ending, shares_addresses)): (&str, u8, &str, u8, (bool, bool, bool)),
) -> Entry {
    let mut pod = pod(ns, &format!("w{n}"), of, &IpAddr::from([10, 0, 0, last]).to_string());
    pod.availability = match (is_ready, is_ending) {
        (true, false) => Availability::Ready,
        (true, true) => Availability::Draining,
        (false, _) => Availability::Unready,
    };
    pod.shares_addresses = shares_addresses;
    pod.is_completed = is_ending;
    pod.hosts = vec![host(&format!("w{n}.s0.{ns}.svc.cluster.local"))];
    pod.into()
}

pub(super) fn any_service(
    (ns, n, of, (headless, publish_not_ready, is_listed)): (&str, u8, &str, (bool, bool, bool)),
) -> Entry {
    let mut service = service(ns, &format!("s{n}"), of);
    service.headless = headless;
    service.publish_not_ready = publish_not_ready;
    if is_listed {
        service.selector = None;
        service.members = members(["w0"]);
    }
    service.into()
}

fn members<const N: usize>(names: [&str; N]) -> BTreeSet<ObjectName> {
    names.map(|name| ObjectName::parse(name).expect("valid")).into_iter().collect()
}

fn endpoints(service: Service, pods: impl IntoIterator<Item = Workload>) -> Vec<(String, bool)> {
    let mut snapshot = with([service.into()].into_iter().chain(pods.into_iter().map(Entry::from)));
    let found = destination(&mut snapshot, "web", &format!("host/{CATALOG}"));
    found.endpoints.into_iter().map(|endpoint| (endpoint.workload, endpoint.draining)).collect()
}

fn available(name: &str, availability: Availability) -> Workload {
    Workload { availability, ..pod("backend", name, "catalog", CATALOG_ADDRESS) }
}

#[test]
fn clients_are_sent_to_pods_that_are_ready_and_told_of_those_that_drain() {
    let pods = || {
        [
            available("drains", Availability::Draining),
            available("ready", Availability::Ready),
            available("unready", Availability::Unready),
        ]
    };
    let expected = [("drains".to_owned(), true), ("ready".to_owned(), false)];
    assert_eq!(endpoints(service("backend", "catalog", "catalog"), pods()), expected);
    let mut publishing = service("backend", "catalog", "catalog");
    publishing.publish_not_ready = true;
    assert_eq!(endpoints(publishing, pods()).len(), 3);
}

#[test]
fn the_control_plane_itself_calls_only_pods_that_take_new_connections() {
    let snapshot = with([
        service("backend", "catalog", "catalog").into(),
        available("drains", Availability::Draining).into(),
        Workload { addresses: vec![[10, 0, 0, 2].into()], ..available("ready", Availability::Ready) }.into(),
        available("unready", Availability::Unready).into(),
    ]);
    assert_eq!(snapshot.service_addresses(CATALOG, 80), ["10.0.0.2:8080".parse().expect("valid")]);
}

#[test]
fn a_ports_name_is_looked_up_in_a_pod_only_where_the_target_is_a_name() {
    let mut named = pod("backend", "p", "catalog", CATALOG_ADDRESS);
    named.ports = BTreeMap::from([("http".to_owned(), 9999), ("web".to_owned(), 7777)]);
    let mut by_name = service("backend", "catalog", "catalog");
    let target = |service: Service| {
        let mut snapshot = with([service.into(), named.clone().into()]);
        destination(&mut snapshot, "web", &format!("host/{CATALOG}")).endpoints[0].target_ports.clone()
    };
    assert_eq!(target(by_name.clone()), [8080], "a port of a service that is also called http");
    by_name.ports[0].target_port_name = Some("web".to_owned());
    assert_eq!(target(by_name), [7777]);
}

#[test]
fn a_pods_own_name_leads_to_it_while_its_headless_service_has_it() {
    let mut named = pod("backend", "catalog-0", "catalog", CATALOG_ADDRESS);
    let own = format!("host/catalog-0.{CATALOG}");
    named.hosts = vec![host(&format!("catalog-0.{CATALOG}"))];
    let mut headless = service("backend", "catalog", "catalog");
    headless.headless = true;
    let mut snapshot = with([named.clone().into(), headless.clone().into()]);
    let found = destination(&mut snapshot, "web", &own);
    assert_eq!(found.addresses, [CATALOG_ADDRESS.parse::<IpAddr>().expect("valid")]);
    assert_eq!(found.endpoints[0].tls, [expected("catalog")]);
    let updates = snapshot.apply(None, [Change::Set(available("catalog-0", Availability::Unready).into())]);
    assert!(updates[&SubscriberId(0)].contains(&destination_of("web", &own)));
    assert_eq!(snapshot.desired(&destination_of("web", &own)), Some(Desired::Absent));
    named.availability = Availability::Unready;
    headless.publish_not_ready = true;
    let mut snapshot = with([named.into(), headless.into()]);
    assert_eq!(destination(&mut snapshot, "web", &own).endpoints.len(), 1);
}

#[test]
fn nobody_takes_over_a_pod_by_stating_an_entry_of_its_name_or_address() {
    let mut claim = workload("backend", "catalog-0", "attacker", CATALOG_ADDRESS);
    claim.meta.created = -1;
    let mut snapshot = with([pod("backend", "catalog-0", "catalog", CATALOG_ADDRESS).into(), claim.into()]);
    let config: ProxyConfig =
        read(&snapshot.subscribe(SubscriberId(0), &ResourceKey::ProxyConfig(key("backend", "catalog-0"))));
    assert_eq!(config.service_account.as_str(), "catalog");
    let found = destination(&mut snapshot, "web", &format!("addr/{CATALOG_ADDRESS}"));
    assert_eq!(found.object.kind, Kind::Pod);
    snapshot.apply(None, [Change::Remove(object(Kind::WorkloadEntry, "backend", "catalog-0"))]);
    assert!(snapshot.registry().workload(&key("backend", "catalog-0")).is_some());
}

#[test]
fn a_proxy_is_told_where_it_is_and_when_its_work_is_done() {
    let mut done = pod("backend", "job", "job", CATALOG_ADDRESS);
    done.locality = "eu/eu-1".to_owned();
    let mut snapshot = with([done.clone().into()]);
    let resource = ResourceKey::ProxyConfig(key("backend", "job"));
    let config: ProxyConfig = read(&snapshot.subscribe(SubscriberId(0), &resource));
    assert_eq!((config.locality.as_str(), config.completed), ("eu/eu-1", false));
    done.is_completed = true;
    let updates = snapshot.apply(None, [Change::Set(done.into())]);
    assert!(updates[&SubscriberId(0)].contains(&resource));
    let config: ProxyConfig = read(&snapshot.desired(&resource).expect("kept"));
    assert!(config.completed);
}

#[test]
fn endpoints_say_for_whose_zones_they_are_meant() {
    let mut hinted = service("backend", "catalog", "catalog");
    hinted.zone_hints = BTreeMap::from([([10, 0, 0, 1].into(), vec!["eu-1".to_owned()])]);
    let mut snapshot = with([hinted.into(), pod("backend", "p", "catalog", CATALOG_ADDRESS).into()]);
    let found = destination(&mut snapshot, "web", &format!("host/{CATALOG}"));
    assert_eq!(found.endpoints[0].zones, ["eu-1"]);
}
