//! What is in force, in Envoy's and istioctl's words: clusters, listeners, routes, endpoints, policies.
//!
//! Everything here is made from one snapshot of the state, so that the parts of a dump fit together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::admin::{
    ClusterStatus, Denial, EndpointStatus, ListenerStatus, PolicyDifferences, PolicyStatus, ProxyDump,
    RouteStatus,
};
use mesh_api::model::destination::{HttpMatch, HttpRoute, StringMatch};
use mesh_api::model::service::Resolution;
use mesh_api::model::{
    Destination, MtlsMode, ObjectRef, OutboundPolicy, PeerTls, Protocol, WorkloadPolicies,
};

use super::Admin;
use crate::settings::Settings;
use crate::state::{DestinationState, Known, ProxyState};
use crate::telemetry::Telemetry;

impl Admin {
    /// Everything at once.
    #[must_use]
    pub fn dump(&self) -> ProxyDump {
        let state = Arc::clone(&self.state.load());
        let versions = self.control_status.versions();
        let destinations = state.destinations.iter().map(|(key, known)| {
            let destination = match known {
                Known::Present(present) => Some(present.destination.clone()),
                Known::Absent => None,
            };
            (key.to_string(), destination)
        });
        ProxyDump {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: self.settings.args.node_id.clone(),
            config: state.workload.as_ref().map(|workload| workload.config.clone()),
            bootstrap: self.settings.effective(),
            versions: versions.into_iter().map(|(kind, names)| (kind.short().to_owned(), names)).collect(),
            destinations: destinations.collect(),
            policy: policy(&state),
            certificates: self.certificates(SystemTime::now()),
            clusters: clusters(&state),
            listeners: listeners(&self.settings, &state),
            routes: routes(&state),
            endpoints: endpoints(&state, &self.telemetry),
        }
    }
}

/// Clusters: those of each known destination, those of the own ports, and the two for unknown destinations.
#[must_use]
pub fn clusters(state: &ProxyState) -> Vec<ClusterStatus> {
    let mut list = vec![fixed("BlackHoleCluster", "STATIC"), fixed("PassthroughCluster", "ORIGINAL_DST")];
    if let Some(workload) = &state.workload {
        for port in workload.inbound.values() {
            list.push(ClusterStatus {
                service_fqdn: port.service_host.clone(),
                port: port.port,
                subset: "-".to_owned(),
                direction: "inbound".to_owned(),
                kind: "ORIGINAL_DST".to_owned(),
                destination_rule: String::new(),
                name: format!("inbound|{}||", port.port),
                protocol: port.protocol.as_str().to_owned(),
            });
        }
    }
    for destination in present(state) {
        let destination = &destination.destination;
        let subsets = destination.subsets.iter().map(|subset| subset.name.as_str());
        for subset in std::iter::once("").chain(subsets) {
            for port in &destination.ports {
                list.push(ClusterStatus {
                    service_fqdn: destination.host.clone(),
                    port: port.port,
                    subset: if subset.is_empty() { "-".to_owned() } else { subset.to_owned() },
                    direction: "outbound".to_owned(),
                    kind: discovery_kind(destination).to_owned(),
                    destination_rule: dotted(destination.destination_rule.as_ref()),
                    name: outbound_name(destination, port.port, subset),
                    protocol: port.protocol.as_str().to_owned(),
                });
            }
        }
    }
    list.sort_by(|a, b| {
        (&a.service_fqdn, a.port, &a.subset, &a.name).cmp(&(&b.service_fqdn, b.port, &b.subset, &b.name))
    });
    list.dedup();
    list
}

/// Listeners: the two of interception, with what is decided at each, and DNS.
#[must_use]
pub fn listeners(settings: &Settings, state: &ProxyState) -> Vec<ListenerStatus> {
    let args = &settings.args;
    let line = |port: u16, matches: String, destination: String, kind: &str| ListenerStatus {
        address: "::".to_owned(),
        port,
        matches,
        destination,
        kind: kind.to_owned(),
    };
    let mut list = Vec::new();
    if let Some(workload) = &state.workload {
        let unknown = match workload.config.mesh.outbound_policy {
            OutboundPolicy::AllowAny => "PassthroughCluster",
            OutboundPolicy::RegistryOnly => "BlackHoleCluster",
        };
        for destination in present(state) {
            let destination = &destination.destination;
            for port in &destination.ports {
                let kind = if port.protocol.is_http() { "HTTP" } else { "TCP" };
                let addresses: Vec<_> = destination.addresses.iter().map(ToString::to_string).collect();
                let matches = format!("Addr: {}:{}", addresses.join(","), port.port);
                let name = outbound_name(destination, port.port, "");
                list.push(line(args.outbound_port, matches, format!("Cluster: {name}"), kind));
            }
        }
        list.push(line(args.outbound_port, "ALL".to_owned(), format!("Cluster: {unknown}"), "TCP"));
        for port in workload.inbound.values() {
            let kind = if port.protocol.is_http() { "HTTP" } else { "TCP" };
            let transport = transport(workload.mtls_mode(port.port));
            let matches = format!("{transport}; Port: {}", port.port);
            list.push(line(args.inbound_port, matches, format!("Cluster: inbound|{}||", port.port), kind));
        }
        let rest = format!("{}; ALL", transport(workload.policies.mtls));
        list.push(line(args.inbound_port, rest, "Cluster: InboundPassthroughCluster".to_owned(), "TCP"));
    }
    if args.dns_port != 0 {
        list.push(line(args.dns_port, "ALL".to_owned(), "Mesh names, else upstream".to_owned(), "DNS"));
    }
    list.push(ListenerStatus {
        address: args.status_listen.ip().to_string(),
        port: args.status_listen.port(),
        matches: "ALL".to_owned(),
        destination: "Inline Route: /healthz/ready*, /stats/prometheus*".to_owned(),
        kind: "HTTP".to_owned(),
    });
    // A destination that is known by its name and by its address is one listener match.
    let mut seen = std::collections::HashSet::new();
    list.retain(|line| seen.insert((line.port, line.matches.clone(), line.destination.clone())));
    list
}

/// HTTP routes of each known destination.
#[must_use]
pub fn routes(state: &ProxyState) -> Vec<RouteStatus> {
    let mut list = Vec::new();
    for destination in present(state) {
        let destination = &destination.destination;
        for port in destination.ports.iter().filter(|port| is_routed(port.protocol)) {
            let line = |matches: String, virtual_service: String, targets: Vec<String>| RouteStatus {
                name: port.port.to_string(),
                vhost_name: format!("{}:{}", destination.host, port.port),
                domains: domains(destination),
                matches,
                virtual_service,
                targets,
            };
            match &destination.routes {
                None => {
                    let target = outbound_name(destination, port.port, "");
                    list.push(line("/*".to_owned(), String::new(), vec![target]));
                }
                Some(routes) => {
                    for route in &routes.http {
                        let targets = targets(route, port.port);
                        list.push(line(route_matches(route), dotted(Some(&routes.object)), targets));
                    }
                }
            }
        }
    }
    list.sort_by(|a, b| (&a.name, &a.vhost_name).cmp(&(&b.name, &b.vhost_name)));
    list.dedup();
    list
}

/// Endpoints of each known destination, by cluster.
#[must_use]
pub fn endpoints(state: &ProxyState, telemetry: &Telemetry) -> Vec<EndpointStatus> {
    let mut list = Vec::new();
    for destination in present(state) {
        let destination = &destination.destination;
        for endpoint in &destination.endpoints {
            let ports = destination.ports.iter().zip(&endpoint.target_ports).zip(&endpoint.tls);
            for ((port, target_port), tls) in ports {
                let address = SocketAddr::new(endpoint.address, *target_port);
                list.push(EndpointStatus {
                    endpoint: address.to_string(),
                    status: if endpoint.draining { "DRAINING" } else { "HEALTHY" }.to_owned(),
                    outlier_check: "OK".to_owned(),
                    cluster: outbound_name(destination, port.port, ""),
                    identity: match tls {
                        PeerTls::Mutual { identity } => identity.to_string(),
                        PeerTls::Plaintext => String::new(),
                    },
                    active_requests: telemetry.active().of(address),
                });
            }
        }
    }
    list.sort_by(|a, b| (&a.cluster, &a.endpoint).cmp(&(&b.cluster, &b.endpoint)));
    list.dedup();
    list
}

/// The policies in force, with what is secret of their keys redacted. Before there are any, the version is
/// empty and nothing is admitted.
#[must_use]
pub fn policy(state: &ProxyState) -> PolicyStatus {
    match &state.workload {
        Some(workload) => PolicyStatus {
            version: workload.policy_version.to_string(),
            mtls: workload.policies.mtls,
            mtls_ports: workload.policies.mtls_ports.clone(),
            policies: workload.policies.redacted(),
        },
        None => PolicyStatus {
            version: String::new(),
            mtls: MtlsMode::Strict,
            mtls_ports: BTreeMap::new(),
            policies: WorkloadPolicies::default(),
        },
    }
}

/// What policies that are tried would decide otherwise.
#[must_use]
pub fn differences(state: &ProxyState) -> PolicyDifferences {
    let trial = state.workload.as_ref().and_then(|workload| workload.trial.as_ref());
    trial.map(|trial| trial.report()).unwrap_or_default()
}

/// The last refusals, newest last.
#[must_use]
pub fn denials(telemetry: &Telemetry) -> Vec<Denial> {
    let mut list = telemetry.denials().list();
    list.sort_by(|a, b| a.time.cmp(&b.time));
    list
}

fn present(state: &ProxyState) -> impl Iterator<Item = &DestinationState> {
    state.destinations.values().filter_map(|known| match known {
        Known::Present(destination) => Some(destination.as_ref()),
        Known::Absent => None,
    })
}

fn fixed(name: &str, kind: &str) -> ClusterStatus {
    ClusterStatus {
        service_fqdn: name.to_owned(),
        port: 0,
        subset: "-".to_owned(),
        direction: String::new(),
        kind: kind.to_owned(),
        destination_rule: String::new(),
        name: name.to_owned(),
        protocol: String::new(),
    }
}

/// Envoy's name of a cluster.
fn outbound_name(destination: &Destination, port: u16, subset: &str) -> String {
    format!("outbound|{port}|{subset}|{}", destination.host)
}

fn discovery_kind(destination: &Destination) -> &'static str {
    match destination.resolution {
        Resolution::Static => "EDS",
        Resolution::None => "ORIGINAL_DST",
        Resolution::Dns => "STRICT_DNS",
    }
}

fn transport(mode: MtlsMode) -> &'static str {
    match mode {
        MtlsMode::Strict => "Trans: tls",
        MtlsMode::Permissive => "Trans: tls or raw_buffer",
        MtlsMode::Disable => "Trans: raw_buffer",
    }
}

fn dotted(object: Option<&ObjectRef>) -> String {
    object.map(|object| format!("{}.{}", object.name, object.namespace)).unwrap_or_default()
}

/// Whether requests on a port may be routed: it is HTTP, or may turn out to be.
fn is_routed(protocol: Protocol) -> bool {
    protocol.is_http() || protocol == Protocol::Auto
}

fn domains(destination: &Destination) -> Vec<String> {
    let addresses = destination.addresses.iter().map(ToString::to_string);
    let others = addresses.filter(|address| *address != destination.host);
    std::iter::once(destination.host.clone()).chain(others).collect()
}

fn targets(route: &HttpRoute, dialled: u16) -> Vec<String> {
    let name = |target: &mesh_api::model::destination::WeightedTarget| {
        let subset = target.subset.as_deref().unwrap_or_default();
        format!("outbound|{}|{subset}|{}", target.port.unwrap_or(dialled), target.host)
    };
    match route.targets.as_slice() {
        [only] => vec![name(only)],
        several => several.iter().map(|target| format!("{} ({})", name(target), target.weight)).collect(),
    }
}

fn route_matches(route: &HttpRoute) -> String {
    if route.matches.is_empty() {
        return "/*".to_owned();
    }
    route.matches.iter().map(match_text).collect::<Vec<_>>().join(", ")
}

fn match_text(entry: &HttpMatch) -> String {
    let mut text = match &entry.uri {
        None | Some(StringMatch::Present) => "/*".to_owned(),
        Some(StringMatch::Exact(path)) => path.clone(),
        Some(StringMatch::Prefix(path)) => format!("{path}*"),
        Some(StringMatch::Regex(expression)) => format!("regex {expression}"),
    };
    let is_further = entry.method.is_some()
        || entry.authority.is_some()
        || entry.scheme.is_some()
        || entry.port.is_some()
        || !entry.headers.is_empty()
        || !entry.without_headers.is_empty()
        || !entry.query_params.is_empty();
    if is_further {
        // As istioctl marks a route that tests more than its path.
        text.push_str(" (+)");
    }
    text
}
