//! ServiceEntry (SEMANTICS section 13): services that no platform registry lists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use super::fields::Fields;
use super::input::Input;
use super::report::{Report, shortened};
use super::tree::Place;
use super::{host, meta, protocol, service, workload_entry};
use crate::model::service::Resolution;
use crate::model::{ObjectMeta, Protocol, Selector, Service, ServicePort, Workload};
use crate::name::{Host, ObjectName, SpiffeId};

const SPEC: [&str; 9] = [
    "hosts",
    "addresses",
    "ports",
    "location",
    "resolution",
    "endpoints",
    "workloadSelector",
    "exportTo",
    "subjectAltNames",
];

/// Resolution as it is written; the model has fewer kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Service {
    let spec = input.spec.fields(&SPEC, report);
    let hosts = hosts(spec, report);
    let resolution = resolution(spec, report);
    let external = spec.get("location").is_none_or(|place| {
        place.choice(&[("MESH_EXTERNAL", true), ("MESH_INTERNAL", false)], report) != Some(false)
    });
    let ports = ports(spec, report);
    let addresses = addresses(spec, resolution, report);
    let selector = spec.get("workloadSelector").map(|place| {
        let fields = place.fields(&["labels"], report);
        let labels = fields.get("labels");
        let labels =
            labels.map(|place| meta::selector_labels(place, meta::WORKLOAD_SELECTOR_PAIRS_MAX, report));
        Selector { match_labels: labels.unwrap_or_default() }
    });
    let endpoints = endpoints(spec, &input.meta, &ports, resolution, report);
    if let Some(place) = spec.get("exportTo") {
        host::export_to(place, report);
    }
    check_together(spec, (&hosts, &ports), resolution, report);
    let modelled = match resolution {
        Written::Static => Resolution::Static,
        Written::None => Resolution::None,
        // Without endpoints it is the host itself that is looked up, and the client has done that already:
        // the address that it dialled is one of the answers.
        Written::Dns | Written::DnsRoundRobin | Written::DynamicDns
            if endpoints.is_empty() && selector.is_none() =>
        {
            Resolution::None
        }
        Written::Dns | Written::DnsRoundRobin | Written::DynamicDns => Resolution::Dns,
    };
    Service {
        meta: input.meta,
        hosts,
        addresses,
        headless: false,
        ports,
        selector,
        endpoints,
        resolution: modelled,
        external,
        subject_alt_names: spec
            .get("subjectAltNames")
            .map(|place| names(place, external, report))
            .unwrap_or_default(),
        publish_not_ready: false,
        members: BTreeSet::new(),
        zone_hints: BTreeMap::new(),
    }
}

/// Identities that endpoints may present. Mutual TLS in the mesh knows SPIFFE ids only.
fn names(place: Place<'_>, external: bool, report: &mut Report) -> Vec<String> {
    let names = place.texts(report);
    if external {
        report.not_enforced(place, "the mesh does not open TLS to hosts outside of it");
        return Vec::new();
    }
    for (item, name) in place.children().zip(&names) {
        if let Err(error) = SpiffeId::parse(name) {
            report.error(item, error.to_string(), "Write the SPIFFE id that the endpoints present.");
        }
    }
    names
}

fn hosts(spec: Fields<'_>, report: &mut Report) -> Vec<Host> {
    let Some(place) = spec.required("hosts", "State the names of the service.", report) else {
        return Vec::new();
    };
    let items = place.items(report);
    if items.is_empty() {
        report.error(place, "must name a host", "State the names of the service.");
    }
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::new();
    for item in items {
        let Some(host) = host::full(item, report) else { continue };
        if host.as_str() == "*" {
            report.error(item, "a bare * would claim every name", "Write *.DOMAIN.");
        } else if !host.as_str().contains('.') {
            report.warn(
                item,
                "has no dot; other namespaces may mean something else by it",
                "Write the full name.",
            );
        }
        if !seen.insert(host.clone()) {
            report.error(item, format!("{host} stands twice"), "");
            continue;
        }
        hosts.push(host);
    }
    hosts
}

fn resolution(spec: Fields<'_>, report: &mut Report) -> Written {
    let choices = [
        ("NONE", Written::None),
        ("STATIC", Written::Static),
        ("DNS", Written::Dns),
        ("DNS_ROUND_ROBIN", Written::DnsRoundRobin),
        ("DYNAMIC_DNS", Written::DynamicDns),
    ];
    spec.get("resolution").and_then(|place| place.choice(&choices, report)).unwrap_or(Written::None)
}

fn ports(spec: Fields<'_>, report: &mut Report) -> Vec<ServicePort> {
    let items = spec.get("ports").map(|place| place.items(report)).unwrap_or_default();
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for item in items {
        let fields = item.fields(&["number", "protocol", "name", "targetPort"], report);
        let number = fields.required("number", "State the port that clients dial.", report);
        let number = number.and_then(|place| place.port(report));
        let name_place = fields.required("name", "Name the port.", report);
        let name = name_place.and_then(|place| service::port_name(place, report));
        let declared = fields.get("protocol").and_then(|place| protocol(place, report));
        let target = fields.get("targetPort").map_or(number, |place| place.port(report));
        let (Some(port), Some(name), Some(target_port)) = (number, name, target) else { continue };
        if !names.insert(name.clone()) {
            report.error(name_place.unwrap_or(item), format!("another port is named {name:?} too"), "");
        }
        if !numbers.insert(port) {
            report.error(fields.get("number").unwrap_or(item), format!("port {port} stands twice"), "");
        }
        let protocol = declared.unwrap_or_else(|| protocol::of_port_name(&name));
        ports.push(ServicePort { name, port, target_port, target_port_name: None, protocol });
    }
    ports
}

fn protocol(place: Place<'_>, report: &mut Report) -> Option<Protocol> {
    let text = place.non_empty(report)?;
    let known = protocol::of_service_entry(text);
    if known.is_none() {
        let message = format!("protocol {:?} is not supported", shortened(text));
        report.error(place, message, "Write HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP or MONGO.");
    }
    known
}

fn addresses(spec: Fields<'_>, resolution: Written, report: &mut Report) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for item in spec.get("addresses").map(|place| place.items(report)).unwrap_or_default() {
        let Some(text) = item.non_empty(report) else { continue };
        if let Ok(address) = text.parse::<IpAddr>() {
            addresses.push(address.to_canonical());
            continue;
        }
        match ipnet::IpNet::from_str(text) {
            Ok(net) if net.prefix_len() == net.max_prefix_len() => addresses.push(net.addr().to_canonical()),
            Ok(_) if matches!(resolution, Written::None | Written::Static) => {
                report.not_enforced(
                    item,
                    "a whole range is not served; its addresses are unknown destinations",
                );
            }
            Ok(_) => report.error(item, "a range is allowed with resolution NONE or STATIC only", ""),
            Err(_) => {
                let message = format!("{:?} is neither an IP address nor a CIDR", shortened(text));
                report.error(item, message, "");
            }
        }
    }
    addresses
}

fn endpoints(
    spec: Fields<'_>,
    owner: &ObjectMeta,
    ports: &[ServicePort],
    resolution: Written,
    report: &mut Report,
) -> Vec<Workload> {
    let Some(place) = spec.get("endpoints") else { return Vec::new() };
    let items = place.items(report);
    if resolution == Written::None && !items.is_empty() {
        let hint = "State resolution: STATIC for addresses, or DNS for names.";
        report.error(place, "endpoints are not used with resolution NONE", hint);
    }
    if resolution == Written::DnsRoundRobin && items.len() > 1 {
        report.error(place, "at most one endpoint is allowed with DNS_ROUND_ROBIN", "");
    }
    let mut endpoints = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let Ok(name) = ObjectName::parse(&format!("{}-{index}", owner.object.name)) else { continue };
        let object = crate::model::ObjectRef { name, ..owner.object.clone() };
        let meta = ObjectMeta {
            object,
            labels: Default::default(),
            annotations: Default::default(),
            ..owner.clone()
        };
        let Some(endpoint) = workload_entry::workload(item, meta, report) else { continue };
        if endpoint.dns_name.is_some() && resolution == Written::Static {
            let place = item.child("address").unwrap_or(item);
            report.error(
                place,
                "must be an IP address with resolution STATIC",
                "State resolution: DNS for names.",
            );
        }
        if endpoint.dns_name.is_some() && resolution != Written::Static {
            let place = item.child("address").unwrap_or(item);
            report.not_enforced(place, service::NAME_EFFECT);
        }
        for entry in item.child("ports").into_iter().flat_map(Place::children) {
            if !ports.iter().any(|port| port.name == entry.name()) {
                let message = format!("no port of the service is named {:?}", shortened(entry.name()));
                report.error(entry, message, "");
            }
        }
        endpoints.push(endpoint);
    }
    endpoints
}

/// Rules that concern several fields.
fn check_together(
    spec: Fields<'_>,
    (hosts, ports): (&[Host], &[ServicePort]),
    resolution: Written,
    report: &mut Report,
) {
    let has_endpoints = spec.get("endpoints").is_some_and(|place| place.children().len() > 0);
    if has_endpoints && spec.get("workloadSelector").is_some() {
        report.error(spec.place, "only one of endpoints and workloadSelector may be set", "");
    }
    let has_wildcard = hosts.iter().any(Host::is_wildcard);
    if matches!(resolution, Written::Dns | Written::DnsRoundRobin) && has_wildcard && !has_endpoints {
        let place = spec.get("hosts").unwrap_or(spec.place);
        report.error(place, "a wildcard cannot be looked up in DNS", "State endpoints, or resolution: NONE.");
    }
    if resolution == Written::DynamicDns && !has_wildcard {
        let place = spec.get("resolution").unwrap_or(spec.place);
        report.warn(place, "DYNAMIC_DNS is meant for wildcard hosts", "State resolution: DNS.");
    }
    let is_stream = |port: &ServicePort| port.protocol == Protocol::Tcp;
    if hosts.len() > 1 && ports.iter().any(is_stream) && resolution != Written::None {
        let place = spec.get("hosts").unwrap_or(spec.place);
        report.error(
            place,
            "several hosts cannot be told apart on a TCP port",
            "Write one ServiceEntry for each.",
        );
    }
    if ports.is_empty() && spec.get("ports").is_none() {
        report.warn(spec.place, "states no ports, so nothing can be called", "Add ports.");
    }
}
