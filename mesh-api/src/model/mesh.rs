//! Settings of the whole mesh.

use serde::{Deserialize, Serialize};

use crate::name::{Host, Namespace, TrustDomain};

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

/// Something outside the mesh that policies and telemetry name (Istio's `extensionProviders`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtensionProvider {
    /// Name, unique in the mesh.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
}

/// What an [`ExtensionProvider`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProviderKind {
    /// An external authorizer, which CUSTOM policies ask.
    Authorizer(Box<ExternalAuthorizer>),
    /// Anything else, by Istio's field name (`prometheus`, `zipkin`, ...); it has no effect.
    Other(String),
}

/// Providers that hold where Telemetry names none (Istio's `defaultProviders`); none stands for the proxies' own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultProviders {
    /// Of access logs.
    pub access_logging: Vec<String>,
    /// Of metrics.
    pub metrics: Vec<String>,
    /// Of traces.
    pub tracing: Vec<String>,
}

/// An external authorizer (Envoy's ext_authz).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAuthorizer {
    /// Host of its service, fully qualified.
    pub host: Host,
    /// Namespace of its service, when stated: another service of that host is not asked.
    #[serde(default)]
    pub namespace: Option<Namespace>,
    /// Service port.
    pub port: u16,
    /// Time allowed for one check, in milliseconds. Default 600 000.
    pub timeout_ms: u64,
    /// What holds when it cannot be asked. Default: the request is refused.
    #[serde(default)]
    pub on_error: OnAuthorizerError,
    /// Status of a refusal because it could not be asked. Default 403.
    pub status_on_error: u16,
    /// How much of a request's body it is shown; `None` for nothing.
    #[serde(default)]
    pub body: Option<CheckBody>,
    /// What it speaks.
    pub protocol: AuthorizerProtocol,
}

/// What holds when an authorizer cannot be asked, or does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OnAuthorizerError {
    /// The request is refused.
    #[default]
    Refuse,
    /// The request goes on (`failOpen`).
    Pass,
}

/// How much of a body an authorizer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    /// Most bytes shown, 1 to 1 MiB.
    pub bytes_max: u32,
    /// What becomes of a longer body.
    pub longer: LongerBody,
    /// How a gRPC authorizer is sent it: as bytes, or as text.
    pub packing: BodyPacking,
}

/// What becomes of a request whose body is longer than an authorizer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LongerBody {
    /// It is answered 413 and the authorizer is not asked.
    #[default]
    Refused,
    /// The authorizer is shown the first part (`allowPartialMessage`).
    Cut,
}

/// In which field of a check a gRPC authorizer finds the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BodyPacking {
    /// `body`, as text.
    #[default]
    Text,
    /// `raw_body`, as bytes (`packAsBytes`).
    Bytes,
}

/// What an authorizer speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthorizerProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// The request's head is sent as a request of its own; status 200 lets it pass.
    Http(Box<HttpCheck>),
}

/// What the HTTP form of a check carries. Names of headers are `name`, `prefix*` or `*suffix`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpCheck {
    /// Put before the path of the request.
    pub path_prefix: String,
    /// Headers of the request that are sent along, beside Host, Method, Path, Content-Length, Authorization.
    pub request_headers: Vec<String>,
    /// Headers that are added to the check, by name.
    pub additional_headers: Vec<(String, String)>,
    /// Headers of the answer that the forwarded request gets when it passes.
    pub to_upstream: Vec<String>,
    /// Headers of the answer that the client gets when it is refused; empty stands for all.
    pub to_client_on_deny: Vec<String>,
    /// Headers of the answer that the client gets with the response of a request that passes.
    pub to_client_on_allow: Vec<String>,
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
    /// Providers that policies name. Default none.
    #[serde(default)]
    pub extension_providers: Vec<ExtensionProvider>,
    /// Providers of Telemetry that names none. Default none.
    #[serde(default)]
    pub default_providers: DefaultProviders,
}

impl MeshSettings {
    /// The external authorizer of that name.
    #[must_use]
    pub fn authorizer(&self, name: &str) -> Option<&ExternalAuthorizer> {
        let provider = self.extension_providers.iter().find(|provider| provider.name == name)?;
        match &provider.kind {
            ProviderKind::Authorizer(authorizer) => Some(authorizer),
            ProviderKind::Other(_) => None,
        }
    }
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
            extension_providers: Vec::new(),
            default_providers: DefaultProviders::default(),
        }
    }
}
