//! VirtualService.

use super::super::Definition;
use super::super::schema::{COUNT, Field, PERCENT, PORT, Shape, TEXT_MAP, TEXTS, UNBOUNDED};
use super::{GROUP, VERSIONS};

const PERCENTAGE: Shape = Shape::Object(&[("value", PERCENT, "")]);
const DESTINATION: Shape = Shape::Object(&[
    ("host", Shape::Text, "Name of the service."),
    ("subset", Shape::Text, "Subset of the service's DestinationRule."),
    (
        "port",
        Shape::Object(&[("number", COUNT, "Port of the service.")]),
        "Default: the port that was dialled.",
    ),
]);
const HEADER_OPERATIONS: Shape =
    Shape::Object(&[("set", TEXT_MAP, ""), ("add", TEXT_MAP, ""), ("remove", TEXTS, "")]);
const HEADERS: Shape =
    Shape::Object(&[("request", HEADER_OPERATIONS, ""), ("response", HEADER_OPERATIONS, "")]);
const WEIGHTED: Shape = Shape::Object(&[
    ("destination", DESTINATION, ""),
    ("weight", Shape::Integer(0, 2_147_483_647), "Share of the calls, beside the weights of the others."),
    ("headers", HEADERS, ""),
]);
const STRING_MATCH: Shape = Shape::Object(&[
    ("exact", Shape::Text, ""),
    ("prefix", Shape::Text, ""),
    ("regex", Shape::Text, "RE2 expression for the whole."),
]);
const HTTP_MATCH: Shape = Shape::Object(&[
    ("name", Shape::Text, ""),
    ("uri", STRING_MATCH, "Path, without the query."),
    ("scheme", STRING_MATCH, ""),
    ("method", STRING_MATCH, ""),
    ("authority", STRING_MATCH, ""),
    ("headers", Shape::Map(&STRING_MATCH), "Headers by name; {} tests that one is there."),
    ("withoutHeaders", Shape::Map(&STRING_MATCH), "Headers that must not match."),
    ("queryParams", Shape::Map(&STRING_MATCH), ""),
    ("ignoreUriCase", Shape::Boolean, ""),
    ("port", PORT, "Port that was dialled."),
    ("sourceLabels", TEXT_MAP, "Labels of the caller."),
    ("sourceNamespace", Shape::Text, "Namespace of the caller."),
    ("gateways", TEXTS, ""),
    ("statPrefix", Shape::Text, ""),
]);
const FAULT: Shape = Shape::Object(&[
    (
        "delay",
        Shape::Object(&[
            ("fixedDelay", Shape::Duration, ""),
            ("percentage", PERCENTAGE, ""),
            ("percent", PERCENT, ""),
        ]),
        "",
    ),
    (
        "abort",
        Shape::Object(&[
            ("httpStatus", Shape::Integer(200, 600), ""),
            ("grpcStatus", Shape::Text, ""),
            ("http2Error", Shape::Text, ""),
            ("percentage", PERCENTAGE, ""),
        ]),
        "",
    ),
]);
const CORS: Shape = Shape::Object(&[
    ("allowOrigin", TEXTS, ""),
    ("allowOrigins", Shape::List(&STRING_MATCH, UNBOUNDED), ""),
    ("allowMethods", TEXTS, ""),
    ("allowHeaders", TEXTS, ""),
    ("exposeHeaders", TEXTS, ""),
    ("maxAge", Shape::Duration, ""),
    ("allowCredentials", Shape::Boolean, ""),
    ("unmatchedPreflights", Shape::OneOf(&["UNSPECIFIED", "FORWARD", "IGNORE"]), ""),
]);
const REWRITE: Shape = Shape::Object(&[
    ("uri", Shape::Text, ""),
    ("authority", Shape::Text, ""),
    ("uriRegexRewrite", Shape::Object(&[("match", Shape::Text, ""), ("rewrite", Shape::Text, "")]), ""),
]);
const REDIRECT: Shape = Shape::Object(&[
    ("uri", Shape::Text, ""),
    ("prefixRewrite", Shape::Text, ""),
    ("authority", Shape::Text, ""),
    ("port", COUNT, ""),
    ("derivePort", Shape::OneOf(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]), ""),
    ("scheme", Shape::OneOf(&["http", "https"]), ""),
    ("redirectCode", Shape::Integer(300, 399), ""),
]);
const DIRECT_RESPONSE: Shape = Shape::Object(&[
    ("status", Shape::Integer(200, 599), ""),
    ("body", Shape::Object(&[("string", Shape::Text, ""), ("bytes", Shape::Text, "")]), ""),
]);
const RETRIES: Shape = Shape::Object(&[
    ("attempts", Shape::Integer(0, 2_147_483_647), "Retries at most; 0 for none."),
    ("perTryTimeout", Shape::Duration, ""),
    ("retryOn", Shape::Text, "Conditions or HTTP statuses, separated by commas."),
    ("retryRemoteLocalities", Shape::Boolean, ""),
    ("retryIgnorePreviousHosts", Shape::Boolean, ""),
    ("backoff", Shape::Duration, ""),
]);
const HTTP: Shape = Shape::Object(&[
    ("name", Shape::Text, ""),
    ("match", Shape::List(&HTTP_MATCH, UNBOUNDED), "One of them must match. Absent: every request."),
    ("route", Shape::List(&WEIGHTED, UNBOUNDED), "Where requests go."),
    ("redirect", REDIRECT, ""),
    ("directResponse", DIRECT_RESPONSE, ""),
    ("delegate", Shape::Object(&[("name", Shape::Text, ""), ("namespace", Shape::Text, "")]), ""),
    ("rewrite", REWRITE, ""),
    ("timeout", Shape::Duration, "For the whole request with its retries. Default: none."),
    ("retries", RETRIES, "Default: two for what was certainly not begun."),
    ("fault", FAULT, ""),
    ("mirror", DESTINATION, ""),
    (
        "mirrors",
        Shape::List(
            &Shape::Object(&[("destination", DESTINATION, ""), ("percentage", PERCENTAGE, "")]),
            UNBOUNDED,
        ),
        "",
    ),
    ("mirrorPercent", PERCENT, ""),
    ("mirror_percent", PERCENT, ""),
    ("mirrorPercentage", PERCENTAGE, ""),
    ("corsPolicy", CORS, ""),
    ("headers", HEADERS, ""),
]);
const L4_TARGETS: Shape =
    Shape::List(&Shape::Object(&[("destination", DESTINATION, ""), ("weight", COUNT, "")]), UNBOUNDED);
const L4_MATCH: &[Field] = &[
    ("destinationSubnets", TEXTS, ""),
    ("port", COUNT, ""),
    ("sourceLabels", TEXT_MAP, ""),
    ("sourceNamespace", Shape::Text, ""),
    ("gateways", TEXTS, ""),
    ("sourceSubnet", Shape::Text, ""),
];
const TLS_MATCH: &[Field] = &[
    ("sniHosts", TEXTS, ""),
    ("destinationSubnets", TEXTS, ""),
    ("port", COUNT, ""),
    ("sourceLabels", TEXT_MAP, ""),
    ("sourceNamespace", Shape::Text, ""),
    ("gateways", TEXTS, ""),
];
const TCP: Shape = Shape::Object(&[
    ("match", Shape::List(&Shape::Object(L4_MATCH), UNBOUNDED), ""),
    ("route", L4_TARGETS, ""),
]);
const TLS: Shape = Shape::Object(&[
    ("match", Shape::List(&Shape::Object(TLS_MATCH), UNBOUNDED), ""),
    ("route", L4_TARGETS, ""),
]);

/// VirtualService.
pub(in super::super) const VIRTUAL_SERVICE: Definition = Definition {
    group: GROUP,
    kind: "VirtualService",
    plural: "virtualservices",
    singular: "virtualservice",
    short: "vs",
    versions: VERSIONS,
    about: "Where requests for a host go.",
    spec: Shape::Object(&[
        ("hosts", TEXTS, "Hosts whose requests are routed."),
        ("gateways", TEXTS, "Default: mesh, every sidecar."),
        ("http", Shape::List(&HTTP, UNBOUNDED), "Routes of HTTP; the first that matches holds."),
        ("tls", Shape::List(&TLS, UNBOUNDED), ""),
        ("tcp", Shape::List(&TCP, UNBOUNDED), ""),
        ("exportTo", TEXTS, ""),
    ]),
    columns: &[("Hosts", "string", ".spec.hosts"), ("Gateways", "string", ".spec.gateways")],
};
