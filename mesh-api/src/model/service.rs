//! Services: a name, ports, and the workloads behind them. Kubernetes Services and ServiceEntries become
//! the same thing here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Selector};
use crate::name::{Host, ObjectName};

/// The protocol of a port, by declaration (`appProtocol`, the port's name prefix, or `protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Protocol {
    /// Nothing declared: whoever speaks first decides.
    #[default]
    Auto,
    /// HTTP/1.x (an HTTP/2 preface is accepted too).
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, carried on HTTP/2.
    Grpc,
    /// The application's own TLS, passed through.
    Tls,
    /// A byte stream. Also MySQL, Redis, MongoDB, SMTP and the like.
    Tcp,
}

impl Protocol {
    /// Whether requests on the port are HTTP by declaration.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// The protocol as Istio's tables print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "AUTO",
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name, possibly empty.
    #[serde(default)]
    pub name: String,
    /// Port that clients dial.
    pub port: u16,
    /// Port of the workload, unless the workload maps the port's name.
    pub target_port: u16,
    /// Target port by name (`targetPort: http`), looked up in the workload's `ports`.
    #[serde(default)]
    pub target_port_name: Option<String>,
    /// Declared protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// How clients of a service find an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// By the endpoints that the registry knows.
    #[default]
    Static,
    /// The address that the client dialled (ServiceEntry `NONE`).
    None,
    /// By DNS on the endpoint names (ServiceEntry `DNS`).
    Dns,
}

/// A service of the mesh or an external one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Kind (Service or ServiceEntry), namespace, name, origin.
    pub meta: ObjectMeta,
    /// Names by which it is called; the first is canonical (`NAME.NS.svc.SUFFIX` for a Service).
    pub hosts: Vec<Host>,
    /// Virtual addresses. A Service without one is given a stable address by the control plane unless it is
    /// headless.
    pub addresses: Vec<IpAddr>,
    /// `clusterIP: None`: DNS answers the workloads' own addresses.
    pub headless: bool,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Workloads behind it; `None` means the endpoints are listed.
    pub selector: Option<Selector>,
    /// Endpoints listed in the object (ServiceEntry `endpoints`), as workloads without identity unless stated.
    pub endpoints: Vec<super::Workload>,
    /// How an address is found.
    pub resolution: Resolution,
    /// ServiceEntry `location: MESH_EXTERNAL`: never mutual TLS.
    pub external: bool,
    /// Identities that endpoints may present, as SPIFFE ids; empty means that of each endpoint.
    pub subject_alt_names: Vec<String>,
    /// Addresses of workloads that are not ready are answered and dialled too (`publishNotReadyAddresses`).
    #[serde(default)]
    pub publish_not_ready: bool,
    /// Workloads of its namespace that are behind it by name, beside those that it selects (an EndpointSlice made
    /// by hand that refers to pods).
    #[serde(default)]
    pub members: BTreeSet<ObjectName>,
    /// Zones for whose clients an endpoint is meant, by its address (topology hints); empty without hints.
    #[serde(default)]
    pub zone_hints: BTreeMap<IpAddr, Vec<String>>,
}
