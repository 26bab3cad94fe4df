//! RequestAuthentication (SEMANTICS section 7).

use super::input::Input;
use super::meta;
use super::report::{Report, shortened};
use super::tree::Place;
use crate::model::{JwtRule, RequestAuthentication};

/// Most rules, most claims that are split, and the longest address of keys (SEMANTICS 7.1).
const RULES_MAX: usize = 4096;
const SPACE_DELIMITED_MAX: usize = 64;
const URI_BYTES_MAX: usize = 2048;
/// Time allowed for fetching keys, in milliseconds, unless stated (SEMANTICS 7.1).
const TIMEOUT_MS: u64 = 5_000;
const RULE: [&str; 14] = [
    "issuer",
    "audiences",
    "jwksUri",
    "jwks_uri",
    "jwks",
    "fromHeaders",
    "fromParams",
    "fromCookies",
    "forwardOriginalToken",
    "outputPayloadToHeader",
    "outputClaimToHeaders",
    "timeout",
    "spaceDelimitedClaims",
    "triggerRules",
];

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> RequestAuthentication {
    let spec = input.spec.fields(&["selector", "targetRef", "targetRefs", "jwtRules"], report);
    let selector = meta::selector(spec, report);
    let targets = meta::targets(spec, report);
    let mut jwt_rules = Vec::new();
    if let Some(place) = spec.get("jwtRules") {
        let items = place.items(report);
        if items.len() > RULES_MAX {
            report.error(place, format!("has {} rules, at most {RULES_MAX} are allowed", items.len()), "");
        } else {
            jwt_rules = items.into_iter().map(|place| rule(place, report)).collect();
        }
        if !jwt_rules.is_empty() {
            let effect =
                "tokens are not verified, so rules on requestPrincipals and request.auth match nothing";
            report.not_enforced(place, effect);
        }
    }
    RequestAuthentication { meta: input.meta, selector, targets, jwt_rules }
}

fn rule(place: Place<'_>, report: &mut Report) -> JwtRule {
    let fields = place.fields(&RULE, report);
    let text = |name: &str, report: &mut Report| {
        fields.get(name).and_then(|place| place.non_empty(report)).unwrap_or_default().to_owned()
    };
    let texts = |name: &str, report: &mut Report| {
        fields.get(name).map(|place| place.texts(report)).unwrap_or_default()
    };
    if fields.stated(&["jwksUri", "jwks_uri"]) > 1 {
        report.error(place, "jwks_uri is another name of jwksUri; only one may be set", "Remove jwks_uri.");
    }
    let uri_place = fields.get("jwksUri").or(fields.get("jwks_uri"));
    if let Some(place) = uri_place {
        uri(place, report);
    }
    if fields.stated(&["jwksUri", "jwks_uri"]) > 0 && fields.stated(&["jwks"]) > 0 {
        report.error(place, "only one of jwksUri and jwks may be set", "");
    }
    if fields.stated(&["issuer", "jwksUri", "jwks_uri"]) == 0 {
        report.missing(place, "issuer", "State issuer or jwksUri.");
    }
    if let Some(place) = fields.get("jwks") {
        keys(place, report);
    }
    if let Some(place) = fields.get("triggerRules") {
        report.error(place, "is not supported", "Remove it.");
    }
    let space_delimited_claims = texts("spaceDelimitedClaims", report);
    if space_delimited_claims.len() > SPACE_DELIMITED_MAX
        && let Some(place) = fields.get("spaceDelimitedClaims")
    {
        report.error(place, format!("at most {SPACE_DELIMITED_MAX} claims are allowed"), "");
    }
    JwtRule {
        issuer: text("issuer", report),
        audiences: texts("audiences", report),
        jwks_uri: uri_place.and_then(|place| place.text(report)).unwrap_or_default().to_owned(),
        jwks: text("jwks", report),
        from_headers: pairs(fields.get("fromHeaders"), ("name", "prefix"), Second::Optional, report),
        from_params: texts("fromParams", report),
        from_cookies: texts("fromCookies", report),
        forward_original_token: fields
            .get("forwardOriginalToken")
            .and_then(|place| place.boolean(report))
            .unwrap_or_default(),
        output_payload_to_header: text("outputPayloadToHeader", report),
        output_claim_to_headers: pairs(
            fields.get("outputClaimToHeaders"),
            ("header", "claim"),
            Second::Required,
            report,
        ),
        timeout_ms: fields.get("timeout").and_then(|place| place.duration(report)).unwrap_or(TIMEOUT_MS),
        space_delimited_claims,
    }
}

fn uri(place: Place<'_>, report: &mut Report) {
    let Some(text) = place.non_empty(report) else { return };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']));
    if text.len() > URI_BYTES_MAX {
        report.error(place, format!("may have {URI_BYTES_MAX} characters at most"), "");
    } else if !has_host || text.contains(char::is_whitespace) {
        report.error(place, format!("{:?} is not an http or https URL", shortened(text)), "");
    }
}

/// A key set in line: JSON with a list of keys, and no private ones.
fn keys(place: Place<'_>, report: &mut Report) {
    let Some(text) = place.non_empty(report) else { return };
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            report.error(place, format!("is not JSON: {error}"), "");
            return;
        }
    };
    let Some(keys) = value.get("keys").and_then(serde_json::Value::as_array) else {
        report.error(place, "is not a key set: it has no list `keys`", "");
        return;
    };
    // RFC 7518 section 6: `d` holds the private part of RSA and elliptic keys, `k` a shared secret.
    if keys.iter().any(|key| key.get("d").is_some() || key.get("k").is_some()) {
        report.warn(place, "holds private or shared keys", "Publish public keys only.");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    Optional,
    Required,
}

fn pairs(
    place: Option<Place<'_>>,
    (first, second): (&str, &str),
    need: Second,
    report: &mut Report,
) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for item in place.map(|place| place.items(report)).unwrap_or_default() {
        let fields = item.fields(&[first, second], report);
        let head = fields.required(first, "Name the header.", report);
        let head = head.and_then(|place| header(place, report));
        let tail = match (fields.get(second), need) {
            (Some(place), Second::Required) => place.non_empty(report),
            (Some(place), Second::Optional) => place.text(report),
            (None, Second::Optional) => Some(""),
            (None, Second::Required) => {
                report.missing(item, second, "Name the claim.");
                None
            }
        };
        pairs.extend(head.zip(tail).map(|(head, tail)| (head.to_owned(), tail.to_owned())));
    }
    pairs
}

fn header<'t>(place: Place<'t>, report: &mut Report) -> Option<&'t str> {
    let text = place.non_empty(report)?;
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return Some(text);
    }
    report.error(place, format!("{:?} is not the name of a header", shortened(text)), "");
    None
}
