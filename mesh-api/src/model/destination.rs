//! What a proxy is sent about one destination that its application calls.
//!
//! A destination is self-contained: everything that is needed to reach it, and the routes of its host. The
//! hosts that its routes name are destinations of their own; a proxy asks for them before it takes the
//! routes into use, so a route never points at something unknown (make before break).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::service::{Protocol, Resolution};
use super::traffic::{Subset, TrafficPolicy};
use super::{ObjectRef, ServicePort};
use crate::name::{Host, Labels, Namespace, SpiffeId};

/// The name under which a proxy asks for a destination.
///
/// On the wire: `host/NAME` or `addr/IP`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DestinationKey {
    /// By fully qualified host name.
    Host(Host),
    /// By the address that the application dialled: a service's virtual address or a workload's own.
    Address(IpAddr),
}

impl DestinationKey {
    /// Parses the wire form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/')? {
            ("host", host) => Host::parse(host).ok().map(Self::Host),
            ("addr", address) => address.parse::<IpAddr>().ok().map(|ip| Self::Address(ip.to_canonical())),
            _ => None,
        }
    }
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host/{host}"),
            Self::Address(address) => write!(f, "addr/{address}"),
        }
    }
}

/// How connections to one endpoint are secured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerTls {
    /// Mesh mutual TLS; the peer must present this very identity.
    Mutual {
        /// The expected SPIFFE id.
        identity: SpiffeId,
    },
    /// Plaintext: the endpoint is outside the mesh, or its mode is DISABLE, or a DestinationRule says so.
    Plaintext,
}

/// One endpoint of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Name of the workload, for telemetry.
    pub workload: String,
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Labels of the workload: subsets select by them, telemetry reads `app` and `version`.
    #[serde(default)]
    pub labels: Labels,
    /// Target port for each service port, in the order of the destination's `ports`.
    pub target_ports: Vec<u16>,
    /// How to connect, for each service port in the same order.
    pub tls: Vec<PeerTls>,
    /// Relative weight; 0 gets no traffic.
    pub weight: u32,
    /// No new picks; connections that exist may finish.
    #[serde(default)]
    pub draining: bool,
    /// Zones for whose clients it is meant (topology hints of Kubernetes); empty without hints.
    #[serde(default)]
    pub zones: Vec<String>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Balance {
    /// Power of two choices by active requests and latency.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// The address that the client dialled.
    Passthrough,
}

/// One destination, as a proxy is sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Canonical host; for a workload called by its own address, the address.
    pub host: String,
    /// The Service or ServiceEntry (or WorkloadEntry, for a workload called by its own address).
    pub object: ObjectRef,
    /// Virtual addresses: the answer of DNS.
    pub addresses: Vec<IpAddr>,
    /// DNS answers the endpoints' own addresses.
    #[serde(default)]
    pub headless: bool,
    /// Ports. A workload called by its own address lists those known for it and takes any other port too.
    pub ports: Vec<ServicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// How an address is found.
    #[serde(default)]
    pub resolution: Resolution,
    /// Policy of the host.
    #[serde(default)]
    pub policy: TrafficPolicy,
    /// Policy by service port.
    #[serde(default)]
    pub port_level: Vec<(u16, TrafficPolicy)>,
    /// Subsets.
    #[serde(default)]
    pub subsets: Vec<Subset>,
    /// The DestinationRule in force, for `proxy-config`.
    #[serde(default)]
    pub destination_rule: Option<ObjectRef>,
    /// Routes of the host; `None` sends everything to the host itself.
    #[serde(default)]
    pub routes: Option<RouteSet>,
    /// Called by the workload's own address: ports that are not listed are taken as target ports and use
    /// this security.
    #[serde(default)]
    pub direct: Option<PeerTls>,
}

impl Destination {
    /// Position of a service port in `ports`.
    #[must_use]
    pub fn port_index(&self, port: u16) -> Option<usize> {
        self.ports.iter().position(|candidate| candidate.port == port)
    }

    /// Declared protocol of a service port; `Auto` for an unlisted one.
    #[must_use]
    pub fn protocol(&self, port: u16) -> Protocol {
        self.port_index(port).map_or(Protocol::Auto, |index| self.ports[index].protocol)
    }
}

/// HTTP routes of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSet {
    /// The VirtualService they come from.
    pub object: ObjectRef,
    /// Routes in order; the first that matches is taken.
    pub http: Vec<HttpRoute>,
}

/// One HTTP route (SEMANTICS 10.2, 10.3).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpRoute {
    /// Name, possibly empty.
    pub name: String,
    /// Matches, ORed; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// Weighted targets.
    pub targets: Vec<WeightedTarget>,
    /// Time allowed for the whole exchange, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Retries, if the VirtualService states them.
    pub retries: Option<Retries>,
}

/// Retries as a VirtualService states them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts after the first; 0 disables.
    pub attempts: u32,
    /// Time allowed for each attempt, in milliseconds.
    pub per_try_timeout_ms: Option<u64>,
    /// `retryOn` conditions; empty means the default list.
    pub retry_on: Vec<String>,
}

/// A string test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// RE2 expression over the whole string.
    Regex(String),
    /// Present with any value.
    Present,
}

/// One entry of `match`: every stated field must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpMatch {
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// Exact and prefix tests of `uri` ignore case.
    pub ignore_uri_case: bool,
    /// Method.
    pub method: Option<StringMatch>,
    /// Authority with port.
    pub authority: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Headers by lower-case name.
    pub headers: Vec<(String, StringMatch)>,
    /// Headers that must not match.
    pub without_headers: Vec<(String, StringMatch)>,
    /// Query parameters.
    pub query_params: Vec<(String, StringMatch)>,
    /// Service port that was dialled.
    pub port: Option<u16>,
    /// Labels of the calling workload.
    pub source_labels: Labels,
    /// Namespace of the calling workload.
    pub source_namespace: Option<String>,
}

/// A weighted route target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedTarget {
    /// Destination host, fully qualified.
    pub host: Host,
    /// Service port; `None` is the port that was dialled.
    pub port: Option<u16>,
    /// Subset of the destination.
    pub subset: Option<String>,
    /// Relative weight.
    pub weight: u32,
}
