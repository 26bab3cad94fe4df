//! Headers that a rule fills from the token it verified (SEMANTICS 7.6).

use std::sync::Arc;

use mesh_api::model::JwtRule;
use serde_json::{Map, Value};

use super::token::Token;

/// Headers that say where a message ends, how it is framed or whom it is for; none may come from a claim.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
];

/// The headers of a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Outputs {
    payload: Option<Arc<str>>,
    /// Header, and the claim's name with a dot between levels.
    claims: Vec<(Arc<str>, Box<str>)>,
}

impl Outputs {
    pub(super) fn of_rule(rule: &JwtRule) -> Self {
        let claims = rule.output_claim_to_headers.iter();
        Self {
            payload: header(&rule.output_payload_to_header),
            claims: claims.filter_map(|(name, claim)| Some((header(name)?, claim.as_str().into()))).collect(),
        }
    }

    /// Names of the headers, in lower case.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.payload.iter().chain(self.claims.iter().map(|(name, _)| name))
    }

    /// The lines that a token gives. Claims that are missing, complex or empty give none, and neither do
    /// those that would end a line and start another.
    pub(super) fn lines(&self, token: &Token) -> Vec<(Arc<str>, String)> {
        let payload = self.payload.iter().map(|name| (Arc::clone(name), token.payload_section().to_owned()));
        let claims = self.claims.iter().filter_map(|(name, claim)| {
            let value = text(at(&token.payload, claim)?)?;
            let is_line = !value.is_empty() && !value.contains(char::is_control);
            is_line.then(|| (Arc::clone(name), value))
        });
        payload.chain(claims).collect()
    }
}

/// The name of a header that may be filled, in lower case (RFC 9110 section 5.6.2).
fn header(name: &str) -> Option<Arc<str>> {
    let name = name.to_ascii_lowercase();
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_fillable = !name.is_empty() && name.bytes().all(is_token) && !FRAMING.contains(&name.as_str());
    is_fillable.then(|| name.into())
}

fn at<'p>(payload: &'p Map<String, Value>, claim: &str) -> Option<&'p Value> {
    let mut names = claim.split('.');
    let mut value = payload.get(names.next()?)?;
    for name in names {
        value = value.as_object()?.get(name)?;
    }
    Some(value)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => number.as_f64().map(number_text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Envoy holds every number as a double: whole ones from zero to 64 bits are written as such, all others
/// with six decimals.
fn number_text(number: f64) -> String {
    /// 2^64, to which Envoy's bound of a 64-bit number rounds.
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    if (0.0..LIMIT).contains(&number) && number.fract() == 0.0 {
        return format!("{:.0}", number.abs());
    }
    format!("{number:.6}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_envoy_writes_them() {
        for (value, expected) in [
            (json!("alice"), Some("alice")),
            (json!(""), Some("")),
            (json!(true), Some("true")),
            (json!(false), Some("false")),
            (json!(0), Some("0")),
            (json!(-0.0), Some("0")),
            (json!(1_700_000_000), Some("1700000000")),
            (json!(2.0), Some("2")),
            (json!(2.72), Some("2.720000")),
            (json!(-5), Some("-5.000000")),
            (json!(-0.5), Some("-0.500000")),
            (json!(9_007_199_254_740_993_u64), Some("9007199254740992")),
            (json!(u64::MAX), Some("18446744073709551616.000000")),
            (json!(null), None),
            (json!(["a"]), None),
            (json!({"a": 1}), None),
        ] {
            assert_eq!(text(&value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn headers_that_frame_a_message_are_not_filled() {
        for good in ["X-Sub", "x_sub", "authorization", "cookie"] {
            assert_eq!(header(good).as_deref(), Some(good.to_ascii_lowercase().as_str()));
        }
        for bad in
            ["", "a b", "a:b", ":path", ":authority", "Host", "Content-Length", "transfer-encoding", "a\r\nb"]
        {
            assert_eq!(header(bad), None, "{bad:?}");
        }
    }
}
