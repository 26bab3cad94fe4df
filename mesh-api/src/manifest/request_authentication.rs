//! RequestAuthentication (SEMANTICS section 7).
//!
//! Refused is what Istio refuses. What Istio takes and cannot work, because no token will ever be found or
//! no header ever written, is told as a warning.

use super::fields::Fields;
use super::input::Input;
use super::report::{Report, shortened};
use super::tree::{Found, Place};
use super::{jwks, meta};
use crate::model::{JwtRule, KeySource, RequestAuthentication};

/// Most rules, most claims that are split, and the longest address of keys (SEMANTICS 7.1).
const RULES_MAX: usize = 4096;
const SPACE_DELIMITED_MAX: usize = 64;
const URI_CHARACTERS_MAX: usize = 2048;
/// Time allowed for fetching keys, in milliseconds, unless stated (SEMANTICS 7.1).
const TIMEOUT_MS: u64 = 5_000;
const RULE: [&str; 13] = [
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
];
/// Headers that the proxy writes itself, because they say where a message ends or whom it is for.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
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
    }
    RequestAuthentication { meta: input.meta, selector, targets, jwt_rules }
}

fn rule(place: Place<'_>, report: &mut Report) -> JwtRule {
    let fields = place.fields(&RULE, report);
    let texts = |name: &str, report: &mut Report| {
        fields.get(name).map(|place| place.texts(report)).unwrap_or_default()
    };
    let (issuer, jwks_uri, jwks) = keys(fields, report);
    let space_delimited_claims = texts("spaceDelimitedClaims", report);
    if space_delimited_claims.len() > SPACE_DELIMITED_MAX
        && let Some(place) = fields.get("spaceDelimitedClaims")
    {
        report.error(place, format!("at most {SPACE_DELIMITED_MAX} claims are allowed"), "");
    }
    let forward = fields.get("forwardOriginalToken").and_then(|place| place.boolean(report));
    let rule = JwtRule {
        issuer,
        audiences: texts("audiences", report),
        jwks_uri,
        jwks,
        from_headers: from_headers(fields, report),
        from_params: texts("fromParams", report),
        from_cookies: texts("fromCookies", report),
        forward_original_token: forward.unwrap_or_default(),
        output_payload_to_header: output_payload(fields, report),
        output_claim_to_headers: output_claims(fields, report),
        timeout_ms: fields.get("timeout").and_then(|place| place.duration(report)).unwrap_or(TIMEOUT_MS),
        space_delimited_claims,
    };
    warn_of_hidden_locations(fields, &rule, report);
    rule
}

/// Issuer, address of keys and keys in line: what tokens are verified with.
fn keys(fields: Fields<'_>, report: &mut Report) -> (String, String, String) {
    let place = fields.place;
    let issuer_place = fields.get("issuer");
    let issuer = issuer_place.and_then(|place| place.text(report)).unwrap_or_default().to_owned();
    if fields.stated(&["jwksUri", "jwks_uri"]) > 1 {
        report.error(place, "jwks_uri is another name of jwksUri; only one may be set", "Remove jwks_uri.");
    }
    if fields.stated(&["jwksUri", "jwks_uri"]) > 0 && fields.stated(&["jwks"]) > 0 {
        report.error(place, "only one of jwksUri and jwks may be set", "Remove one of them.");
    }
    let jwks_uri = fields.get("jwksUri").or(fields.get("jwks_uri"));
    let jwks_uri = jwks_uri.and_then(|place| uri(place, report)).unwrap_or_default().to_owned();
    let jwks = fields.get("jwks").and_then(|place| key_set(place, report)).unwrap_or_default().to_owned();
    if issuer.is_empty()
        && fields.stated(&["jwksUri", "jwks_uri"]) == 0
        && matches!(place.found(), Found::Map)
    {
        match issuer_place {
            Some(place) => {
                report.error(place, "must not be empty without jwksUri", "State issuer or jwksUri.")
            }
            None => report.missing(place, "issuer", "State issuer or jwksUri."),
        }
    }
    if let Some(place) = issuer_place
        && !issuer.is_empty()
        && fields.stated(&["jwksUri", "jwks_uri", "jwks"]) == 0
        && not_http(&issuer).is_some()
    {
        let rule = JwtRule { issuer: issuer.clone(), ..JwtRule::default() };
        let message = match rule.key_source() {
            KeySource::Discovery(url) => {
                format!("keys are looked for at {}, which is not a URL", shortened(&url))
            }
            KeySource::Inline | KeySource::Jwks(_) => "keys cannot be fetched".to_owned(),
        };
        report.warn(place, message, "State jwksUri or jwks; until then every token is refused.");
    }
    (issuer, jwks_uri, jwks)
}

fn uri<'t>(place: Place<'t>, report: &mut Report) -> Option<&'t str> {
    let text = place.non_empty(report)?;
    if text.chars().count() > URI_CHARACTERS_MAX {
        report.error(place, format!("may have {URI_CHARACTERS_MAX} characters at most"), "");
        return None;
    }
    if let Some(reason) = not_http(text) {
        let message = format!("{:?} is not an http or https URL: {reason}", shortened(text));
        report.error(place, message, "Write https://HOST/PATH.");
        return None;
    }
    Some(text)
}

/// Why a text is not an absolute http or https URL with a host (RFC 3986 section 3).
fn not_http(text: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = text.split_once("://") else { return Some("it has no scheme") };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Some("keys are fetched by http and https only");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("it holds white space");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':').unwrap_or(port)),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    if name.is_empty() {
        return Some("it has no host");
    }
    (!port.bytes().all(|b| b.is_ascii_digit())).then_some("its port is not a number")
}

fn key_set<'t>(place: Place<'t>, report: &mut Report) -> Option<&'t str> {
    if matches!(place.found(), Found::Map) {
        let hint = "Put the JSON in a string: `jwks: |`, and the JSON indented on the next lines.";
        report.error(place, "must be a string, found a map", hint);
        return None;
    }
    let text = place.text(report)?;
    if text.is_empty() {
        report.warn(place, "is empty and the same as none", "Remove it.");
    } else {
        jwks::check(place, text, report);
    }
    Some(text)
}

fn from_headers(fields: Fields<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut locations = Vec::new();
    for item in fields.get("fromHeaders").map(|place| place.items(report)).unwrap_or_default() {
        let fields = item.fields(&["name", "prefix"], report);
        let name_place = fields.required("name", "Name the header.", report);
        let name = name_place.and_then(|place| place.non_empty(report));
        let prefix = fields.get("prefix").map_or(Some(""), |place| place.text(report));
        if let (Some(place), Some(text)) = (name_place, name)
            && !is_token(text)
        {
            let message = format!("no header is named {:?}, so that no token is found", shortened(text));
            report.warn(place, message, "Name a header.");
        }
        locations.extend(name.zip(prefix).map(|(name, prefix)| (name.to_owned(), prefix.to_owned())));
    }
    locations
}

fn output_payload(fields: Fields<'_>, report: &mut Report) -> String {
    let Some(place) = fields.get("outputPayloadToHeader") else { return String::new() };
    let Some(name) = place.text(report) else { return String::new() };
    if !name.is_empty() {
        warn_of_framing(place, name, report);
    }
    name.to_owned()
}

fn output_claims(fields: Fields<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut outputs = Vec::new();
    for item in fields.get("outputClaimToHeaders").map(|place| place.items(report)).unwrap_or_default() {
        let fields = item.fields(&["header", "claim"], report);
        let header = fields.required("header", "Name the header.", report);
        let header = header.and_then(|place| {
            let name = place.non_empty(report)?;
            if name.bytes().any(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))) {
                let message = format!("{:?} is not the name of a header", shortened(name));
                report.error(place, message, "Letters, digits, '-' and '_' are allowed.");
                return None;
            }
            warn_of_framing(place, name, report);
            Some(name)
        });
        let claim = fields.required("claim", "Name the claim.", report);
        let claim = claim.and_then(|place| place.non_empty(report));
        outputs.extend(header.zip(claim).map(|(header, claim)| (header.to_owned(), claim.to_owned())));
    }
    outputs
}

fn warn_of_framing(place: Place<'_>, name: &str, report: &mut Report) {
    if !is_token(name) || FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
        let message =
            format!("{:?} is not a header that a token may fill; nothing is written", shortened(name));
        report.warn(place, message, "Name another header.");
    }
}

/// A header that the rule fills is removed before tokens are looked for, so that none is found there.
fn warn_of_hidden_locations(fields: Fields<'_>, rule: &JwtRule, report: &mut Report) {
    let claims = rule.output_claim_to_headers.iter().map(|(header, _)| header);
    let outputs: Vec<&String> = claims.chain([&rule.output_payload_to_header]).collect();
    let is_output = |name: &str| outputs.iter().any(|output| output.eq_ignore_ascii_case(name));
    let has_locations =
        ["fromHeaders", "fromParams", "fromCookies"].iter().any(|name| fields.get(name).is_some());
    let hidden = match rule.from_headers.iter().find(|(name, _)| is_output(name)) {
        Some((name, _)) => Some(name.as_str()),
        None => (!has_locations && is_output("authorization")).then_some("authorization"),
    };
    if let Some(name) = hidden {
        let place = fields.get("fromHeaders").unwrap_or(fields.place);
        let message = format!("no token is found in {name}: it is filled from the token, and removed before");
        report.warn(place, message, "Fill another header.");
    }
}

/// The name of a header (RFC 9110 section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::not_http;
    use crate::manifest::{LowerContext, parse};

    #[test]
    fn urls_of_keys_are_absolute_and_name_a_host() {
        for good in [
            "https://a",
            "http://a/b",
            "HTTPS://a.example:8443/keys?x=y",
            "https://[fd00::1]/k",
            "https://[fd00::1]:443/k",
            "https://user:secret@a/k",
        ] {
            assert_eq!(not_http(good), None, "{good}");
        }
        for bad in [
            "",
            "a",
            "a.example/k",
            "//a/k",
            "ftp://a",
            "file:///a",
            "https://",
            "https:///k",
            "https://:1/k",
            "https://a:x/k",
            "https://a b",
            "javascript://a",
        ] {
            assert!(not_http(bad).is_some(), "{bad}");
        }
    }

    /// Whether a policy with these rules is taken.
    fn is_taken(rules: &str) -> bool {
        let head =
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\nspec:\n";
        let documents =
            parse("f.yaml", &format!("{head}  jwtRules:\n{rules}"), &LowerContext::default()).documents;
        documents.len() == 1 && documents[0].outcome.is_ok()
    }

    #[test]
    fn limits_hold_at_their_last_value_and_refuse_the_next() {
        let rules = |count: usize| "  - issuer: https://a\n".repeat(count);
        assert!(is_taken(&rules(4096)) && !is_taken(&rules(4097)));
        let claims = |count: usize| {
            format!("  - issuer: https://a\n    spaceDelimitedClaims: [{}]\n", vec!["a"; count].join(", "))
        };
        assert!(is_taken(&claims(64)) && !is_taken(&claims(65)));
        let uri = |length: usize| {
            let path = "a".repeat(length - "https://a/".len());
            format!("  - issuer: https://a\n    jwksUri: https://a/{path}\n")
        };
        assert!(is_taken(&uri(2048)) && !is_taken(&uri(2049)));
    }
}
