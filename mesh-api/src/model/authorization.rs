//! AuthorizationPolicy (SEMANTICS section 6), as validated; matching is `mesh-policy`'s.

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Selector, TargetRef};

/// What a matching policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Lets the request pass.
    #[default]
    Allow,
    /// Refuses the request, whatever else allows it.
    Deny,
    /// Records the request only.
    Audit,
    /// Asks an external authorizer.
    Custom,
}

impl Action {
    /// The action as YAML writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationPolicy {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// Workloads in scope; empty selects all of the namespace (all of the mesh in the root namespace).
    pub selector: Selector,
    /// Target references; a policy that has any never binds to a plain sidecar.
    pub targets: Vec<TargetRef>,
    /// What a match does.
    pub action: Action,
    /// Provider name of a CUSTOM policy.
    pub provider: Option<String>,
    /// Rules, ORed. Empty never matches.
    pub rules: Vec<Rule>,
    /// `istio.io/dry-run: "true"`: evaluated and recorded, never enforced.
    pub dry_run: bool,
}

impl AuthorizationPolicy {
    /// Whether the policy has a say in what is refused: it is no dry-run of either kind.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        !self.dry_run && self.meta.is_in_force()
    }
}

/// One rule: (some `from`, or none given) AND (some `to`, or none given) AND every `when`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Sources, ORed; empty means any.
    pub from: Vec<Source>,
    /// Operations, ORed; empty means any.
    pub to: Vec<Operation>,
    /// Conditions, ANDed.
    pub when: Vec<Condition>,
}

/// A source: every non-empty field must hold, within a field any value; each `not_` twin excludes.
/// Values are patterns as users wrote them (SEMANTICS 6.4, 6.5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Peer identities without `spiffe://`.
    pub principals: Vec<String>,
    /// Excluded peer identities.
    pub not_principals: Vec<String>,
    /// `ISS/SUB` of the verified JWT.
    pub request_principals: Vec<String>,
    /// Excluded request principals.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer identity.
    pub namespaces: Vec<String>,
    /// Excluded namespaces.
    pub not_namespaces: Vec<String>,
    /// `NAMESPACE/NAME`, or `NAME` in the policy's namespace.
    pub service_accounts: Vec<String>,
    /// Excluded service accounts.
    pub not_service_accounts: Vec<String>,
    /// IPs or CIDRs of the TCP peer.
    pub ip_blocks: Vec<String>,
    /// Excluded blocks.
    pub not_ip_blocks: Vec<String>,
    /// IPs or CIDRs of the original client.
    pub remote_ip_blocks: Vec<String>,
    /// Excluded blocks of the original client.
    pub not_remote_ip_blocks: Vec<String>,
    /// Trust domains of the peer identity.
    pub trust_domains: Vec<String>,
    /// Excluded trust domains.
    pub not_trust_domains: Vec<String>,
}

/// An operation; fields combine as in [`Source`] (SEMANTICS 6.6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Operation {
    /// Authorities, compared whole and without regard to case.
    pub hosts: Vec<String>,
    /// Excluded authorities.
    pub not_hosts: Vec<String>,
    /// Decimal target ports.
    pub ports: Vec<String>,
    /// Excluded ports.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Excluded methods.
    pub not_methods: Vec<String>,
    /// Paths or path templates.
    pub paths: Vec<String>,
    /// Excluded paths.
    pub not_paths: Vec<String>,
}

/// A `when` entry (SEMANTICS 6.7).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// Attribute name, for instance `request.headers[x-tenant]`.
    pub key: String,
    /// Values, ORed.
    pub values: Vec<String>,
    /// Excluded values.
    pub not_values: Vec<String>,
}
