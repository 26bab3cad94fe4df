//! RequestAuthentication (SEMANTICS section 7), as validated.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Where the keys of a rule come from (SEMANTICS 7.2): in this order the first that is stated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// The rule's own `jwks`.
    Inline,
    /// A URL that answers with a JWKS.
    Jwks(String),
    /// A URL that answers with an OpenID provider's configuration, whose `jwks_uri` is asked next.
    Discovery(String),
}

impl KeySource {
    /// The URL that is asked first, which names the source in [`KeySets`]; `None` for keys in line.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Inline => None,
            Self::Jwks(url) | Self::Discovery(url) => Some(url),
        }
    }
}

impl JwtRule {
    /// Where the rule's keys come from.
    #[must_use]
    pub fn key_source(&self) -> KeySource {
        if !self.jwks.is_empty() {
            KeySource::Inline
        } else if !self.jwks_uri.is_empty() {
            KeySource::Jwks(self.jwks_uri.clone())
        } else {
            let issuer = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
            KeySource::Discovery(format!("{issuer}/.well-known/openid-configuration"))
        }
    }
}

/// Keys that the control plane fetched, by [`KeySource::url`].
pub type KeySets = BTreeMap<String, KeySet>;

/// What is known of one source of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeySet {
    /// The last good JWKS, as JSON text with the public members alone; `None` before the first. Then no
    /// token of the rule is accepted, and a request without one is none of the rule's business.
    pub jwks: Option<Arc<str>>,
    /// Why the last attempt to fetch failed, in words; empty when it did not.
    pub problem: String,
}

impl KeySet {
    /// The same for people: see [`redacted_jwks`].
    #[must_use]
    pub fn redacted(&self) -> Self {
        let jwks = self.jwks.as_deref().map(|jwks| Arc::from(redacted_jwks(jwks)));
        Self { jwks, problem: self.problem.clone() }
    }
}

impl RequestAuthentication {
    /// The same for people: keys in line are shown without what is secret of them.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        for rule in shown.jwt_rules.iter_mut().filter(|rule| !rule.jwks.is_empty()) {
            rule.jwks = redacted_jwks(&rule.jwks);
        }
        shown
    }
}

/// What stands where a secret was.
const REDACTED: &str = "[redacted]";
/// Members of a key that only its owner may know: private ones and symmetric keys (RFC 7518 section 6).
const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A JWKS as it may be shown: secret members are replaced, and what is not JSON is replaced as a whole.
#[must_use]
pub fn redacted_jwks(jwks: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<serde_json::Value>(jwks) else {
        return REDACTED.to_owned();
    };
    let keys = document.get_mut("keys").and_then(serde_json::Value::as_array_mut);
    for key in keys.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
        for (_, value) in key.iter_mut().filter(|(name, _)| SECRET.contains(&name.as_str())) {
            *value = REDACTED.into();
        }
    }
    document.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_of_a_key_is_shown() {
        let jwks = r#"{"keys":[{"kty":"oct","k":"topsecret","kid":"a"},
            {"kty":"RSA","n":"AQ","e":"AQAB","d":"topsecret","oth":[{"d":"topsecret"}]},"topic"]}"#;
        let shown =
            KeySet { jwks: Some(Arc::from(jwks)), problem: String::new() }.redacted().jwks.expect("shown");
        assert!(!shown.contains("topsecret"), "{shown}");
        assert!(shown.contains(r#""kid":"a""#) && shown.contains(r#""n":"AQ""#), "{shown}");
        assert_eq!(redacted_jwks("topsecret"), REDACTED);
    }
}
