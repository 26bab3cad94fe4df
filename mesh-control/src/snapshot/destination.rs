//! Builds a destination: what a client needs to reach one host or address.
//!
//! Whether a connection is mutual TLS is decided here, per endpoint and port, from what the *server* does:
//! whether a proxy serves it, its effective mode on that port, and what a DestinationRule says. The expected
//! identity is that of the endpoint's service account and travels with it (DESIGN 11.2).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::model::service::{Resolution, ServicePort};
use mesh_api::model::traffic::{ClientTlsMode, Subset, TrafficPolicy};
use mesh_api::model::{
    Availability, Destination, DestinationRule, Endpoint, Kind, MtlsMode, ObjectRef, PeerTls, Protocol,
    RouteSet, Service, Workload,
};
use mesh_api::name::{Host, Namespace, SpiffeId};

use crate::registry::{Effect, Modes, Registry, WorkloadKey};

/// The facts that a builder read.
#[derive(Debug)]
pub(super) struct Facts<'a>(&'a mut HashSet<Effect>);

impl<'a> Facts<'a> {
    pub(super) fn new(facts: &'a mut HashSet<Effect>) -> Self {
        facts.insert(Effect::Settings);
        Self(facts)
    }

    fn read(&mut self, effect: Effect) {
        self.0.insert(effect);
    }
}

/// The destination behind a host.
pub(super) fn by_host(
    registry: &Registry,
    client: &Namespace,
    host: &Host,
    facts: &mut Facts<'_>,
) -> Option<Destination> {
    facts.read(Effect::Host(host.clone()));
    if let Some(service) = registry.service_by_host(host) {
        return Some(of_service(registry, client, host, service, facts));
    }
    if let Some(parent) = registry.parent_of(host) {
        facts.read(Effect::Host(parent));
    }
    if let Some((workload, service)) = registry.workload_by_host(host) {
        facts.read(Effect::Service(service.meta.object.clone()));
        return is_published(service, workload).then(|| {
            let addresses = workload.addresses.clone();
            of_workload(registry, (host.as_str(), addresses), workload, facts)
        })?;
    }
    facts.read(Effect::WildcardHosts);
    let service = registry.service_by_wildcard(host)?;
    Some(of_service(registry, client, host, service, facts))
}

/// The destination behind an address: a service's virtual address, or a workload's own.
pub(super) fn by_address(
    registry: &Registry,
    client: &Namespace,
    address: IpAddr,
    facts: &mut Facts<'_>,
) -> Option<Destination> {
    facts.read(Effect::Address(address));
    if let Some(service) = registry.service_by_address(address) {
        let host = service.hosts.first()?;
        return Some(of_service(registry, client, host, service, facts));
    }
    let workload = registry.workload_by_address(address)?;
    of_workload(registry, (&address.to_string(), vec![address]), workload, facts)
}

fn of_service(
    registry: &Registry,
    client: &Namespace,
    host: &Host,
    service: &Arc<Service>,
    facts: &mut Facts<'_>,
) -> Destination {
    facts.read(Effect::Service(service.meta.object.clone()));
    let rules = rules_for(registry, client, service, host, facts);
    let traffic = Traffic::merge(&rules);
    let endpoints = match service.resolution {
        // The client's own choice of address stands; what the registry lists does not matter.
        Resolution::None => Vec::new(),
        Resolution::Static | Resolution::Dns => endpoints_of(registry, service, &traffic, facts),
    };
    Destination {
        host: host.as_str().to_owned(),
        object: service.meta.object.clone(),
        addresses: service.addresses.clone(),
        headless: service.headless,
        ports: service.ports.clone(),
        endpoints,
        resolution: service.resolution,
        policy: traffic.policy,
        port_level: traffic.port_level,
        subsets: traffic.subsets,
        destination_rule: traffic.object,
        routes: routes_for(registry, host, facts),
        direct: None,
    }
}

/// A workload that is called by its own address: the same security as by its services' names, on the ports
/// that are known and on all others.
fn of_workload(
    registry: &Registry,
    (name, addresses): (&str, Vec<IpAddr>),
    workload: &Arc<Workload>,
    facts: &mut Facts<'_>,
) -> Option<Destination> {
    let key = WorkloadKey::of(workload);
    facts.read(Effect::Workload(key.clone()));
    facts.read(Effect::ServicesOf(key.clone()));
    facts.read(Effect::Modes(key));
    let modes = registry.modes_of(workload);
    let mut ports: BTreeMap<u16, ServicePort> = BTreeMap::new();
    for service in registry.services_of(workload) {
        for port in &service.ports {
            let target = target_port(port, workload);
            ports.entry(target).or_insert_with(|| direct_port(target, &port.name, port.protocol));
        }
    }
    // A port with a mode of its own is listed even if no service declares it: `direct` has one mode only.
    for target in modes.ports.keys() {
        ports.entry(*target).or_insert_with(|| direct_port(*target, "", Protocol::Auto));
    }
    let identity = identity_of(registry, workload);
    let security = |port: u16| secured(workload, &modes, port, None, &identity);
    let direct = match workload.meshed && modes.default != MtlsMode::Disable {
        true => PeerTls::Mutual { identity: identity.clone() },
        false => PeerTls::Plaintext,
    };
    let endpoint = Endpoint {
        address: addresses.first().copied()?,
        workload: workload.meta.object.name.as_str().to_owned(),
        namespace: workload.meta.object.namespace.clone(),
        labels: workload.labels.clone(),
        target_ports: ports.keys().copied().collect(),
        tls: ports.keys().map(|port| security(*port)).collect(),
        // Weight spreads load among neighbours; whoever dials this address means this workload.
        weight: 1,
        draining: false,
        zones: Vec::new(),
    };
    Some(Destination {
        host: name.to_owned(),
        object: workload.meta.object.clone(),
        addresses,
        headless: false,
        ports: ports.into_values().collect(),
        endpoints: vec![endpoint],
        resolution: Resolution::Static,
        policy: TrafficPolicy::default(),
        port_level: Vec::new(),
        subsets: Vec::new(),
        destination_rule: None,
        routes: None,
        direct: Some(direct),
    })
}

fn direct_port(port: u16, name: &str, protocol: Protocol) -> ServicePort {
    ServicePort { name: name.to_owned(), port, target_port: port, target_port_name: None, protocol }
}

fn endpoints_of(
    registry: &Registry,
    service: &Service,
    traffic: &Traffic,
    facts: &mut Facts<'_>,
) -> Vec<Endpoint> {
    let selected = registry.selected_by(service);
    let listed = service.endpoints.iter().cloned().map(Arc::new);
    let mut endpoints = Vec::new();
    for workload in selected.into_iter().chain(listed) {
        facts.read(Effect::Modes(WorkloadKey::of(&workload)));
        if !is_published(service, &workload) {
            continue;
        }
        let Some(address) = workload.addresses.first().copied() else { continue };
        let modes = registry.modes_of(&workload);
        let identity = expected_identity(service, identity_of(registry, &workload));
        let target_ports: Vec<u16> = service.ports.iter().map(|port| target_port(port, &workload)).collect();
        let tls = service
            .ports
            .iter()
            .zip(&target_ports)
            .map(|(port, target)| match service.external {
                true => PeerTls::Plaintext,
                false => secured(&workload, &modes, *target, traffic.tls_for(port.port), &identity),
            })
            .collect();
        endpoints.push(Endpoint {
            address,
            workload: workload.meta.object.name.as_str().to_owned(),
            namespace: workload.meta.object.namespace.clone(),
            labels: workload.labels.clone(),
            target_ports,
            tls,
            weight: workload.weight,
            draining: workload.availability == Availability::Draining,
            zones: service.zone_hints.get(&address).cloned().unwrap_or_default(),
        });
    }
    endpoints.sort_by(|a, b| (&a.workload, a.address).cmp(&(&b.workload, b.address)));
    endpoints
}

/// Whether clients of a service are told of a workload behind it. One that drains is among them, so that
/// connections to it may finish.
pub(super) fn is_published(service: &Service, workload: &Workload) -> bool {
    match workload.availability {
        Availability::Ready | Availability::Draining => true,
        Availability::Unready => service.publish_not_ready,
    }
}

/// The target port of a service port at one workload: the workload's own mapping of the port's name goes
/// before the service's number.
pub(super) fn target_port(port: &ServicePort, workload: &Workload) -> u16 {
    let name = match workload.meta.object.kind == Kind::Pod {
        // A pod's ports have names of their own, which a service refers to by `targetPort` alone.
        true => port.target_port_name.as_deref(),
        false => Some(port.target_port_name.as_deref().unwrap_or(&port.name)),
    };
    name.and_then(|name| workload.ports.get(name)).copied().unwrap_or(port.target_port)
}

fn identity_of(registry: &Registry, workload: &Workload) -> SpiffeId {
    let namespace = &workload.meta.object.namespace;
    SpiffeId::for_workload(&registry.settings().trust_domain, namespace, &workload.service_account)
}

/// The identity to expect of an endpoint. A service that lists names accepts only those: the endpoint's own
/// if it is among them, else the first, which the endpoint will then fail to prove.
fn expected_identity(service: &Service, own: SpiffeId) -> SpiffeId {
    let mut accepted = service.subject_alt_names.iter().filter_map(|name| SpiffeId::parse(name).ok());
    if service.subject_alt_names.iter().any(|name| name == own.as_str()) {
        return own;
    }
    accepted.next().unwrap_or(own)
}

/// How to connect to one target port of a workload.
fn secured(
    workload: &Workload,
    modes: &Modes,
    target_port: u16,
    client: Option<ClientTlsMode>,
    identity: &SpiffeId,
) -> PeerTls {
    let mutual = || PeerTls::Mutual { identity: identity.clone() };
    match client {
        Some(ClientTlsMode::Disable) => PeerTls::Plaintext,
        // Asked for in so many words: never weakened to plaintext because the endpoint has no proxy.
        Some(ClientTlsMode::IstioMutual) => mutual(),
        None if !workload.meshed => PeerTls::Plaintext,
        None => match modes.ports.get(&target_port).copied().unwrap_or(modes.default) {
            MtlsMode::Disable => PeerTls::Plaintext,
            MtlsMode::Permissive | MtlsMode::Strict => mutual(),
        },
    }
}

/// DestinationRules in force for a client: those of the first namespace that has any, in the order client,
/// service, root (SEMANTICS 11).
fn rules_for(
    registry: &Registry,
    client: &Namespace,
    service: &Service,
    host: &Host,
    facts: &mut Facts<'_>,
) -> Vec<Arc<DestinationRule>> {
    let own = &service.meta.object.namespace;
    for namespace in [client, own, &registry.settings().root_namespace] {
        facts.read(Effect::Rules(namespace.clone(), host.clone()));
        facts.read(Effect::WildcardRules(namespace.clone()));
        let rules = registry.rules_in(namespace, host);
        if !rules.is_empty() {
            return rules;
        }
    }
    Vec::new()
}

/// What the DestinationRules for one host amount to.
#[derive(Debug, Default)]
struct Traffic {
    object: Option<ObjectRef>,
    policy: TrafficPolicy,
    port_level: Vec<(u16, TrafficPolicy)>,
    subsets: Vec<Subset>,
}

impl Traffic {
    /// The oldest rule's policy stays; subsets of all are taken together, the oldest of a name stays.
    fn merge(rules: &[Arc<DestinationRule>]) -> Self {
        let Some(oldest) = rules.first() else { return Self::default() };
        let mut subsets: Vec<Subset> = Vec::new();
        for subset in rules.iter().flat_map(|rule| &rule.subsets) {
            if subsets.iter().all(|known| known.name != subset.name) {
                subsets.push(subset.clone());
            }
        }
        Self {
            object: Some(oldest.meta.object.clone()),
            policy: oldest.policy.clone(),
            port_level: oldest.port_level.clone(),
            subsets,
        }
    }

    /// A port-level entry replaces the TLS settings as a whole (SEMANTICS 11, trap 40).
    fn tls_for(&self, port: u16) -> Option<ClientTlsMode> {
        let at_port = self.port_level.iter().find(|(candidate, _)| *candidate == port);
        at_port.map_or(self.policy.tls, |(_, policy)| policy.tls)
    }
}

fn routes_for(registry: &Registry, host: &Host, facts: &mut Facts<'_>) -> Option<RouteSet> {
    facts.read(Effect::Routes(host.clone()));
    let exact = registry.routes_by_host(host);
    let routes = match exact {
        Some(routes) => routes,
        None => {
            facts.read(Effect::WildcardRoutes);
            registry.routes_by_wildcard(host)?
        }
    };
    if routes.http.is_empty() {
        return None;
    }
    Some(RouteSet { object: routes.meta.object.clone(), http: routes.http.clone() })
}
