//! VirtualService and DestinationRule, as far as they are served.

use serde::{Deserialize, Serialize};

use super::ObjectMeta;
use super::destination::{Balance, HttpRoute};
use crate::name::{Host, Labels};

/// A VirtualService bound to the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualService {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// Hosts it routes for, fully qualified.
    pub hosts: Vec<Host>,
    /// Gateways it binds to; contains `mesh` when sidecars use it.
    pub gateways: Vec<String>,
    /// HTTP routes in order.
    pub http: Vec<HttpRoute>,
}

/// A client-side TLS mode (`trafficPolicy.tls.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// Plaintext.
    Disable,
    /// Mesh mutual TLS.
    IstioMutual,
}

/// Policy for calls to a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen; `None` is the default, least request.
    pub balance: Option<Balance>,
    /// Client TLS; `None` is automatic.
    pub tls: Option<ClientTlsMode>,
    /// Time allowed for a TCP connect, in milliseconds; `None` is the mesh's.
    pub connect_timeout_ms: Option<u64>,
}

/// A named subset of a host's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subset {
    /// Name, unique within the host.
    pub name: String,
    /// Labels that an endpoint must carry.
    pub labels: Labels,
    /// Overrides of the host's policy.
    pub policy: TrafficPolicy,
}

/// A DestinationRule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationRule {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// Host it is for, fully qualified.
    pub host: Host,
    /// Policy of the host.
    pub policy: TrafficPolicy,
    /// Policies by service port.
    pub port_level: Vec<(u16, TrafficPolicy)>,
    /// Subsets.
    pub subsets: Vec<Subset>,
}
