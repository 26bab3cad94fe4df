//! A key set in line (RFC 7517), checked as far as Istio's admission checks it: JSON, and keys of known types
//! with the members that their type needs. Whether a key is a good one shows when it is used, and then costs
//! the tokens of that key alone.

use serde_json::{Map, Value};

use super::report::{Report, shortened};
use super::tree::Place;

/// Members that a key must have, by its type (RFC 7518 section 6, RFC 8037 section 2).
const MEMBERS: [(&str, &[&str]); 4] =
    [("RSA", &["n", "e"]), ("EC", &["crv", "x", "y"]), ("OKP", &["crv", "x"]), ("oct", &["k"])];
/// Members that only the owner of a key may know (RFC 7518 section 6); `d` is that of every public type.
const PRIVATE: [&str; 2] = ["d", "k"];

/// Reports what is wrong with the key set at `place`.
pub(super) fn check(place: Place<'_>, text: &str, report: &mut Report) {
    let document = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(document)) => document,
        Ok(_) => {
            report.error(place, "is not a JSON object", HINT);
            return;
        }
        Err(error) => {
            report.error(place, format!("is not JSON: {error}"), HINT);
            return;
        }
    };
    let keys: Vec<&Value> = match document.get("keys") {
        Some(Value::Array(keys)) => {
            if keys.is_empty() {
                report.warn(place, "holds no keys, so that no token is accepted", "Add the issuer's keys.");
            }
            keys.iter().collect()
        }
        Some(_) => {
            report.error(place, "is not a key set: `keys` is not a list", HINT);
            return;
        }
        // Istio takes a key of its own too, and then no token is accepted.
        None => {
            if let Err(reason) = key(&document) {
                report.error(place, format!("is not a key set: it has no list `keys`, and {reason}"), HINT);
            } else {
                let message = "is a key and not a set of keys, so that no token is accepted";
                report.warn(place, message, "Write {\"keys\": [KEY]}.");
            }
            return;
        }
    };
    for (index, entry) in keys.iter().enumerate() {
        let reason = entry.as_object().map_or(Err("is not a JSON object".to_owned()), key);
        if let Err(reason) = reason {
            report.error(place, format!("keys[{index}] {reason}"), "");
        }
    }
    if keys.iter().any(|key| PRIVATE.iter().any(|name| key.get(name).is_some())) {
        report.warn(place, "holds private or shared keys", "Publish public keys only.");
    }
}

const HINT: &str = "Write what the issuer's jwks_uri answers, as a string.";

/// What is wrong with a key.
fn key(members: &Map<String, Value>) -> Result<(), String> {
    let kind = match members.get("kty") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err("has a `kty` that is not a string".to_owned()),
        None => return Err("has no `kty`".to_owned()),
    };
    let Some((_, names)) = MEMBERS.iter().find(|(known, _)| known == kind) else {
        return Err(format!("is of the unknown type {:?}", shortened(kind)));
    };
    for name in *names {
        match members.get(*name) {
            None => return Err(format!("has no `{name}`")),
            Some(Value::String(text)) if *name == "crv" || is_base64url(text) => {}
            Some(Value::String(_)) => return Err(format!("has a `{name}` that is not base64url")),
            Some(_) => return Err(format!("has a `{name}` that is not a string")),
        }
    }
    Ok(())
}

fn is_base64url(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
