//! One entry of a VirtualService's `http` (SEMANTICS 10.3).

use super::fields::Fields;
use super::input::Input;
use super::report::Report;
use super::shape::Shape;
use super::traffic_policy::unenforced_field;
use super::tree::{Found, Place};
use super::{host, http_match};
use crate::model::destination::{HttpRoute, Retries, WeightedTarget};
use crate::name::kubernetes::dns_label;

const FIELDS: [&str; 17] = [
    "name",
    "match",
    "route",
    "redirect",
    "directResponse",
    "delegate",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrors",
    "mirrorPercent",
    "mirrorPercentage",
    "corsPolicy",
    "headers",
    "mirror_percent",
];
/// Conditions of `retryOn` by name; HTTP statuses may stand beside them.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

const PERCENTAGE: Shape = Shape::Object(&[("value", Shape::Number(0.0, 100.0))]);
const DESTINATION: Shape = Shape::Object(&[
    ("host", Shape::Text),
    ("subset", Shape::Text),
    ("port", Shape::Object(&[("number", Shape::Count)])),
]);
const STRING_MATCH: Shape =
    Shape::Object(&[("exact", Shape::Text), ("prefix", Shape::Text), ("regex", Shape::Text)]);
const HEADER_OPERATIONS: Shape = Shape::Object(&[
    ("set", Shape::Map(&Shape::Text)),
    ("add", Shape::Map(&Shape::Text)),
    ("remove", Shape::List(&Shape::Text)),
]);
const HEADERS: Shape = Shape::Object(&[("request", HEADER_OPERATIONS), ("response", HEADER_OPERATIONS)]);
const FAULT: Shape = Shape::Object(&[
    (
        "delay",
        Shape::Object(&[
            ("fixedDelay", Shape::Duration),
            ("percentage", PERCENTAGE),
            ("percent", Shape::Number(0.0, 100.0)),
        ]),
    ),
    (
        "abort",
        Shape::Object(&[
            ("httpStatus", Shape::Number(200.0, 600.0)),
            ("grpcStatus", Shape::Text),
            ("http2Error", Shape::Text),
            ("percentage", PERCENTAGE),
        ]),
    ),
]);
const CORS: Shape = Shape::Object(&[
    ("allowOrigin", Shape::List(&Shape::Text)),
    ("allowOrigins", Shape::List(&STRING_MATCH)),
    ("allowMethods", Shape::List(&Shape::Text)),
    ("allowHeaders", Shape::List(&Shape::Text)),
    ("exposeHeaders", Shape::List(&Shape::Text)),
    ("maxAge", Shape::Duration),
    ("allowCredentials", Shape::Boolean),
    ("unmatchedPreflights", Shape::OneOf(&["UNSPECIFIED", "FORWARD", "IGNORE"])),
]);
const REWRITE: Shape = Shape::Object(&[
    ("uri", Shape::Text),
    ("authority", Shape::Text),
    ("uriRegexRewrite", Shape::Object(&[("match", Shape::Text), ("rewrite", Shape::Text)])),
]);
const REDIRECT: Shape = Shape::Object(&[
    ("uri", Shape::Text),
    ("prefixRewrite", Shape::Text),
    ("authority", Shape::Text),
    ("port", Shape::Count),
    ("derivePort", Shape::OneOf(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
    ("scheme", Shape::OneOf(&["http", "https"])),
    ("redirectCode", Shape::Number(300.0, 399.0)),
]);
const DIRECT_RESPONSE: Shape = Shape::Object(&[
    ("status", Shape::Number(200.0, 599.0)),
    ("body", Shape::Object(&[("string", Shape::Text), ("bytes", Shape::Text)])),
]);
const DELEGATE: Shape = Shape::Object(&[("name", Shape::Text), ("namespace", Shape::Text)]);
const MIRROR: Shape = Shape::Object(&[("destination", DESTINATION), ("percentage", PERCENTAGE)]);

/// Reads one route. `None` when it is for gateways only.
pub(super) fn read(place: Place<'_>, input: &Input<'_, '_>, report: &mut Report) -> Option<HttpRoute> {
    let fields = place.fields(&FIELDS, report);
    let name = fields.get("name").and_then(|place| place.text(report)).unwrap_or_default().to_owned();
    let read = fields.get("match").map(|place| place.items(report)).unwrap_or_default();
    let had_matches = !read.is_empty();
    let matches: Vec<_> = read
        .into_iter()
        .map(|place| http_match::read(place, report))
        .filter(|read| !read.is_for_gateways_only)
        .map(|read| read.entry)
        .collect();
    let targets = fields.get("route").map(|place| targets(place, input, report)).unwrap_or_default();
    check_actions(fields, report);
    unenforced(fields, report);
    let route = HttpRoute {
        name,
        matches,
        targets,
        timeout_ms: fields.get("timeout").and_then(|place| place.duration(report)),
        retries: fields.get("retries").and_then(|place| retries(place, report)),
    };
    // Without its matches the route must not become one that matches everything.
    (!had_matches || !route.matches.is_empty()).then_some(route)
}

/// Which fields may stand together (SEMANTICS 10.3).
fn check_actions(fields: Fields<'_>, report: &mut Report) {
    let place = fields.place;
    let actions = ["route", "redirect", "directResponse", "delegate"];
    match fields.stated(&actions) {
        0 if matches!(place.found(), Found::Map) => {
            report.error(
                place,
                "says nowhere to go",
                "State one of route, redirect, directResponse and delegate.",
            );
        }
        0 | 1 => {}
        _ => report.error(place, "only one of route, redirect, directResponse and delegate may be set", ""),
    }
    for action in ["redirect", "directResponse", "delegate"] {
        for other in ["fault", "rewrite"] {
            if action != "delegate"
                && fields.get(action).is_some()
                && let Some(other_place) = fields.get(other)
            {
                report.error(other_place, format!("cannot stand beside {action}"), "");
            }
        }
    }
    if let (Some(_), Some(place)) = (fields.get("mirror"), fields.get("mirrors")) {
        report.error(place, "cannot stand beside mirror", "");
    }
}

/// Fields that have no effect yet.
fn unenforced(fields: Fields<'_>, report: &mut Report) {
    let answered = "requests that it matches are answered 503";
    let all = [
        ("redirect", REDIRECT, answered),
        ("directResponse", DIRECT_RESPONSE, answered),
        ("delegate", DELEGATE, answered),
        ("rewrite", REWRITE, "path and authority are forwarded as they came"),
        ("fault", FAULT, "no faults are injected"),
        ("mirror", DESTINATION, "nothing is mirrored"),
        ("mirrors", Shape::List(&MIRROR), "nothing is mirrored"),
        ("mirrorPercent", Shape::Number(0.0, 100.0), "nothing is mirrored"),
        ("mirror_percent", Shape::Number(0.0, 100.0), "nothing is mirrored"),
        ("mirrorPercentage", PERCENTAGE, "nothing is mirrored"),
        ("corsPolicy", CORS, "the application answers preflight requests itself"),
        ("headers", HEADERS, "headers are forwarded as they came"),
    ];
    for (name, shape, effect) in all {
        unenforced_field(fields, (name, shape), effect, report);
    }
}

fn targets(place: Place<'_>, input: &Input<'_, '_>, report: &mut Report) -> Vec<WeightedTarget> {
    let items = place.items(report);
    if items.is_empty() && matches!(place.found(), Found::List) {
        report.error(place, "must name a destination", "");
    }
    let is_single = items.len() == 1;
    let mut targets = Vec::new();
    let mut weights: u64 = 0;
    for item in items {
        let fields = item.fields(&["destination", "weight", "headers"], report);
        unenforced_field(fields, ("headers", HEADERS), "headers are forwarded as they came", report);
        let weight = fields.get("weight").map(|place| place.integer(0..=i64::from(i32::MAX), report));
        let weight = weight.map_or(Some(0), |weight| weight.and_then(|weight| u32::try_from(weight).ok()));
        weights += u64::from(weight.unwrap_or(1));
        let destination = fields.required("destination", "State destination.host.", report);
        let destination = destination.and_then(|place| target(place, input, report));
        if let (Some(target), Some(weight)) = (destination, weight) {
            targets.push(WeightedTarget { weight, ..target });
        }
    }
    if !is_single && weights == 0 && !targets.is_empty() {
        report.error(place, "the weights of several destinations add up to 0", "State weight for each.");
    }
    targets
}

fn target(place: Place<'_>, input: &Input<'_, '_>, report: &mut Report) -> Option<WeightedTarget> {
    let fields = place.fields(&["host", "subset", "port"], report);
    let port = fields.get("port").map(|place| {
        let fields = place.fields(&["number"], report);
        fields.required("number", "State the service's port.", report)?.port(report)
    });
    let parsed = |text: &str| dns_label("subset", text).map(str::to_owned);
    let subset = fields.get("subset").map(|place| place.parsed(parsed, report));
    let host = fields.required("host", "Name the service.", report)?;
    let resolved = host::resolved(host, &input.meta.object.namespace, input.context, report)?;
    if resolved.is_wildcard() {
        report.error(host, "a destination cannot be a wildcard", "Name one host.");
        return None;
    }
    // `Some(None)` was stated and refused.
    let (port, subset) = match (port, subset) {
        (Some(None), _) | (_, Some(None)) => return None,
        (port, subset) => (port.flatten(), subset.flatten()),
    };
    Some(WeightedTarget { host: resolved, port, subset, weight: 0 })
}

fn retries(place: Place<'_>, report: &mut Report) -> Option<Retries> {
    let others = ["perTryTimeout", "retryOn", "retryRemoteLocalities", "retryIgnorePreviousHosts", "backoff"];
    let known: Vec<&str> = ["attempts"].into_iter().chain(others).collect();
    let fields = place.fields(&known, report);
    if !matches!(place.found(), Found::Map) {
        return None;
    }
    let attempts =
        fields.get("attempts").map_or(Some(0), |place| place.integer(0..=i64::from(i32::MAX), report));
    if attempts == Some(0) && fields.stated(&others) > 0 {
        let place = fields.get("attempts").unwrap_or(place);
        report.error(place, "0 attempts cannot have further options", "State attempts of at least 1.");
    }
    let unenforced = [
        ("retryRemoteLocalities", Shape::Boolean, "localities are not told apart"),
        ("retryIgnorePreviousHosts", Shape::Boolean, "other endpoints are always preferred"),
        ("backoff", Shape::Duration, "the default back-off holds"),
    ];
    for (name, shape, effect) in unenforced {
        unenforced_field(fields, (name, shape), effect, report);
    }
    let retry_on = fields.get("retryOn").map(|place| retry_on(place, report)).unwrap_or_default();
    Some(Retries {
        attempts: attempts.and_then(|attempts| u32::try_from(attempts).ok())?,
        per_try_timeout_ms: fields.get("perTryTimeout").and_then(|place| place.duration(report)),
        retry_on,
    })
}

fn retry_on(place: Place<'_>, report: &mut Report) -> Vec<String> {
    let Some(text) = place.text(report) else { return Vec::new() };
    let mut conditions = Vec::new();
    for condition in text.split(',').filter(|_| !text.is_empty()) {
        let is_status = condition.len() == 3
            && condition.bytes().all(|b| b.is_ascii_digit())
            && condition.parse().is_ok_and(|status: u16| (100..600).contains(&status));
        if is_status || RETRY_ON.contains(&condition) {
            conditions.push(condition.to_owned());
            continue;
        }
        let hint = match super::report::nearest(condition, RETRY_ON) {
            Some(near) if condition.trim() == near => "Write the list without spaces.".to_owned(),
            Some(near) => format!("Did you mean {near}?"),
            None => "Write conditions or HTTP statuses, separated by commas without spaces.".to_owned(),
        };
        let condition = super::report::shortened(condition);
        report.error(place, format!("{condition:?} is not a condition for a retry"), hint);
    }
    conditions
}
