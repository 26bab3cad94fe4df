//! Settings of the whole mesh.

use serde::{Deserialize, Serialize};

use crate::name::{Namespace, TrustDomain};

/// How request paths are normalised before policy and forwarding (SEMANTICS 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathNormalization {
    /// Only the fragment is cut.
    None,
    /// RFC 3986 canonical form; Istio's `DEFAULT` and `BASE`.
    #[default]
    Base,
    /// `Base`, then runs of slashes become one.
    MergeSlashes,
    /// `%2F` and `%5C` are decoded first, then as `MergeSlashes`.
    DecodeAndMergeSlashes,
}

/// What happens to traffic for a destination that the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundPolicy {
    /// It passes to its original address.
    #[default]
    AllowAny,
    /// HTTP is answered 502, TCP is closed.
    RegistryOnly,
}

/// Format of access-log records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Istio's default text format.
    Text,
    /// No records.
    Off,
}

/// Settings of the whole mesh; every proxy is sent them. Users write them as a `MeshConfig` document
/// (`mini-mesh.io/v1alpha1`), with Istio's `meshConfig` field names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshSettings {
    /// Trust domain of every identity. Default `cluster.local`.
    pub trust_domain: TrustDomain,
    /// Further trust domains that are taken as equal. Default none.
    #[serde(default)]
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Namespace whose policies hold for the whole mesh. Default `istio-system`.
    pub root_namespace: Namespace,
    /// DNS suffix of services: `NAME.NAMESPACE.svc.SUFFIX`. Default `cluster.local`.
    pub cluster_domain: String,
    /// Path normalisation. Default `BASE`.
    #[serde(default)]
    pub path_normalization: PathNormalization,
    /// Unknown destinations. Default `ALLOW_ANY`.
    #[serde(default)]
    pub outbound_policy: OutboundPolicy,
    /// Access-log format. Default JSON.
    #[serde(default)]
    pub access_log: AccessLogFormat,
    /// Time allowed for an upstream TCP connect, in milliseconds. Default 10 000.
    pub connect_timeout_ms: u64,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::parse("cluster.local").expect("a valid constant"),
            trust_domain_aliases: Vec::new(),
            root_namespace: Namespace::parse("istio-system").expect("a valid constant"),
            cluster_domain: "cluster.local".to_owned(),
            path_normalization: PathNormalization::default(),
            outbound_policy: OutboundPolicy::default(),
            access_log: AccessLogFormat::default(),
            connect_timeout_ms: 10_000,
        }
    }
}
