//! Core Service: a name, its ports, and whom it selects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::fields::Fields;
use super::host;
use super::input::Input;
use super::meta;
use super::protocol;
use super::report::{NOT_ENFORCED, Report, shortened};
use super::scalar::ScalarType;
use super::tree::{Found, Place};
use crate::model::service::Resolution;
use crate::model::{Availability, ObjectMeta, Protocol, Selector, Service, ServicePort, Workload};
use crate::name::{Host, Labels, ServiceAccount};

/// Fields of a Service's spec (Kubernetes 1.34). Those about load balancers and nodes concern traffic from
/// outside of the mesh and say nothing here.
const SPEC: [&str; 20] = [
    "selector",
    "ports",
    "clusterIP",
    "clusterIPs",
    "type",
    "externalName",
    "sessionAffinity",
    "publishNotReadyAddresses",
    "sessionAffinityConfig",
    "externalIPs",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "loadBalancerClass",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "healthCheckNodePort",
    "ipFamilies",
    "ipFamilyPolicy",
    "allocateLoadBalancerNodePorts",
    "trafficDistribution",
];
/// Longest name of a port, in bytes (RFC 6335 section 5.1; Kubernetes allows 63 for service ports).
const PORT_NAME_BYTES_MAX: usize = 63;

/// What becomes of an endpoint that is a name other than the one that is called.
pub(super) const NAME_EFFECT: &str = "names of endpoints are not looked up, so the endpoint gets no traffic";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Cluster,
    ExternalName,
}

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Option<Service> {
    let spec = input.spec.fields(&SPEC, report);
    let types = [
        ("ClusterIP", Type::Cluster),
        ("NodePort", Type::Cluster),
        ("LoadBalancer", Type::Cluster),
        ("ExternalName", Type::ExternalName),
    ];
    let kind = spec.optional("type").map_or(Some(Type::Cluster), |place| place.choice(&types, report));
    let ports = ports(spec, report);
    let (addresses, headless) = cluster_ip(spec, report);
    let selector =
        spec.optional("selector").map(|place| Selector { match_labels: meta::labels(place, report) });
    // An empty selector means endpoints made by hand, as an absent one does.
    let selector = selector.filter(|selector| !selector.is_empty());
    if let Some(place) = spec.optional("sessionAffinity")
        && place.choice(&[("None", false), ("ClientIP", true)], report) == Some(true)
    {
        report.not_enforced(place, "clients are not kept at one endpoint");
    }
    let publish_not_ready = spec.optional("publishNotReadyAddresses").and_then(|place| place.boolean(report));
    let name = host::of_service(input.meta.object.name.as_str(), &input.meta.object.namespace, input.context);
    let host = match Host::parse(&name) {
        Ok(host) => host,
        Err(error) => {
            report.error(input.root, error.to_string(), "");
            return None;
        }
    };
    let mut service = Service {
        meta: input.meta,
        hosts: vec![host],
        addresses,
        headless,
        ports,
        selector,
        endpoints: Vec::new(),
        resolution: Resolution::Static,
        external: false,
        subject_alt_names: Vec::new(),
        publish_not_ready: publish_not_ready == Some(true),
        members: BTreeSet::new(),
        zone_hints: BTreeMap::new(),
    };
    if kind? == Type::ExternalName {
        external_name(&mut service, spec, input.context, report);
    }
    Some(service)
}

/// An alias of a name outside: found by DNS, and outside of the mesh.
fn external_name(
    service: &mut Service,
    spec: Fields<'_>,
    context: &super::LowerContext,
    report: &mut Report,
) {
    let hint = "State the name that the service stands for.";
    let Some(place) = spec.required("externalName", hint, report) else { return };
    let Some(target) = host::full(place, report) else { return };
    if target.as_str().ends_with(&format!(".{}", context.cluster_domain)) {
        let hint = "Call that service by its own name.";
        report.warn(place, "names a service of the mesh, which will be called without mutual TLS", hint);
    }
    report.not_enforced(place, NAME_EFFECT);
    service.selector = None;
    service.external = true;
    service.resolution = Resolution::Dns;
    service.endpoints = vec![dns_endpoint(&service.meta, target.as_str())];
}

/// An endpoint that is known by its DNS name.
pub(super) fn dns_endpoint(owner: &ObjectMeta, name: &str) -> Workload {
    Workload {
        meta: ObjectMeta { labels: Labels::new(), annotations: Labels::new(), ..owner.clone() },
        addresses: Vec::new(),
        dns_name: Some(name.to_owned()),
        labels: Labels::new(),
        service_account: ServiceAccount::parse("default").expect("a valid constant"),
        ports: BTreeMap::new(),
        weight: 1,
        locality: String::new(),
        meshed: false,
        availability: Availability::Ready,
        shares_addresses: false,
        hosts: Vec::new(),
        is_completed: false,
    }
}

/// Stated addresses, and whether the service is headless. Addresses that are not stated are given later.
fn cluster_ip(spec: Fields<'_>, report: &mut Report) -> (Vec<IpAddr>, bool) {
    let listed = spec.optional("clusterIPs").map(|place| place.items(report)).unwrap_or_default();
    let places = match listed.is_empty() {
        true => spec.optional("clusterIP").into_iter().collect(),
        false => listed,
    };
    let mut addresses = Vec::new();
    let mut headless = false;
    for place in places {
        match place.text(report) {
            Some("None") => headless = true,
            Some("") | None => {}
            Some(text) => match text.parse::<IpAddr>() {
                Ok(address) => addresses.push(address.to_canonical()),
                Err(_) => {
                    let message = format!("{:?} is not an IP address", shortened(text));
                    report.error(place, message, "Write an address, or None for a headless service.");
                }
            },
        }
    }
    (addresses, headless)
}

fn ports(spec: Fields<'_>, report: &mut Report) -> Vec<ServicePort> {
    let Some(place) = spec.optional("ports") else { return Vec::new() };
    let items = place.items(report);
    let needs_names = items.len() > 1;
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for item in items {
        let known = ["name", "protocol", "appProtocol", "port", "targetPort", "nodePort"];
        let fields = item.fields(&known, report);
        let transports = [("TCP", true), ("UDP", false), ("SCTP", false)];
        let transport = fields.optional("protocol");
        let is_tcp = transport.map_or(Some(true), |place| place.choice(&transports, report));
        let Some(port) = port(fields, report) else { continue };
        if needs_names && fields.optional("name").is_none() {
            report.missing(item, "name", "Ports of a service with several need names.");
        }
        if !port.name.is_empty() && !names.insert(port.name.clone()) {
            let place = fields.get("name").unwrap_or(item);
            report.error(place, format!("another port is named {:?} too", port.name), "");
        }
        if is_tcp == Some(false) {
            let hint = "Its packets go past the proxies.";
            report.note(NOT_ENFORCED, item, "only TCP is served by the mesh", hint);
            continue;
        }
        if !numbers.insert(port.port) {
            let place = fields.get("port").unwrap_or(item);
            report.error(place, format!("port {} stands twice", port.port), "");
        }
        ports.push(port);
    }
    ports
}

fn port(fields: Fields<'_>, report: &mut Report) -> Option<ServicePort> {
    let name = fields.optional("name").and_then(|place| port_name(place, report)).unwrap_or_default();
    let app_protocol = fields.optional("appProtocol");
    let declared = app_protocol.and_then(|place| Some((place, place.text(report)?)));
    let protocol = match declared {
        Some((place, text)) => protocol::of_app_protocol(text).unwrap_or_else(|| {
            let message = format!("{:?} is not a protocol that is known", shortened(text));
            report.note(NOT_ENFORCED, place, message, "What is spoken is found out from the first bytes.");
            Protocol::Auto
        }),
        None => protocol::of_port_name(&name),
    };
    let number = fields.required("port", "State the port that clients dial.", report);
    let number = number.and_then(|place| place.port(report));
    let target = fields.optional("targetPort").map(|place| target_port(place, report));
    let number = number?;
    let (target_port, target_port_name) = match target {
        None => (number, None),
        Some(Some(Target::Number(target))) => (target, None),
        Some(Some(Target::Name(name))) => (number, Some(name)),
        Some(None) => return None,
    };
    Some(ServicePort { name, port: number, target_port, target_port_name, protocol })
}

/// A port's name: a DNS label.
pub(super) fn port_name(place: Place<'_>, report: &mut Report) -> Option<String> {
    let text = place.text(report)?;
    let is_name = |text: &str| {
        text.len() <= PORT_NAME_BYTES_MAX
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if is_name(text) {
        return Some(text.to_owned());
    }
    let message = format!("port name {:?} must hold lower-case letters, digits and '-'", shortened(text));
    report.error(place, message, "");
    None
}

enum Target {
    Number(u16),
    Name(String),
}

fn target_port(place: Place<'_>, report: &mut Report) -> Option<Target> {
    match place.found() {
        Found::Scalar(ScalarType::Integer(_), _) => place.port(report).map(Target::Number),
        Found::Scalar(ScalarType::Text, text) if text.bytes().any(|b| b.is_ascii_alphabetic()) => {
            port_name(place, report).map(Target::Name)
        }
        Found::Scalar(..) | Found::List | Found::Map => {
            let message =
                format!("must be a port number or the name of a port, found {}", place.found().words());
            report.error(place, message, "");
            None
        }
    }
}
