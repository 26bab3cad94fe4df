//! RequestAuthentication (SEMANTICS section 7), as validated.

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Selector, TargetRef};

/// A RequestAuthentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestAuthentication {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// Workloads in scope.
    pub selector: Selector,
    /// Target references.
    pub targets: Vec<TargetRef>,
    /// Accepted issuers.
    pub jwt_rules: Vec<JwtRule>,
}

/// One entry of `jwtRules`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwtRule {
    /// Exact `iss`; empty accepts any issuer for this key set.
    pub issuer: String,
    /// Accepted audiences; empty accepts any.
    pub audiences: Vec<String>,
    /// Where keys are fetched from.
    pub jwks_uri: String,
    /// Keys given in line, as JSON text.
    pub jwks: String,
    /// Header locations as (name, prefix).
    pub from_headers: Vec<(String, String)>,
    /// Query parameters that may hold a token.
    pub from_params: Vec<String>,
    /// Cookies that may hold a token.
    pub from_cookies: Vec<String>,
    /// Whether the token stays on the forwarded request.
    pub forward_original_token: bool,
    /// Header that receives the payload.
    pub output_payload_to_header: String,
    /// Headers that receive claims, as (header, claim).
    pub output_claim_to_headers: Vec<(String, String)>,
    /// Time allowed for fetching keys, in milliseconds. Default 5 000.
    pub timeout_ms: u64,
    /// Claims split at spaces, beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
}
