//! What a policy test says: a request or connection, and what is to become of it.
//!
//! These are plain values, read from a `PolicyTest` document by [`crate::manifest::policy_test`] and judged by
//! `mesh-policy`, which reads no files. Nothing here is checked against a mesh: that is what the test is for.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{MeshSettings, MtlsMode, Origin, PathNormalization};
use crate::name::{Labels, Namespace, ServiceAccount, SpiffeId, TrustDomain};

/// Port of a request that states none.
pub const PORT_DEFAULT: u16 = 8080;

/// Settings of the mesh, as far as a test states them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshOverrides {
    /// Namespace whose policies hold for the whole mesh.
    pub root_namespace: Option<Namespace>,
    /// Trust domain.
    pub trust_domain: Option<TrustDomain>,
    /// Its aliases.
    pub trust_domain_aliases: Option<Vec<TrustDomain>>,
    /// Path normalisation.
    pub path_normalization: Option<PathNormalization>,
}

impl MeshOverrides {
    /// Puts what is stated in the place of what `mesh` says.
    pub fn apply_to(&self, mesh: &mut MeshSettings) {
        if let Some(namespace) = &self.root_namespace {
            mesh.root_namespace.clone_from(namespace);
        }
        if let Some(domain) = &self.trust_domain {
            mesh.trust_domain.clone_from(domain);
        }
        if let Some(aliases) = &self.trust_domain_aliases {
            mesh.trust_domain_aliases.clone_from(aliases);
        }
        if let Some(normalization) = self.path_normalization {
            mesh.path_normalization = normalization;
        }
    }
}

/// The workload that is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its namespace. Default `default`.
    pub namespace: Namespace,
    /// Its labels.
    pub labels: Labels,
    /// Its service account. Default `default`.
    pub service_account: ServiceAccount,
}

/// What a connection carries, as the proxy of the workload sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Requests.
    #[default]
    Http,
    /// Bytes.
    Tcp,
}

/// One request, or one connection that is not HTTP, as it arrives at the proxy of the workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What the connection carries.
    pub protocol: Traffic,
    /// Identity of the client certificate; none without one.
    pub principal: Option<SpiffeId>,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Address of the original client.
    pub remote_ip: IpAddr,
    /// Address that the connection was made to; none is unknown.
    pub destination_ip: Option<IpAddr>,
    /// Server name of the TLS handshake.
    pub sni: Option<String>,
    /// Target port of the workload.
    pub port: u16,
    /// The HTTP part; not looked at when the traffic is TCP.
    pub http: HttpRequest,
}

/// The HTTP part of a [`Request`], as sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// Method. Default `GET`.
    pub method: String,
    /// Authority, with its port if it has one.
    pub host: String,
    /// Target: path and query, or an absolute URL. Default `/`.
    pub path: String,
    /// Header lines, in order.
    pub headers: Vec<(String, String)>,
    /// Claims of a token that is taken as verified; then no token of the request is looked at.
    pub jwt_claims: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A verdict, as tests write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reaches the application.
    Allow,
    /// It does not.
    Deny,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A header and its lines in order.
pub type HeaderLines = (String, Vec<String>);

/// What is to become of a request. What is not stated is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expectation {
    /// Whether it reaches the application.
    pub decision: Option<Verdict>,
    /// Status that the client gets when the application would answer 200.
    pub status: Option<u16>,
    /// Body that the proxy answers with.
    pub body: Option<String>,
    /// Headers that the proxy answers with.
    pub response_headers: Vec<HeaderLines>,
    /// `NAMESPACE/NAME` of the policy that decided; empty when none is to.
    pub policy: Option<String>,
    /// `ISS/SUB` that authentication established; empty when none is to be.
    pub request_principal: Option<String>,
    /// Mutual TLS of workload and port.
    pub mtls: Option<MtlsMode>,
    /// What the application receives.
    pub upstream: Option<UpstreamExpectation>,
}

impl Expectation {
    /// Whether anything is stated that only a request can show.
    #[must_use]
    pub fn needs_request(&self) -> bool {
        let of_mtls = Self { mtls: self.mtls, ..Self::default() };
        *self != of_mtls
    }

    /// Whether nothing is stated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the application is to receive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamExpectation {
    /// Path and query.
    pub path: Option<String>,
    /// What path matchers saw.
    pub policy_path: Option<String>,
    /// Headers, with all their lines.
    pub headers: Vec<HeaderLines>,
    /// Headers that are there, whatever they say.
    pub present_headers: Vec<String>,
    /// Headers that are not.
    pub absent_headers: Vec<String>,
    /// What the path does not hold anywhere.
    pub path_not_contains: Option<String>,
}

/// One case, without the policies that it is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name, unique within its file.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// The time, in seconds of the Unix epoch; none is the present.
    pub now: Option<i64>,
    /// Settings of the mesh: those of the test and of the case together.
    pub mesh: MeshOverrides,
    /// The workload that is called.
    pub workload: Workload,
    /// Target port when there is no request.
    pub port: Option<u16>,
    /// The request; none when only mutual TLS is looked at.
    pub request: Option<Request>,
    /// What is to become of it.
    pub expect: Expectation,
}

/// What is to become of a document that somebody applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// It is taken, with warnings or without.
    Accept,
    /// It is taken with a warning.
    Warn,
    /// It is refused.
    Reject,
}

impl Admission {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Warn => "warn",
            Self::Reject => "reject",
        }
    }
}
