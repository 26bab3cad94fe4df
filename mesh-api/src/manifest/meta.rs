//! `metadata`, and everything by which an object selects others: labels, `selector`, `targetRefs`.

use super::LowerContext;
use super::fields::Fields;
use super::report::{DOUBTFUL, Report, shortened};
use super::tree::{Found, Place};
use crate::model::{
    DRY_RUN as TRIAL, DRY_RUN_DELETE, DRY_RUN_REPLACES, DRY_RUN_TRUE, Kind, ObjectMeta, ObjectRef, Origin,
    Selector, TargetRef,
};
use crate::name::{Labels, Namespace, ObjectName};

/// Fields of metadata (Kubernetes ObjectMeta).
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "generateName",
    "generation",
    "resourceVersion",
    "uid",
    "selfLink",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];
/// Annotation that records a policy and does not enforce it.
pub(super) const DRY_RUN: &str = "istio.io/dry-run";
/// Annotations that the control plane of Istio sets and users may not (SEMANTICS 1.1).
const INTERNAL_ANNOTATIONS: [&str; 3] = [
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
    "internal.istio.io/webhook-always-reject",
];
const INTERNAL_PREFIX: &str = "internal.istio.io/";
/// Most pairs of a selector (SEMANTICS 1.2).
const SELECTOR_PAIRS_MAX: usize = 4096;
/// Most pairs of a `workloadSelector.labels` (SEMANTICS 1.2).
pub(super) const WORKLOAD_SELECTOR_PAIRS_MAX: usize = 256;
/// Most target references (SEMANTICS 1.3).
const TARGETS_MAX: usize = 16;
/// Longest name of a target, in characters (Istio's schema).
const TARGET_NAME_MAX: usize = 253;
/// Longest label value and longest name part of a label key, in bytes (Kubernetes).
const LABEL_BYTES_MAX: usize = 63;

/// Whose document it is, if that can be told, without a word about what is wrong with it.
pub(super) fn identity(kind: Kind, root: Place<'_>, context: &LowerContext) -> Option<ObjectRef> {
    let text = |place: Place<'_>| match place.found() {
        Found::Scalar(_, text) => Some(text.to_owned()),
        Found::List | Found::Map => None,
    };
    let metadata = root.child("metadata")?;
    let name = ObjectName::parse(&text(metadata.child("name")?)?).ok()?;
    let namespace = match metadata.child("namespace").filter(|place| !place.is_null()) {
        _ if kind == Kind::Namespace => Namespace::parse(name.as_str()).ok()?,
        None => context.default_namespace_of(kind),
        Some(place) => Namespace::parse(&text(place)?).ok()?,
    };
    Some(ObjectRef { kind, namespace, name })
}

/// Reads `metadata`.
pub(super) fn read(
    kind: Kind,
    root: Place<'_>,
    origin: Origin,
    context: &LowerContext,
    report: &mut Report,
) -> Option<ObjectMeta> {
    let Some(place) = root.child("metadata") else {
        report.missing(root, "metadata", "Write metadata.name and metadata.namespace.");
        return None;
    };
    let metadata = place.fields(&METADATA, report);
    if !matches!(place.found(), Found::Map) {
        return None;
    }
    if let Some(place) = metadata.optional("generateName") {
        report.error(place, "names cannot be generated here", "Write metadata.name.");
    }
    let labels = metadata.optional("labels").map(|place| labels(place, report)).unwrap_or_default();
    let annotations = metadata.optional("annotations");
    let annotations = annotations.map(|place| self::annotations(kind, place, report)).unwrap_or_default();
    let created = metadata.optional("creationTimestamp").and_then(|place| timestamp(place, report));
    let name = metadata.required("name", "Name the object.", report);
    let name = name.and_then(|place| place.parsed(ObjectName::parse, report));
    let namespace = metadata.optional("namespace");
    let namespace = match namespace {
        Some(place) => place.parsed(Namespace::parse, report),
        None => Some(context.default_namespace_of(kind)),
    };
    let (name, mut namespace) = (name?, namespace?);
    if kind == Kind::Namespace {
        namespace = match Namespace::parse(name.as_str()) {
            Ok(namespace) => namespace,
            Err(error) => {
                report.error(metadata.get("name").unwrap_or(place), error.to_string(), "");
                return None;
            }
        };
    }
    let object = ObjectRef { kind, namespace, name };
    Some(ObjectMeta { object, labels, annotations, created: created.unwrap_or_default(), origin })
}

fn annotations(kind: Kind, place: Place<'_>, report: &mut Report) -> Labels {
    for entry in place.children() {
        if INTERNAL_ANNOTATIONS.contains(&entry.name()) {
            report.error(
                entry,
                "is internal: it is set by Istio itself and may not be set by users",
                "Remove it.",
            );
        } else if entry.name().starts_with(INTERNAL_PREFIX) {
            report.warn(entry, "is internal to Istio and has no effect", "Remove it.");
        }
        if entry.name() == DRY_RUN && kind != Kind::AuthorizationPolicy {
            report.error(entry, "unsupported annotation: it is for AuthorizationPolicy only", "Remove it.");
        }
    }
    trial(kind, place, report);
    place.string_map(report)
}

/// Checks by which annotations an object is tried on live traffic. What is wrong there is an error always: a
/// policy that was meant to be tried must not come into force, nor one that was meant to be in force be tried.
fn trial(kind: Kind, annotations: Place<'_>, report: &mut Report) {
    let stated = [TRIAL, DRY_RUN_REPLACES].map(|name| annotations.child(name));
    let is_policy =
        matches!(kind, Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication);
    if !is_policy {
        for place in stated.into_iter().flatten() {
            let message = "unsupported annotation: it is for AuthorizationPolicy, PeerAuthentication and \
                           RequestAuthentication only";
            report.error(place, message, "Remove it.");
        }
        return;
    }
    let [trial, replaces] = stated;
    let text = |place: Place<'_>| match place.found() {
        Found::Scalar(_, text) => Some(text.to_owned()),
        Found::List | Found::Map => None,
    };
    let value = trial.and_then(text);
    if let (Some(place), Some(value)) = (trial, &value)
        && ![DRY_RUN_TRUE, DRY_RUN_DELETE].contains(&value.as_str())
    {
        let message = format!("has an invalid value {:?}: must be true or delete", shortened(value));
        let hint = "Write \"true\" to try the object, \"delete\" to try its deletion; remove the annotation to \
                    have it in force.";
        report.error(place, message, hint);
    }
    let Some(place) = replaces else { return };
    if value.as_deref() != Some(DRY_RUN_TRUE) {
        let message = format!("has no meaning without {TRIAL}: \"true\"");
        report.error(place, message, format!("Add {TRIAL}: \"true\", or remove it."));
    }
    if let Some(name) = text(place)
        && let Err(error) = ObjectName::parse(&name)
    {
        report.error(place, error.to_string(), "Write the name of the object that this one would replace.");
    }
}

fn timestamp(place: Place<'_>, report: &mut Report) -> Option<i64> {
    place.parsed(
        |text| {
            text.parse::<jiff::Timestamp>()
                .map(jiff::Timestamp::as_second)
                .map_err(|_| "is not a time such as 2026-01-31T12:00:00Z")
        },
        report,
    )
}

/// Labels that objects and workloads carry.
pub(super) fn labels(place: Place<'_>, report: &mut Report) -> Labels {
    for entry in place.children() {
        if let Some(reason) = label_key(entry.name()) {
            report.error(entry, format!("label key {:?} {reason}", shortened(entry.name())), "");
        }
        if let Found::Scalar(super::scalar::ScalarType::Text, value) = entry.found()
            && let Some(reason) = label_value(value)
        {
            report.error(entry, format!("label value {:?} {reason}", shortened(value)), "");
        }
    }
    place.string_map(report)
}

/// What is wrong with a label's key
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>).
fn label_key(key: &str) -> Option<&'static str> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_some_and(|prefix| crate::name::kubernetes::dns_subdomain("prefix", prefix).is_err()) {
        return Some("has a prefix that is not a DNS name");
    }
    if name.is_empty() { Some("is empty") } else { label_value(name) }
}

fn label_value(value: &str) -> Option<&'static str> {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_outer = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    if value.len() > LABEL_BYTES_MAX {
        return Some("is longer than 63 characters");
    }
    let bytes = value.as_bytes();
    (!(is_outer(bytes.first()) && is_outer(bytes.last()) && value.bytes().all(is_inner))).then_some(
        "may hold letters, digits, '-', '_' and '.', and must start and end with a letter or digit",
    )
}

/// Pairs by which workloads are selected.
pub(super) fn selector_labels(place: Place<'_>, pairs_max: usize, report: &mut Report) -> Labels {
    let entries = place.entries(report);
    if entries.len() > pairs_max {
        report.error(place, format!("has {} pairs, at most {pairs_max} are allowed", entries.len()), "");
        return Labels::new();
    }
    let mut labels = Labels::new();
    for entry in entries {
        let Some(value) = entry.text(report) else { continue };
        if entry.name().contains('*') || value.contains('*') {
            report.error(entry, "a wildcard is not supported in selectors", "Write the whole label.");
        } else if value.chars().count() > LABEL_BYTES_MAX {
            report.error(entry, "label value is longer than 63 characters", "");
        }
        labels.insert(entry.name().to_owned(), value.to_owned());
    }
    labels
}

/// `selector` with its `matchLabels`.
pub(super) fn selector(spec: Fields<'_>, report: &mut Report) -> Selector {
    let Some(place) = spec.get("selector") else { return Selector::default() };
    match_labels(place, report)
}

/// A map with `matchLabels` alone.
pub(super) fn match_labels(place: Place<'_>, report: &mut Report) -> Selector {
    let fields = place.fields(&["matchLabels"], report);
    let message = "selector without labels: it is empty and selects every workload";
    let hint = "Remove the selector if that is meant.";
    let Some(labels) = fields.get("matchLabels") else {
        if matches!(place.found(), Found::Map) && place.children().len() == 0 {
            report.warn(place, message, hint);
        }
        return Selector::default();
    };
    let match_labels = selector_labels(labels, SELECTOR_PAIRS_MAX, report);
    if matches!(labels.found(), Found::Map) && labels.children().len() == 0 {
        report.warn(labels, message, hint);
    }
    Selector { match_labels }
}

/// `targetRefs`, or `targetRef` when there are none.
pub(super) fn targets(spec: Fields<'_>, report: &mut Report) -> Vec<TargetRef> {
    if spec.stated(&["selector", "targetRef", "targetRefs"]) > 1 {
        let hint = "Keep one of selector, targetRef and targetRefs.";
        report.error(spec.place, "only one of selector, targetRef and targetRefs may be set", hint);
    }
    let listed = spec.get("targetRefs").map(|place| place.items(report)).unwrap_or_default();
    if listed.len() > TARGETS_MAX {
        let place = spec.get("targetRefs").unwrap_or(spec.place);
        report.error(place, format!("has {} entries, at most {TARGETS_MAX} are allowed", listed.len()), "");
        return Vec::new();
    }
    if let Some(place) = spec.get("targetRefs")
        && listed.is_empty()
        && matches!(place.found(), Found::List)
    {
        report.note(DOUBTFUL, place, "is empty and refers to nothing", "Remove it.");
    }
    let places = listed.into_iter().chain(spec.get("targetRef"));
    places.filter_map(|place| target(place, report)).collect()
}

fn target_name<'t>(place: Place<'t>, report: &mut Report) -> Option<&'t str> {
    let name = place.non_empty(report)?;
    if name.chars().count() > TARGET_NAME_MAX {
        report.error(place, format!("is longer than {TARGET_NAME_MAX} characters"), "");
        return None;
    }
    Some(name)
}

fn target(place: Place<'_>, report: &mut Report) -> Option<TargetRef> {
    let fields = place.fields(&["group", "kind", "name", "namespace"], report);
    if let Some(namespace) = fields.get("namespace")
        && namespace.text(report).is_some_and(|text| !text.is_empty())
    {
        let message = "cross namespace referencing: references to other namespaces are not supported";
        report.error(namespace, message, "Remove it.");
    }
    let group = fields.get("group").map_or(Some(""), |place| place.text(report));
    let kind_place = fields.required("kind", "Name the kind of the target.", report);
    let kind = kind_place.and_then(|place| place.non_empty(report));
    let name = fields.required("name", "Name the target.", report);
    let name = name.and_then(|place| target_name(place, report));
    let (group, kind, name) = (group?, kind?, name?);
    let is_known = matches!(
        (group, kind),
        ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
    );
    if !is_known {
        let message = format!("targets of group {group:?} and kind {kind:?} are not supported");
        let hint = "Supported are Service, networking.istio.io ServiceEntry, and gateway.networking.k8s.io \
                    Gateway and GatewayClass.";
        report.error(kind_place.unwrap_or(place), message, hint);
        return None;
    }
    let group = if group == "core" { "" } else { group };
    Some(TargetRef { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned() })
}
