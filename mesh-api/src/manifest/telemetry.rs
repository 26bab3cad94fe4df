//! Telemetry (SEMANTICS 9.1).

use std::collections::BTreeMap;

use super::fields::Fields;
use super::input::Input;
use super::meta;
use super::report::{Report, shortened};
use super::tree::{Found, Place};
use crate::cel::Expression;
use crate::model::telemetry::{
    AccessLogging, CustomTag, MetricSelector, Metrics, MetricsOverride, StandardMetric, TagOverride,
    Telemetry, Tracing, WorkloadMode,
};

const MODES: [(&str, WorkloadMode); 3] = [
    ("CLIENT_AND_SERVER", WorkloadMode::ClientAndServer),
    ("CLIENT", WorkloadMode::Client),
    ("SERVER", WorkloadMode::Server),
];
const METRICS: [(&str, Option<StandardMetric>); 11] = [
    ("ALL_METRICS", None),
    ("REQUEST_COUNT", Some(StandardMetric::RequestCount)),
    ("REQUEST_DURATION", Some(StandardMetric::RequestDuration)),
    ("REQUEST_SIZE", Some(StandardMetric::RequestSize)),
    ("RESPONSE_SIZE", Some(StandardMetric::ResponseSize)),
    ("TCP_OPENED_CONNECTIONS", Some(StandardMetric::TcpOpenedConnections)),
    ("TCP_CLOSED_CONNECTIONS", Some(StandardMetric::TcpClosedConnections)),
    ("TCP_SENT_BYTES", Some(StandardMetric::TcpSentBytes)),
    ("TCP_RECEIVED_BYTES", Some(StandardMetric::TcpReceivedBytes)),
    ("GRPC_REQUEST_MESSAGES", Some(StandardMetric::GrpcRequestMessages)),
    ("GRPC_RESPONSE_MESSAGES", Some(StandardMetric::GrpcResponseMessages)),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Upsert,
    Remove,
}

const OPERATIONS: [(&str, Operation); 2] = [("UPSERT", Operation::Upsert), ("REMOVE", Operation::Remove)];

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Telemetry {
    let known = ["selector", "targetRef", "targetRefs", "accessLogging", "tracing", "metrics"];
    let spec = input.spec.fields(&known, report);
    let selector = meta::selector(spec, report);
    let targets = meta::targets(spec, report);
    let access_logging = entries(spec, "accessLogging", report);
    let access_logging =
        access_logging.into_iter().map(|place| access_logging_entry(place, report)).collect();
    let tracing = entries(spec, "tracing", report);
    if let Some(place) = spec.get("tracing") {
        if tracing.len() > 1 {
            let message = "multiple tracing entries: what later ones state overwrites the earlier ones";
            report.warn(place, message, "Write one entry.");
        }
        report.not_enforced(place, "no spans are reported");
    }
    let tracing = tracing.into_iter().map(|place| tracing_entry(place, report)).collect();
    let metrics = entries(spec, "metrics", report);
    let metrics = metrics.into_iter().map(|place| metrics_entry(place, report)).collect();
    Telemetry { meta: input.meta, selector, targets, access_logging, tracing, metrics }
}

fn entries<'t>(spec: Fields<'t>, name: &str, report: &mut Report) -> Vec<Place<'t>> {
    spec.get(name).map(|place| place.items(report)).unwrap_or_default()
}

/// Names of providers.
fn providers(fields: Fields<'_>, report: &mut Report) -> Vec<String> {
    let mut names = Vec::new();
    for place in entries(fields, "providers", report) {
        let provider = place.fields(&["name"], report);
        let name = provider.required("name", "providers.name must not be empty.", report);
        let Some(name) = name else { continue };
        match name.text(report) {
            Some("") => report.error(name, "providers.name must not be empty", "Name the provider."),
            Some(text) => names.push(text.to_owned()),
            None => {}
        }
    }
    names
}

/// `match.mode`.
fn mode(fields: Fields<'_>, report: &mut Report) -> WorkloadMode {
    let Some(place) = fields.get("match") else { return WorkloadMode::default() };
    chosen_mode(place.fields(&["mode"], report), report)
}

fn chosen_mode(fields: Fields<'_>, report: &mut Report) -> WorkloadMode {
    fields.get("mode").and_then(|place| place.choice(&MODES, report)).unwrap_or_default()
}

/// A truth value that may be null, as Istio's schema has these.
fn boolean(fields: Fields<'_>, name: &str, report: &mut Report) -> Option<bool> {
    fields.optional(name).and_then(|place| place.boolean(report))
}

fn access_logging_entry(place: Place<'_>, report: &mut Report) -> AccessLogging {
    let fields = place.fields(&["providers", "match", "disabled", "filter"], report);
    AccessLogging {
        providers: providers(fields, report),
        mode: mode(fields, report),
        disabled: boolean(fields, "disabled", report).unwrap_or_default(),
        filter: fields.get("filter").and_then(|place| filter(place, report)),
    }
}

fn filter(place: Place<'_>, report: &mut Report) -> Option<String> {
    let fields = place.fields(&["expression"], report);
    let hint = "Write an expression such as response.code >= 400.";
    let Some(place) = fields.get("expression") else {
        report.error(place, "must be a valid CEL expression: expression is missing", hint);
        return None;
    };
    let text = place.text(report)?;
    if let Err(error) = Expression::parse(text) {
        report.error(place, format!("must be a valid CEL expression: {error}"), hint);
        return None;
    }
    Some(text.to_owned())
}

fn tracing_entry(place: Place<'_>, report: &mut Report) -> Tracing {
    let known = [
        "providers",
        "match",
        "randomSamplingPercentage",
        "disableSpanReporting",
        "customTags",
        "useRequestIdForTraceSampling",
        "enableIstioTags",
    ];
    let fields = place.fields(&known, report);
    let providers = providers(fields, report);
    if let Some(place) = fields.get("providers")
        && providers.len() > 1
    {
        let message = "multiple providers are not supported: the first is used";
        report.warn(place, message, "Name one provider.");
    }
    Tracing {
        providers,
        mode: mode(fields, report),
        sampling_ppm: fields
            .optional("randomSamplingPercentage")
            .and_then(|place| place.number(0.0..=100.0, report))
            .map(parts_per_million),
        disable_span_reporting: boolean(fields, "disableSpanReporting", report),
        custom_tags: fields.get("customTags").map(|place| custom_tags(place, report)),
        use_request_id: boolean(fields, "useRequestIdForTraceSampling", report),
        enable_istio_tags: boolean(fields, "enableIstioTags", report),
    }
}

/// A percentage from 0 to 100 in millionths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 1,000,000 by the range above"
)]
fn parts_per_million(percentage: f64) -> u32 {
    (percentage * 10_000.0).round() as u32
}

fn custom_tags(place: Place<'_>, report: &mut Report) -> BTreeMap<String, CustomTag> {
    let tags = place.entries(report).into_iter();
    tags.map(|place| (place.name().to_owned(), custom_tag(place, report))).collect()
}

fn custom_tag(place: Place<'_>, report: &mut Report) -> CustomTag {
    let forms = ["literal", "environment", "header", "formatter"];
    let fields = place.fields(&forms, report);
    if fields.stated(&forms) > 1 {
        report.error(place, "only one of literal, environment, header and formatter may be set", "Keep one.");
    }
    let part = |place: Place<'_>, name: &str, report: &mut Report| {
        let fields = place.fields(&[name], report);
        named(fields, name, report)
    };
    let with_default = |place: Place<'_>, report: &mut Report| {
        let fields = place.fields(&["name", "defaultValue"], report);
        let default = fields.get("defaultValue").and_then(|place| place.text(report)).unwrap_or_default();
        (named(fields, "name", report), default.to_owned())
    };
    if let Some(place) = fields.get("literal") {
        CustomTag::Literal(part(place, "value", report))
    } else if let Some(place) = fields.get("environment") {
        let (name, default) = with_default(place, report);
        CustomTag::Environment(name, default)
    } else if let Some(place) = fields.get("header") {
        let (name, default) = with_default(place, report);
        CustomTag::Header(name, default)
    } else if let Some(place) = fields.get("formatter") {
        CustomTag::Formatter(part(place, "value", report))
    } else {
        CustomTag::Nothing
    }
}

/// A text that must be there and not empty.
fn named(fields: Fields<'_>, name: &str, report: &mut Report) -> String {
    let place = fields.required(name, "It must not be empty.", report);
    place.and_then(|place| place.non_empty(report)).unwrap_or_default().to_owned()
}

fn metrics_entry(place: Place<'_>, report: &mut Report) -> Metrics {
    let fields = place.fields(&["providers", "overrides", "reportingInterval"], report);
    let overrides = entries(fields, "overrides", report);
    if let Some(place) = fields.get("reportingInterval") {
        report.not_enforced(place, "metrics are up to date whenever they are asked for");
    }
    Metrics {
        providers: providers(fields, report),
        overrides: overrides.into_iter().map(|place| metrics_override(place, report)).collect(),
        reporting_interval_ms: fields.get("reportingInterval").and_then(|place| place.duration(report)),
    }
}

fn metrics_override(place: Place<'_>, report: &mut Report) -> MetricsOverride {
    let fields = place.fields(&["match", "disabled", "tagOverrides"], report);
    let (metric, mode) = match fields.get("match") {
        Some(place) => metric_match(place, report),
        None => (MetricSelector::All, WorkloadMode::default()),
    };
    let disabled = boolean(fields, "disabled", report);
    let tags = fields.get("tagOverrides").map(|place| place.entries(report)).unwrap_or_default();
    let tags = tags.into_iter().filter_map(|place| Some((place.name().to_owned(), tag(place, report)?)));
    MetricsOverride { metric, mode, disabled, tags: tags.collect() }
}

fn metric_match(place: Place<'_>, report: &mut Report) -> (MetricSelector, WorkloadMode) {
    let fields = place.fields(&["metric", "customMetric", "mode"], report);
    if fields.stated(&["metric", "customMetric"]) > 1 {
        report.error(place, "only one of metric and customMetric may be set", "Keep one.");
    }
    let metric = match (fields.get("metric"), fields.get("customMetric")) {
        (Some(place), _) => match place.choice(&METRICS, report).flatten() {
            Some(metric) => MetricSelector::Standard(metric),
            None => MetricSelector::All,
        },
        (None, Some(place)) => {
            let name = place.text(report).unwrap_or_default();
            if name.is_empty() {
                report.error(place, "customMetric must not be empty", "Name the metric.");
            } else {
                report.not_enforced(place, "there are no metrics beside the standard ones");
            }
            MetricSelector::Custom(name.to_owned())
        }
        (None, None) => MetricSelector::All,
    };
    (metric, chosen_mode(fields, report))
}

fn tag(place: Place<'_>, report: &mut Report) -> Option<TagOverride> {
    let fields = place.fields(&["operation", "value"], report);
    if !matches!(place.found(), Found::Map) {
        return None;
    }
    let operation = match fields.get("operation") {
        Some(place) => place.choice(&OPERATIONS, report)?,
        None => Operation::Upsert,
    };
    let value = fields.get("value");
    if operation == Operation::Remove {
        if let Some(place) = value {
            report.error(place, "value must not be set when operation is REMOVE", "Remove it.");
        }
        return Some(TagOverride::Remove);
    }
    let hint = "Write an expression such as request.host, or a text in two kinds of quotes: \"'text'\".";
    let Some(value_place) = value else {
        report.error(place, "value must be set when operation is UPSERT", hint);
        return None;
    };
    let text = value_place.text(report)?;
    if text.is_empty() {
        report.error(value_place, "value must be set when operation is UPSERT", hint);
        return None;
    }
    if let Err(error) = Expression::parse(text) {
        let message = format!("{:?} is no CEL expression, so the tag is unknown: {error}", shortened(text));
        report.warn(value_place, message, hint);
    }
    Some(TagOverride::Upsert(text.to_owned()))
}
