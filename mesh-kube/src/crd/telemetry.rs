//! `telemetry.istio.io`.

use super::Definition;
use super::schema::{PERCENT, SELECTOR, Shape, TARGET, TARGETS, UNBOUNDED};

const PROVIDERS: Shape = Shape::List(
    &Shape::Object(&[("name", Shape::Text, "Name of an extension provider in MeshConfig.")]),
    UNBOUNDED,
);
const MODE: Shape = Shape::OneOf(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]);
const MATCH: Shape = Shape::Object(&[("mode", MODE, "Which side of traffic. Default: both.")]);
const NAMED: Shape =
    Shape::Object(&[("name", Shape::Text, ""), ("defaultValue", Shape::Text, "Value where there is none.")]);
const METRIC: Shape = Shape::OneOf(&[
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
]);

const ACCESS_LOGGING: Shape = Shape::Object(&[
    ("providers", PROVIDERS, "Where records go."),
    ("match", MATCH, ""),
    ("disabled", Shape::Boolean, "Whether nothing is written."),
    (
        "filter",
        Shape::Object(&[("expression", Shape::Text, "CEL: response.code >= 400.")]),
        "Which requests are written. Absent: all.",
    ),
]);
const TRACING: Shape = Shape::Object(&[
    ("providers", PROVIDERS, ""),
    ("match", MATCH, ""),
    ("randomSamplingPercentage", PERCENT, ""),
    ("disableSpanReporting", Shape::Boolean, ""),
    (
        "customTags",
        Shape::Map(&Shape::Object(&[
            ("literal", Shape::Object(&[("value", Shape::Text, "")]), ""),
            ("environment", NAMED, ""),
            ("header", NAMED, ""),
            ("formatter", Shape::Object(&[("value", Shape::Text, "")]), ""),
        ])),
        "",
    ),
    ("useRequestIdForTraceSampling", Shape::Boolean, ""),
    ("enableIstioTags", Shape::Boolean, ""),
]);
const OVERRIDE: Shape = Shape::Object(&[
    (
        "match",
        Shape::Object(&[
            ("metric", METRIC, "Default: all of them."),
            ("customMetric", Shape::Text, ""),
            ("mode", MODE, "Which side of traffic. Default: both."),
        ]),
        "",
    ),
    ("disabled", Shape::Boolean, "Whether the metric is not kept."),
    (
        "tagOverrides",
        Shape::Map(&Shape::Object(&[
            ("operation", Shape::OneOf(&["UPSERT", "REMOVE"]), "Default: UPSERT."),
            ("value", Shape::Text, "CEL expression of the label's value."),
        ])),
        "Labels that are added, changed or removed, by name.",
    ),
]);
const METRICS: Shape = Shape::Object(&[
    ("providers", PROVIDERS, ""),
    ("overrides", Shape::List(&OVERRIDE, UNBOUNDED), ""),
    ("reportingInterval", Shape::Duration, ""),
]);

/// Telemetry.
pub(super) const TELEMETRY: Definition = Definition {
    group: "telemetry.istio.io",
    kind: "Telemetry",
    plural: "telemetries",
    singular: "telemetry",
    short: "telemetry",
    versions: &["v1", "v1alpha1"],
    about: "What is logged and counted of the traffic of workloads.",
    spec: Shape::Object(&[
        ("selector", SELECTOR, "Workloads of the namespace for which it holds. Absent: all of them."),
        ("targetRef", TARGET, ""),
        ("targetRefs", TARGETS, ""),
        ("accessLogging", Shape::List(&ACCESS_LOGGING, UNBOUNDED), "Records of requests."),
        ("tracing", Shape::List(&TRACING, UNBOUNDED), "Spans."),
        ("metrics", Shape::List(&METRICS, UNBOUNDED), "Metrics and their labels."),
    ]),
    columns: &[],
};
