//! `match` of an HTTP route (SEMANTICS 10.2).

use super::meta;
use super::report::Report;
use super::tree::{Found, Place};
use crate::model::destination::{HttpMatch, StringMatch};
use crate::name::Namespace;

const FIELDS: [&str; 14] = [
    "name",
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "withoutHeaders",
    "queryParams",
    "ignoreUriCase",
    "port",
    "sourceLabels",
    "sourceNamespace",
    "gateways",
    "statPrefix",
];
/// Longest expression, in bytes (SEMANTICS 10.2).
const EXPRESSION_BYTES_MAX: usize = 1024;
/// Largest compiled expression, in bytes: what the proxy allows.
const EXPRESSION_SIZE_MAX: usize = 1 << 20;
/// Headers of this prefix are claims, at gateways.
const CLAIM_PREFIX: &str = "@request.auth.claims";

/// A match, and whether it is for sidecars at all.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) entry: HttpMatch,
    /// `gateways` does not name the mesh, so no sidecar looks at it.
    pub(super) is_for_gateways_only: bool,
}

/// Reads one entry of `match`.
pub(super) fn read(place: Place<'_>, report: &mut Report) -> Read {
    let fields = place.fields(&FIELDS, report);
    let one = |name: &str, empty: EmptyPrefix, report: &mut Report| {
        fields.get(name).and_then(|place| string_match(place, empty, report))
    };
    let gateways = fields.get("gateways").map(|place| place.texts(report));
    if let Some(place) = fields.get("statPrefix") {
        place.text(report);
        report.not_enforced(place, "metrics have Istio's standard names");
    }
    let text = |name: &str, report: &mut Report| fields.get(name).and_then(|place| place.text(report));
    text("name", report);
    let entry = HttpMatch {
        uri: one("uri", EmptyPrefix::Allowed, report),
        ignore_uri_case: fields
            .get("ignoreUriCase")
            .and_then(|place| place.boolean(report))
            .unwrap_or_default(),
        method: one("method", EmptyPrefix::Refused, report),
        authority: one("authority", EmptyPrefix::Refused, report),
        scheme: one("scheme", EmptyPrefix::Refused, report),
        headers: named(fields.get("headers"), Name::Header, report),
        without_headers: named(fields.get("withoutHeaders"), Name::Header, report),
        query_params: named(fields.get("queryParams"), Name::Parameter, report),
        port: fields.get("port").and_then(|place| place.port(report)),
        source_labels: fields
            .get("sourceLabels")
            .map(|place| meta::labels(place, report))
            .unwrap_or_default(),
        source_namespace: fields
            .get("sourceNamespace")
            .and_then(|place| place.parsed(Namespace::parse, report))
            .map(|namespace| namespace.as_str().to_owned()),
    };
    if entry.ignore_uri_case && entry.uri.is_none() {
        let place = fields.get("ignoreUriCase").unwrap_or(place);
        report.warn(place, "has no effect without uri", "Add uri, or remove it.");
    }
    let is_for_gateways_only = gateways.is_some_and(|names| !names.iter().any(|name| name == "mesh"));
    Read { entry, is_for_gateways_only }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EmptyPrefix {
    Allowed,
    Refused,
}

/// `{exact: …}`, `{prefix: …}` or `{regex: …}`.
fn string_match(place: Place<'_>, empty: EmptyPrefix, report: &mut Report) -> Option<StringMatch> {
    if let Found::Scalar(_, text) = place.found()
        && !text.is_empty()
    {
        let text = super::report::shortened(text);
        report.error(place, "must be a map with exact, prefix or regex", format!("Write {{exact: {text}}}."));
        return None;
    }
    let fields = place.fields(&["exact", "prefix", "regex"], report);
    if !matches!(place.found(), Found::Map) {
        return None;
    }
    if fields.stated(&["exact", "prefix", "regex"]) != 1 {
        report.error(place, "must state one of exact, prefix and regex", "");
        return None;
    }
    let text = |name: &str, report: &mut Report| match empty {
        EmptyPrefix::Allowed => fields.get(name).and_then(|place| place.text(report)),
        EmptyPrefix::Refused => fields.get(name).and_then(|place| place.non_empty(report)),
    };
    if fields.get("exact").is_some() {
        return text("exact", report).map(|text| StringMatch::Exact(text.to_owned()));
    }
    if fields.get("prefix").is_some() {
        return text("prefix", report).map(|text| StringMatch::Prefix(text.to_owned()));
    }
    fields.get("regex").and_then(|place| expression(place, report)).map(StringMatch::Regex)
}

/// An RE2 expression, as the proxy will compile it: on bytes, and bounded.
fn expression(place: Place<'_>, report: &mut Report) -> Option<String> {
    let text = place.non_empty(report)?;
    if text.len() > EXPRESSION_BYTES_MAX {
        report.error(place, format!("an expression may have {EXPRESSION_BYTES_MAX} characters at most"), "");
        return None;
    }
    if text == "*" {
        report.error(place, "* alone is not an expression", "Write {} to test that the header is present.");
        return None;
    }
    let built = regex::bytes::RegexBuilder::new(text)
        .unicode(false)
        .size_limit(EXPRESSION_SIZE_MAX)
        .dfa_size_limit(EXPRESSION_SIZE_MAX)
        .build();
    match built {
        Ok(_) => Some(text.to_owned()),
        Err(error) => {
            // The parser's message draws the expression over several lines; its last line is the reason.
            let full = error.to_string();
            let reason = full.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            report.error(place, format!("is not an RE2 expression: {reason}"), "");
            None
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Header,
    Parameter,
}

/// Tests by name; an empty test is one for presence.
fn named(place: Option<Place<'_>>, name: Name, report: &mut Report) -> Vec<(String, StringMatch)> {
    let Some(place) = place else { return Vec::new() };
    let mut tests = Vec::new();
    for entry in place.entries(report) {
        let is_header = entry.name().bytes().all(|b| b.is_ascii_graphic());
        if name == Name::Header && entry.name().starts_with(CLAIM_PREFIX) {
            report.not_enforced(entry, "claims route at gateways only, so nothing matches");
        } else if name == Name::Header && !is_header {
            report.error(entry, "is not the name of a header", "");
        }
        let is_empty = matches!(entry.found(), Found::Map) && entry.children().len() == 0;
        let test = if is_empty || entry.is_null() {
            Some(StringMatch::Present)
        } else {
            string_match(entry, EmptyPrefix::Allowed, report)
        };
        let key = match name {
            Name::Header => entry.name().to_ascii_lowercase(),
            Name::Parameter => entry.name().to_owned(),
        };
        tests.extend(test.map(|test| (key, test)));
    }
    tests
}
