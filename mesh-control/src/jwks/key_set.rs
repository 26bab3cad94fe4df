//! What is kept of a fetched JWKS (RFC 7517): the members that verifying needs, in one canonical form.
//!
//! A provider's answer is somebody else's text. None of it goes on but known members of known keys, so
//! neither a private key that was published by mistake nor anything else in the body reaches a proxy, a dump
//! or a log (SEMANTICS 7.2, trap 30). Keys are ordered, so that an answer that differs in its order alone is
//! no change.
//!
//! A symmetric key (`oct`) has no public part. It is kept, because a provider that signs with HS256 cannot
//! be verified without it, and it is said so: whoever can fetch such a key can sign with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

/// Most keys of one source. Large providers publish about ten; each one is tried for a token without `kid`.
pub const KEYS_MAX: usize = 256;
/// Longest form that is kept of one source, in bytes; it is sent to every proxy whose policies use it.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Longest member, in bytes: the modulus of an RSA key of 16,384 bits takes 2,731.
const MEMBER_BYTES_MAX: usize = 4_096;

/// Members of every kind of key that say how it is to be used (RFC 7517 section 4).
const COMMON: [&str; 4] = ["kty", "kid", "alg", "use"];

/// Why an answer is no key set that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not JSON.
    #[error("the answer is not JSON")]
    NotJson,
    /// There is no array of keys in it.
    #[error("the answer is JSON, but not an object with an array `keys`")]
    NotKeySet,
    /// Too many.
    #[error("the answer has {found} keys, more than {KEYS_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Too much.
    #[error("the keys take {found} bytes, more than {TEXT_BYTES_MAX}")]
    TooLarge {
        /// How much.
        found: usize,
    },
    /// None that can be used.
    #[error("the answer has no key that can verify a token")]
    NoKey,
}

/// The keys of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeys {
    /// The JWKS, as canonical JSON.
    pub text: Arc<str>,
    /// `kid` of those that have one.
    pub key_ids: BTreeSet<String>,
    /// How many.
    pub number: usize,
    /// Whether one of them is symmetric.
    pub has_secret: bool,
}

impl PublicKeys {
    /// Takes what verifying needs from a JWKS. A key that cannot be used is passed over.
    ///
    /// # Errors
    /// When nothing can be used, or there is too much of it.
    pub fn parse(body: &[u8]) -> Result<Self, KeySetError> {
        let document: Value = serde_json::from_slice(body).map_err(|_| KeySetError::NotJson)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotKeySet)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany { found: keys.len() });
        }
        let keys: BTreeSet<BTreeMap<&str, &str>> = keys.iter().filter_map(public).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoKey);
        }
        let document = BTreeMap::from([("keys", &keys)]);
        let text = serde_json::to_string(&document).map_err(|_| KeySetError::NotKeySet)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(KeySetError::TooLarge { found: text.len() });
        }
        let key_ids = keys.iter().filter_map(|key| key.get("kid")).map(|kid| (*kid).to_owned()).collect();
        let has_secret = keys.iter().any(|key| key.contains_key("k"));
        Ok(Self { text: Arc::from(text), key_ids, number: keys.len(), has_secret })
    }
}

/// The members of a key that are kept; `None` when it verifies nothing: of another kind, incomplete, or for
/// encryption (RFC 7517 section 4.2).
fn public(key: &Value) -> Option<BTreeMap<&str, &str>> {
    let key = key.as_object()?;
    let text =
        |name: &str| key.get(name).and_then(Value::as_str).filter(|text| text.len() <= MEMBER_BYTES_MAX);
    let needed: &[&'static str] = match text("kty")? {
        "RSA" => &["n", "e"],
        "EC" => &["crv", "x", "y"],
        "OKP" => &["crv", "x"],
        "oct" => &["k"],
        _ => return None,
    };
    if text("use").is_some_and(|purpose| purpose == "enc") {
        return None;
    }
    let mut kept = BTreeMap::new();
    for name in COMMON {
        match key.get(name) {
            None => {}
            // A member of another type could mean a restriction that is not understood.
            Some(_) => drop(kept.insert(name, text(name)?)),
        }
    }
    for name in needed {
        kept.insert(*name, text(name)?);
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<PublicKeys, KeySetError> {
        PublicKeys::parse(json.as_bytes())
    }

    #[test]
    fn only_members_that_verifying_needs_are_kept_in_one_order() {
        let keys = parse(
            r#"{"keys":[
                {"x5c":["..."],"kty":"RSA","n":"AQ","e":"AQAB","d":"secret","p":"secret","q":"secret",
                 "dp":"secret","dq":"secret","qi":"secret","kid":"b","alg":"RS256","use":"sig","k":"secret"},
                {"kty":"EC","crv":"P-256","x":"1","y":"2","d":"secret","kid":"a"},
                {"kty":"OKP","crv":"Ed25519","x":"3","d":"secret","key_ops":["verify"],"extra":{"deep":[1]}}
            ],"note":"<script>"}"#,
        )
        .expect("a key set");
        assert_eq!(
            keys.text.as_ref(),
            r#"{"keys":[{"alg":"RS256","e":"AQAB","kid":"b","kty":"RSA","n":"AQ","use":"sig"},{"crv":"Ed25519","kty":"OKP","x":"3"},{"crv":"P-256","kid":"a","kty":"EC","x":"1","y":"2"}]}"#
        );
        assert_eq!((keys.number, keys.has_secret), (3, false));
        assert_eq!(keys.key_ids.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(PublicKeys::parse(keys.text.as_bytes()), Ok(keys.clone()), "the form is not canonical");
        let turned = r#"{"keys":[{"kid":"a","y":"2","x":"1","crv":"P-256","kty":"EC"},
            {"kty":"OKP","x":"3","crv":"Ed25519"},
            {"kty":"RSA","use":"sig","alg":"RS256","kid":"b","e":"AQAB","n":"AQ"}]}"#;
        assert_eq!(parse(turned), Ok(keys));
    }

    #[test]
    fn a_symmetric_key_is_kept_and_said() {
        let keys = parse(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"s"}]}"#).expect("a key set");
        assert!(keys.has_secret && keys.text.contains("c2VjcmV0"));
    }

    #[test]
    fn a_key_that_verifies_nothing_is_passed_over() {
        let good = r#"{"kty":"EC","crv":"P-256","x":"1","y":"2"}"#;
        let long = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, "A".repeat(MEMBER_BYTES_MAX + 1));
        let bad = [
            r#"{"kty":"RSA","e":"AQAB"}"#,
            r#"{"kty":"RSA","n":1,"e":"AQAB"}"#,
            r#"{"kty":"RSA","n":"AQ","e":"AQAB","use":"enc"}"#,
            r#"{"kty":"RSA","n":"AQ","e":"AQAB","alg":7}"#,
            r#"{"kty":"XYZ","n":"AQ"}"#,
            r#"{"n":"AQ","e":"AQAB"}"#,
            r#""text""#,
            "null",
            &long,
        ];
        for key in bad {
            assert_eq!(parse(&format!(r#"{{"keys":[{key}]}}"#)), Err(KeySetError::NoKey), "{key}");
            assert_eq!(parse(&format!(r#"{{"keys":[{key},{good}]}}"#)).expect(key).number, 1, "{key}");
        }
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        let cases = [
            ("<html>", KeySetError::NotJson),
            ("", KeySetError::NotJson),
            ("{\"keys\":[", KeySetError::NotJson),
            ("[]", KeySetError::NotKeySet),
            ("{}", KeySetError::NotKeySet),
            (r#"{"keys":{}}"#, KeySetError::NotKeySet),
            (r#"{"keys":"x"}"#, KeySetError::NotKeySet),
            (r#"{"keys":[]}"#, KeySetError::NoKey),
        ];
        for (body, error) in cases {
            assert_eq!(parse(body), Err(error), "{body}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(&deep), Err(KeySetError::NotJson));
        assert_eq!(PublicKeys::parse(b"\xff\xfe"), Err(KeySetError::NotJson));
    }

    #[test]
    fn the_number_and_size_of_keys_are_bounded() {
        let set = |number: usize, bytes: usize| {
            let key =
                |at: usize| format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB","kid":"{at}"}}"#, "A".repeat(bytes));
            format!(r#"{{"keys":[{}]}}"#, (0..number).map(key).collect::<Vec<_>>().join(","))
        };
        assert_eq!(parse(&set(KEYS_MAX, 300)).expect("a key set").number, KEYS_MAX);
        assert_eq!(parse(&set(KEYS_MAX + 1, 1)), Err(KeySetError::TooMany { found: KEYS_MAX + 1 }));
        assert!(matches!(parse(&set(KEYS_MAX, 4_000)), Err(KeySetError::TooLarge { .. })));
    }
}
