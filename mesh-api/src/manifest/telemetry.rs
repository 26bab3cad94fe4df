//! Telemetry (SEMANTICS section 9): its form is checked; the standard metrics and access log are always on.

use super::input::Input;
use super::meta;
use super::report::Report;
use super::shape::Shape;
use super::tree::Place;
use crate::model::ObjectMeta;

const PROVIDERS: Shape = Shape::List(&Shape::Object(&[("name", Shape::Text)]));
const MODES: [&str; 3] = ["CLIENT_AND_SERVER", "CLIENT", "SERVER"];
const MATCH: Shape = Shape::Object(&[("mode", Shape::OneOf(&MODES))]);
const ACCESS_LOGGING: Shape = Shape::List(&Shape::Object(&[
    ("providers", PROVIDERS),
    ("match", MATCH),
    ("disabled", Shape::Boolean),
    ("filter", Shape::Object(&[("expression", Shape::Text)])),
]));
const CUSTOM_TAG: Shape = Shape::Object(&[
    ("literal", Shape::Object(&[("value", Shape::Text)])),
    ("environment", Shape::Object(&[("name", Shape::Text), ("defaultValue", Shape::Text)])),
    ("header", Shape::Object(&[("name", Shape::Text), ("defaultValue", Shape::Text)])),
    ("formatter", Shape::Object(&[("value", Shape::Text)])),
]);
const TRACING: Shape = Shape::List(&Shape::Object(&[
    ("providers", PROVIDERS),
    ("match", MATCH),
    ("randomSamplingPercentage", Shape::Number(0.0, 100.0)),
    ("disableSpanReporting", Shape::Boolean),
    ("customTags", Shape::Map(&CUSTOM_TAG)),
    ("useRequestIdForTraceSampling", Shape::Boolean),
    ("enableIstioTags", Shape::Boolean),
]));
const TAG_OVERRIDE: Shape =
    Shape::Object(&[("operation", Shape::OneOf(&["UPSERT", "REMOVE"])), ("value", Shape::Text)]);
const OVERRIDES: Shape = Shape::List(&Shape::Object(&[
    (
        "match",
        Shape::Object(&[
            ("metric", Shape::Text),
            ("customMetric", Shape::Text),
            ("mode", Shape::OneOf(&MODES)),
        ]),
    ),
    ("disabled", Shape::Boolean),
    ("tagOverrides", Shape::Map(&TAG_OVERRIDE)),
]));
const METRICS: Shape = Shape::List(&Shape::Object(&[
    ("providers", PROVIDERS),
    ("overrides", OVERRIDES),
    ("reportingInterval", Shape::Duration),
]));

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> ObjectMeta {
    let known = ["selector", "targetRef", "targetRefs", "accessLogging", "tracing", "metrics"];
    let spec = input.spec.fields(&known, report);
    meta::selector(spec, report);
    meta::targets(spec, report);
    let sections = [
        ("accessLogging", ACCESS_LOGGING, "the access log is that of MeshConfig"),
        ("tracing", TRACING, "no spans are reported"),
        ("metrics", METRICS, "the standard metrics are always on"),
    ];
    for (name, shape, effect) in sections {
        let Some(place) = spec.get(name) else { continue };
        shape.check(place, report);
        for provider in
            place.children().filter_map(|entry| entry.child("providers")).flat_map(Place::children)
        {
            match provider.child("name") {
                Some(place) => drop(place.non_empty(report)),
                None => report.missing(provider, "name", "Name the provider."),
            }
        }
        report.not_enforced(place, effect);
    }
    for entry in spec.get("metrics").into_iter().flat_map(Place::children) {
        for tags in entry.child("overrides").into_iter().flat_map(Place::children) {
            tags.child("tagOverrides")
                .into_iter()
                .flat_map(Place::children)
                .for_each(|tag| tag_override(tag, report));
        }
    }
    input.meta
}

fn tag_override(tag: Place<'_>, report: &mut Report) {
    let is_removal = tag.child("operation").and_then(|place| match place.found() {
        super::tree::Found::Scalar(_, text) => Some(text == "REMOVE"),
        super::tree::Found::List | super::tree::Found::Map => None,
    });
    match (is_removal.unwrap_or(false), tag.child("value")) {
        (true, Some(place)) => report.error(place, "cannot be set with REMOVE", "Remove it."),
        (false, None) => report.missing(tag, "value", "UPSERT needs a value."),
        (true, None) | (false, Some(_)) => {}
    }
}
