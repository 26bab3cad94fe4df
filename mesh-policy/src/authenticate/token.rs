//! The three sections of a token, taken apart and checked for form before anything is believed.
//!
//! The checks and their order are those of Envoy's `Jwt::parseFromString`, for the order decides which
//! message a token with two faults gets.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::failure::Failure;
use super::{base64url, json};

/// Longest token, in bytes: the whole header block of a request is bounded by about as much.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A token of good form. Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Token {
    text: Box<str>,
    /// Where the payload starts and ends in the text.
    payload_span: (usize, usize),
    pub(super) algorithm: Algorithm,
    /// `kid` of the header; empty without one.
    pub(super) key_id: String,
    /// Whether the header demands an extension (RFC 7515 section 4.1.11), of which none is known here.
    pub(super) has_critical: bool,
    pub(super) payload: Map<String, Value>,
    /// Values of `aud` in the form in which they are compared, put in order once: each of many rules looks for
    /// its few among what may be thousands.
    pub(super) audiences: BTreeSet<Box<str>>,
    pub(super) not_before: Option<u64>,
    pub(super) expires: Option<u64>,
    /// The signature; `None` when its text is not the one spelling of its bytes.
    pub(super) signature: Option<Vec<u8>>,
}

impl Token {
    /// Takes a token apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(Failure::Form);
        }
        let sections: Vec<&[u8]> = bytes.splitn(4, |&b| b == b'.').collect();
        let [header, payload, signature] = sections[..] else { return Err(Failure::Form) };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Failure::Form);
        }
        let head = Head::parse(header)?;
        let members = base64url::decode(payload).ok_or(Failure::PayloadEncoding)?;
        let members = json::object(&members).ok_or(Failure::PayloadJson)?;
        let [not_before, expires] = registered_claims(&members)?;
        let decoded = base64url::decode(signature).ok_or(Failure::SignatureEncoding)?;
        let signature = base64url::is_canonical(signature, &decoded).then_some(decoded);
        // Three sections of base64url are ASCII.
        let text = std::str::from_utf8(bytes).map_err(|_| Failure::Form)?;
        let start = header.len() + 1;
        Ok(Self {
            text: text.into(),
            payload_span: (start, start + payload.len()),
            algorithm: head.algorithm,
            key_id: head.key_id,
            has_critical: head.has_critical,
            audiences: audiences(&members),
            payload: members,
            not_before,
            expires,
            signature,
        })
    }

    /// What is signed: the first two sections and the dot between them.
    pub(super) fn signed(&self) -> &[u8] {
        &self.text.as_bytes()[..self.payload_span.1]
    }

    /// The second section as it stands.
    pub(super) fn payload_section(&self) -> &str {
        &self.text[self.payload_span.0..self.payload_span.1]
    }

    /// `iss`; empty without one.
    pub(super) fn issuer(&self) -> &str {
        self.payload.get("iss").and_then(Value::as_str).unwrap_or_default()
    }
}

/// An audience without its scheme and without one slash at its end (SEMANTICS 7.4).
pub(super) fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// Values of `aud`, which is a string or a list of strings, in the form in which they are compared.
fn audiences(payload: &Map<String, Value>) -> BTreeSet<Box<str>> {
    let claim = payload.get("aud");
    let list = claim.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let all = claim.and_then(Value::as_str).into_iter().chain(list.iter().filter_map(Value::as_str));
    all.map(|audience| bare(audience).into()).collect()
}

/// The first section.
struct Head {
    algorithm: Algorithm,
    key_id: String,
    has_critical: bool,
}

impl Head {
    fn parse(section: &[u8]) -> Result<Self, Failure> {
        let members = base64url::decode(section).ok_or(Failure::HeaderEncoding)?;
        let members = json::object(&members).ok_or(Failure::HeaderJson)?;
        let name = members.get("alg").and_then(Value::as_str).ok_or(Failure::AlgorithmMissing)?;
        let algorithm = Algorithm::named(name).ok_or(Failure::AlgorithmUnknown)?;
        let key_id = match members.get("kid") {
            None => String::new(),
            Some(value) => value.as_str().ok_or(Failure::KeyIdNotText)?.to_owned(),
        };
        Ok(Self { algorithm, key_id, has_critical: members.contains_key("crit") })
    }
}

/// Checks the types of the registered claims, and gives `nbf` and `exp`.
fn registered_claims(payload: &Map<String, Value>) -> Result<[Option<u64>; 2], Failure> {
    text(payload, "iss")?;
    text(payload, "sub")?;
    seconds(payload, "iat")?;
    let not_before = seconds(payload, "nbf")?;
    let expires = seconds(payload, "exp")?;
    text(payload, "jti")?;
    match payload.get("aud") {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {}
        Some(_) => return Err(Failure::AudienceType),
    }
    Ok([not_before, expires])
}

fn text(payload: &Map<String, Value>, name: &'static str) -> Result<(), Failure> {
    match payload.get(name) {
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(Failure::NotText(name)),
    }
}

/// A time in seconds; a fraction is cut off, as Envoy does.
fn seconds(payload: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Failure> {
    /// 2^64, the first number that has no place in 64 bits.
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    let Some(value) = payload.get(name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(Failure::NotInteger(name)) };
    if let Some(seconds) = number.as_u64() {
        return Ok(Some(seconds));
    }
    match number.as_f64() {
        Some(seconds) if (0.0..LIMIT).contains(&seconds) => {
            #[expect(clippy::cast_possible_truncation, reason = "the fraction is to be cut off")]
            let whole = seconds as u64;
            Ok(Some(whole))
        }
        Some(_) | None => Err(Failure::OutOfRange(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_are_compared_without_scheme_and_last_slash() {
        for (audience, expected) in [
            ("api", "api"),
            ("http://api", "api"),
            ("https://api/", "api"),
            ("https://api//", "api/"),
            ("ftp://api", "ftp://api"),
            ("HTTPS://api", "HTTPS://api"),
            ("http://https://api", "https://api"),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(bare(audience), expected, "{audience}");
        }
    }
}
