//! JSON that the admin sockets of proxy and control plane answer, and that `meshctl` prints.
//!
//! Times are RFC 3339 in UTC; ages and durations are in the unit that the field's name ends in.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{
    Destination, Kind, MtlsMode, ObjectRef, ProxyConfig, Service, Workload, WorkloadPolicies,
};
use crate::problem::Problem;

mod trial;

pub use trial::{
    PolicyDifference, PolicyDifferences, TrialOutcome, TrialStage, TrialVerdict, TriedChange, TriedObject,
};

// ---- Proxy ------------------------------------------------------------------------------------------

/// `GET /ready` of a proxy. Status 200 when ready, else 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyStatus {
    /// Identity, configuration and listeners are in hand, and the proxy is not draining.
    pub ready: bool,
    /// What is missing, empty when ready.
    pub waiting_for: Vec<String>,
    /// SIGTERM was received.
    pub draining: bool,
    /// Seconds since the control plane was last heard; `None` before the first time.
    pub control_plane_silent_seconds: Option<u64>,
    /// The discovery stream is open now.
    pub control_plane_connected: bool,
}

/// One certificate of a proxy. Private keys never appear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// `default` for the workload's chain, `ROOTCA` for the trust bundle.
    pub resource_name: String,
    /// `Cert Chain` or `CA`.
    pub kind: String,
    /// `ACTIVE`, or `WARMING` before the first certificate.
    pub status: String,
    /// Whether now lies within the validity.
    pub valid: bool,
    /// Position in the chain, 0 for the leaf.
    pub chain_index: usize,
    /// SPIFFE id of a leaf; empty for an authority.
    pub spiffe_id: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Subject of an authority; empty for a leaf.
    pub subject: String,
    /// Serial number, lower-case hex.
    pub serial_number: String,
    /// Start of validity.
    pub not_before: String,
    /// End of validity.
    pub not_after: String,
    /// Seconds until the end of validity, negative after it.
    pub ttl_seconds: i64,
    /// When the next rotation is planned; only for the leaf.
    pub next_rotation: Option<String>,
    /// The certificate, PEM.
    pub pem: String,
}

/// One cluster (destination, port, subset) that a proxy knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Service host.
    pub service_fqdn: String,
    /// Service port, or target port for inbound.
    pub port: u16,
    /// Subset, `-` for none.
    pub subset: String,
    /// `inbound` or `outbound`; empty for the two clusters of unknown destinations, as istioctl has it.
    pub direction: String,
    /// `EDS`, `ORIGINAL_DST`, `STRICT_DNS`.
    pub kind: String,
    /// `name.namespace` of the DestinationRule, empty for none.
    pub destination_rule: String,
    /// Envoy's name: `outbound|80||host`.
    pub name: String,
    /// Declared or detected protocol.
    pub protocol: String,
}

/// One listener of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Bound address.
    pub address: String,
    /// Bound port.
    pub port: u16,
    /// What is matched, in istioctl's words (`ALL`, `Trans: tls; App: HTTP`).
    pub matches: String,
    /// Where matching connections go.
    pub destination: String,
    /// `HTTP`, `TCP`, `DNS`.
    pub kind: String,
}

/// One route of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Name of the route configuration: the service port.
    pub name: String,
    /// Virtual host: `host:port`.
    pub vhost_name: String,
    /// Names that it answers to.
    pub domains: Vec<String>,
    /// What is matched, for instance `/api*`.
    pub matches: String,
    /// `name.namespace` of the VirtualService, empty for none.
    pub virtual_service: String,
    /// Targets as `cluster (weight)`.
    pub targets: Vec<String>,
}

/// One endpoint that a proxy may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Address and target port.
    pub endpoint: String,
    /// `HEALTHY`, `DRAINING`.
    pub status: String,
    /// `OK` or `FAILED`.
    pub outlier_check: String,
    /// Envoy's name of the cluster.
    pub cluster: String,
    /// Expected identity; empty for plaintext.
    pub identity: String,
    /// Requests in flight over all workers.
    pub active_requests: u64,
}

/// The policies in force in a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Version of the resource.
    pub version: String,
    /// Effective mutual-TLS mode of the workload.
    pub mtls: MtlsMode,
    /// Effective modes of single ports.
    pub mtls_ports: BTreeMap<u16, MtlsMode>,
    /// The policies themselves.
    pub policies: WorkloadPolicies,
}

/// A refusal, for `who was denied, by which rule`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Id of the latest of them, 16 hexadecimal digits: as in the access log and in `x-mesh-decision`.
    #[serde(default)]
    pub id: String,
    /// Time of the refusal.
    pub time: String,
    /// SPIFFE id of the peer, empty without one.
    pub peer: String,
    /// Address of the peer.
    pub source: String,
    /// Target port.
    pub port: u16,
    /// Method, empty for TCP.
    pub method: String,
    /// Authority, empty for TCP.
    pub authority: String,
    /// Normalised path, empty for TCP.
    pub path: String,
    /// `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`, or `none` when no ALLOW matched.
    pub policy: String,
    /// Why, in words.
    pub reason: String,
    /// How many alike were refused since the last entry of the same kind.
    pub count: u64,
    /// Every policy, rule and clause as it was evaluated (JSON of the policy engine's explanation), or null.
    /// Only `GET /decision?id=` answers it.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub explanation: serde_json::Value,
}

/// `GET /logging` and `POST /logging?level=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// Filter directives in force, for instance `info` or `info,mesh_proxy=debug`.
    pub level: String,
}

/// `GET /config_dump` of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyDump {
    /// Version of the binary.
    pub version: String,
    /// `WORKLOAD.NAMESPACE`.
    pub node_id: String,
    /// Configuration of the own workload, once received.
    pub config: Option<ProxyConfig>,
    /// Effective process settings (flags over environment over defaults), secrets redacted.
    pub bootstrap: BTreeMap<String, String>,
    /// Resource versions by type (short name) and resource name.
    pub versions: BTreeMap<String, BTreeMap<String, String>>,
    /// Destinations known, by key; `None` is a definite "no such destination".
    pub destinations: BTreeMap<String, Option<Destination>>,
    /// Policies in force.
    pub policy: PolicyStatus,
    /// Certificates.
    pub certificates: Vec<CertificateStatus>,
    /// Clusters.
    pub clusters: Vec<ClusterStatus>,
    /// Listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Routes.
    pub routes: Vec<RouteStatus>,
    /// Endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

// ---- Control plane ----------------------------------------------------------------------------------

/// `GET /status` of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Version of the binary.
    pub version: String,
    /// Name of this control plane.
    pub name: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Revision of the configuration: grows with each change.
    pub revision: u64,
    /// Folders that are watched.
    pub sources: Vec<SourceStatus>,
    /// Connected proxies.
    pub proxies: Vec<ProxyStatus>,
    /// Where keys of token issuers are fetched from.
    #[serde(default)]
    pub key_sources: Vec<KeySourceStatus>,
    /// Problems by severity.
    pub errors: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// Counts of objects by kind.
    pub objects: BTreeMap<String, usize>,
}

/// One watched folder, or one kind of objects that is watched in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The folder, or `cluster: ` and the kind.
    pub path: String,
    /// Files read.
    pub files: usize,
    /// Objects in force from it.
    pub objects: usize,
    /// Objects whose last good version is kept although the file now holds something else.
    pub held: Vec<ObjectRef>,
    /// Set when the folder vanished or emptied at once and what it held is kept; for a watch of a cluster, while the
    /// API server cannot be asked.
    pub suspended: Option<String>,
    /// For a watch of a cluster: why there is nothing to watch (a kind that the API server does not know).
    #[serde(default)]
    pub missing: Option<String>,
}

/// What [`SourceStatus::path`] begins with for a watch of a cluster.
pub const WATCHED: &str = "cluster: ";

impl SourceStatus {
    /// The kind that is watched in a cluster; `None` for a folder.
    #[must_use]
    pub fn watched(&self) -> Option<&str> {
        self.path.strip_prefix(WATCHED)
    }
}

/// One source of keys that policies use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySourceStatus {
    /// The URL that is asked first.
    pub url: String,
    /// Number of keys in use.
    pub keys: usize,
    /// Seconds since they were last seen there; `None` when there are none.
    pub age_seconds: Option<u64>,
    /// Why the last attempt to fetch them failed; empty when it did not.
    pub problem: String,
}

/// One proxy as the control plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// `WORKLOAD.NAMESPACE`.
    pub name: String,
    /// SPIFFE id on the stream.
    pub identity: String,
    /// Version of the proxy.
    pub version: String,
    /// Whether the stream is open.
    pub connected: bool,
    /// When the stream was opened.
    pub connected_at: String,
    /// State of each resource type (short name).
    pub types: BTreeMap<String, SyncStatus>,
    /// Clock of the proxy minus ours, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Address of the peer.
    pub address: Option<SocketAddr>,
}

/// State of one resource type at one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// `SYNCED`, `STALE` (sent, not yet acknowledged), `NOT SENT`, `ERROR` (rejected).
    pub state: String,
    /// Resources subscribed to.
    pub resources: usize,
    /// Seconds since the last acknowledgement.
    pub age_seconds: Option<u64>,
    /// The proxy's words, when it rejected.
    pub error: Option<String>,
}

/// How far one object has come at one replica of the control plane: `GET /objects/status`. Each replica knows of
/// its own proxies; the numbers of all together are their sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.generation` of the version in force; 0 when none is, or when it is of a file.
    pub generation: i64,
    /// The newest version was taken in.
    pub accepted: bool,
    /// The newest version was refused, and the last good one is in force.
    pub held: bool,
    /// Why the newest version was refused; empty when it was not.
    pub reason: String,
    /// Connected proxies of this replica that it applies to.
    pub applies: usize,
    /// Those of them that enforce it.
    pub enforced: usize,
    /// The first of those that do not yet, as `WORKLOAD.NAMESPACE`.
    pub laggards: Vec<String>,
}

/// A pod that asks for a proxy and has none: `GET /unmeshed`. The replica that leads knows them, others list none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmeshedPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Why it should have one, or why it would be refused.
    pub reason: String,
}

/// One object in force, for `meshctl get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSummary {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// File.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Text of the document in force.
    pub yaml: String,
    /// The file now holds something else that was refused; this is the last good version.
    pub held: bool,
    /// Problems that concern it.
    pub problems: Vec<Problem>,
    /// For policies: proxies that have acknowledged it, of those that it selects.
    pub enforced: Option<(usize, usize)>,
    /// What is tried of it on live traffic: with `added` and `edited` it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<TriedChange>,
}

/// `GET /registry` of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RegistryDump {
    /// Services, with the addresses given to them.
    pub services: Vec<Service>,
    /// Workloads.
    pub workloads: Vec<Workload>,
}

/// `GET /ca` of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// Root, then intermediates, newest first.
    pub authorities: Vec<CertificateStatus>,
    /// Certificates issued since start.
    pub issued: u64,
    /// Refused requests since start.
    pub refused: u64,
    /// Default lifetime of workload certificates, in seconds.
    pub workload_ttl_seconds: u64,
}

/// `POST /tokens` of the control plane: a one-time join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRequest {
    /// The identity it is bound to.
    pub spiffe_id: String,
    /// Lifetime in seconds.
    pub ttl_seconds: u64,
}

/// Answer to [`JoinTokenRequest`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenResponse {
    /// The token. It is shown once and stored as a digest only.
    pub token: String,
    /// When it expires.
    pub expires: String,
}

impl std::fmt::Debug for JoinTokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinTokenResponse")
            .field("token", &"[redacted]")
            .field("expires", &self.expires)
            .finish()
    }
}

/// Body of every error answer of an admin socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminError {
    /// What is wrong.
    pub error: String,
    /// What to do next, possibly empty.
    #[serde(default)]
    pub hint: String,
}
