//! From a file's text to its documents: what each is, whose it is, and what became of it.

use std::sync::Arc;

use super::report::{FOREIGN, Report, alternatives, nearest, shortened};
use super::split::{Chunk, split};
use super::tree::{Found, Place, SyntaxError, Tree, build};
use super::{Document, LowerContext, Object, lower, meta};
use crate::model::{Kind, Origin};
use crate::problem::Problem;

/// Longest text of one file, in bytes. Directories of manifests, whole clusters exported, are below it.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most documents of one file.
const DOCUMENTS_MAX: usize = 100_000;

/// Groups with the versions and kinds that are served (SEMANTICS 1.1).
const SERVED: [(&str, &[&str], &[Kind]); 5] = [
    ("", &["v1"], &[Kind::Service, Kind::ServiceAccount, Kind::Namespace]),
    (
        "security.istio.io",
        &["v1", "v1beta1"],
        &[Kind::AuthorizationPolicy, Kind::PeerAuthentication, Kind::RequestAuthentication],
    ),
    (
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
        &[Kind::DestinationRule, Kind::VirtualService, Kind::ServiceEntry, Kind::WorkloadEntry],
    ),
    ("telemetry.istio.io", &["v1", "v1alpha1"], &[Kind::Telemetry]),
    ("mini-mesh.io", &["v1alpha1"], &[Kind::MeshConfig]),
];
/// Kinds of served groups that are valid and have no effect here.
const UNSERVED: [(&str, &str, &str); 7] = [
    ("networking.istio.io", "Gateway", "there are no ingress gateways, so nothing is opened"),
    (
        "networking.istio.io",
        "Sidecar",
        "proxies learn of what they call on demand, and every service is visible",
    ),
    ("networking.istio.io", "WorkloadGroup", "workloads are stated one by one, as WorkloadEntry"),
    ("networking.istio.io", "ProxyConfig", "proxies are configured by MeshConfig and their own flags"),
    ("mini-mesh.io", "PolicyTest", "tests are run by `meshctl policy test`"),
    ("mini-mesh.io", "PolicyAssertion", "assertions are checked by `meshctl policy verify`"),
    ("mini-mesh.io", "Mesh", "a file for `meshctl up` is not configuration of a running mesh"),
];
/// Core kinds of Kubernetes that are none of the mesh's business.
const CORE_KINDS: [&str; 15] = [
    "Pod",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Event",
    "LimitRange",
    "ResourceQuota",
    "ReplicationController",
    "PodTemplate",
    "Binding",
    "ComponentStatus",
    "Status",
];

/// Reads every document.
pub(super) fn read_all(file: &Arc<str>, text: &str, context: &LowerContext) -> Vec<Document> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file has more than {TEXT_BYTES_MAX} bytes");
        return vec![refused(file, 1, "", message, "Split it into several files.")];
    }
    let mut documents = Vec::new();
    for chunk in split(text) {
        if documents.len() >= DOCUMENTS_MAX {
            let message = format!(
                "the file has more than {DOCUMENTS_MAX} documents; this one and what follows is not read"
            );
            documents.push(refused(file, chunk.line, chunk.text, message, "Split it into several files."));
            break;
        }
        read(file, chunk, context, &mut documents);
    }
    documents
}

fn refused(file: &Arc<str>, line: u32, text: &str, message: String, hint: &str) -> Document {
    let mut report = Report::new(file);
    report.error_at_line(line, message, hint);
    let origin = Origin { file: Arc::clone(file), line };
    Document {
        warnings: Vec::new(),
        outcome: Err(report.into_problems()),
        identity: None,
        origin,
        text: text.into(),
    }
}

/// Reads one document, or every item of a list.
fn read(file: &Arc<str>, chunk: Chunk<'_>, context: &LowerContext, documents: &mut Vec<Document>) {
    let (tree, error) = build(chunk);
    let Some(root) = tree.root() else {
        if let Some(SyntaxError { line, message, hint }) = error {
            documents.push(refused(file, line, chunk.text, message, hint));
        }
        return;
    };
    if let Some(error) = error {
        documents.push(broken(file, chunk, (&tree, root), error, context));
        return;
    }
    if root.is_null() {
        return;
    }
    let is_list = text_of(root, "kind") == Some("List") && text_of(root, "apiVersion") == Some("v1");
    if !is_list {
        let is_certain = !chunk.is_last || tree.last_key() != "metadata" && chunk.text.ends_with('\n');
        let text = chunk.text.trim_end().to_owned() + "\n";
        documents.push(one(file, root, (text, is_certain), context));
        return;
    }
    let mut report = Report::new(file);
    let list = root.fields(&["apiVersion", "kind", "metadata", "items"], &mut report);
    let items = list.required("items", "Write items: [] for an empty list.", &mut report);
    let items = items.map(|place| place.items(&mut report)).unwrap_or_default();
    if report.has_errors() {
        documents.push(Document {
            warnings: Vec::new(),
            outcome: Err(report.into_problems()),
            identity: None,
            origin: Origin { file: Arc::clone(file), line: root.line() },
            text: chunk.text.into(),
        });
    }
    let last = items.len().saturating_sub(1);
    for (index, item) in items.into_iter().enumerate() {
        let is_certain =
            !chunk.is_last || index != last || item.children().last().map(Place::name) != Some("metadata");
        documents.push(one(file, item, (item_text(&tree, chunk.text, item), is_certain), context));
    }
}

/// The text of a list's item, indented as it stands there so that it reads the same on its own.
fn item_text(tree: &Tree, text: &str, item: Place<'_>) -> String {
    let (column, bytes) = item.extent();
    match text.get(bytes) {
        Some(slice) if !tree.has_aliases() && !slice.is_empty() => {
            format!("{}{}\n", " ".repeat(column), slice.trim_end())
        }
        Some(_) | None => item.to_json().to_string() + "\n",
    }
}

fn broken(
    file: &Arc<str>,
    chunk: Chunk<'_>,
    (tree, root): (&Tree, Place<'_>),
    error: SyntaxError,
    context: &LowerContext,
) -> Document {
    // The name is whole only when another key was reached after metadata.
    let is_whole = tree.last_key() != "metadata";
    let identity = kind_of(root).and_then(|kind| meta::identity(kind, root, context)).filter(|_| is_whole);
    let mut report = Report::new(file);
    report.error_at_line(error.line, error.message, error.hint);
    report.identify(identity.clone());
    Document {
        warnings: Vec::new(),
        outcome: Err(report.into_problems()),
        // A file that breaks off in its last document was cut off there, it seems, and what followed is
        // missing too.
        identity: identity.filter(|_| !chunk.is_last),
        origin: Origin { file: Arc::clone(file), line: root.line() },
        text: chunk.text.into(),
    }
}

/// An object that stands within another document, and everything that is said about it.
pub(super) struct Whole {
    /// The object, when it is valid and of a kind that is the mesh's.
    pub(super) object: Option<Object>,
    /// Errors, warnings and remarks, in order of line.
    pub(super) problems: Vec<Problem>,
}

/// Reads the object at a place of another document.
pub(super) fn of_place(file: &Arc<str>, place: Place<'_>, context: &LowerContext) -> Whole {
    let document = one(file, place, (String::new(), true), context);
    match document.outcome {
        Ok(object) => Whole { object: Some(object), problems: document.warnings },
        Err(problems) => Whole { object: None, problems },
    }
}

/// Lines of the entries of `spec.rules` or `spec.jwtRules` of the object at a place.
pub(super) fn lines_of_rules(place: Place<'_>) -> Vec<u32> {
    let spec = place.child("spec");
    let rules = spec.and_then(|spec| spec.child("rules").or_else(|| spec.child("jwtRules")));
    rules.map(|rules| rules.children().map(Place::line).collect()).unwrap_or_default()
}

/// The same for a document that has been read; `first` is the line in the file of its first key.
pub(super) fn rule_lines(text: &str, first: u32) -> Vec<u32> {
    let (tree, _) = build(Chunk { text, line: 1, is_last: true });
    let Some(root) = tree.root() else { return Vec::new() };
    lines_of_rules(root).into_iter().map(|line| (line + first).saturating_sub(root.line())).collect()
}

/// Reads one object.
fn one(
    file: &Arc<str>,
    root: Place<'_>,
    (text, is_certain): (String, bool),
    context: &LowerContext,
) -> Document {
    let origin = Origin { file: Arc::clone(file), line: root.line() };
    let mut report = Report::new(file);
    let kind = classify(root, &mut report);
    let identity = kind.and_then(|kind| meta::identity(kind, root, context));
    report.identify(identity.clone());
    let object = match kind {
        Some(kind) => lower::object(kind, root, origin.clone(), context, &mut report),
        None => None,
    };
    let (warnings, outcome) = outcome(root, object, report);
    let identity = match &outcome {
        Ok(object) => Some(object.object_ref()),
        Err(_) => identity.filter(|_| is_certain),
    };
    Document { warnings, outcome, identity, origin, text: text.into() }
}

fn outcome(
    root: Place<'_>,
    object: Option<Object>,
    mut report: Report,
) -> (Vec<Problem>, Result<Object, Vec<Problem>>) {
    match object {
        Some(object) if !report.has_errors() => (report.into_problems(), Ok(object)),
        Some(_) => (Vec::new(), Err(report.into_problems())),
        None => {
            if report.is_empty() {
                report.error(root, "cannot be read", "");
            }
            (Vec::new(), Err(report.into_problems()))
        }
    }
}

fn text_of<'t>(place: Place<'t>, name: &str) -> Option<&'t str> {
    match place.child(name)?.found() {
        Found::Scalar(_, text) => Some(text),
        Found::List | Found::Map => None,
    }
}

/// The kind of a document, if it is a served one, whatever else is wrong.
fn kind_of(root: Place<'_>) -> Option<Kind> {
    let (group, _) = split_version(text_of(root, "apiVersion")?);
    let (_, _, kinds) = SERVED.iter().find(|(served, ..)| *served == group)?;
    let kind = text_of(root, "kind")?;
    kinds.iter().copied().find(|served| served.as_str() == kind)
}

fn split_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// The kind of a document. `None` with an error when it should be one of ours and is not, and with a notice
/// when it is somebody else's.
fn classify(root: Place<'_>, report: &mut Report) -> Option<Kind> {
    if !matches!(root.found(), Found::Map) {
        let message =
            format!("a document must be a map with apiVersion and kind, found {}", root.found().words());
        report.error(root, message, "");
        return None;
    }
    let (version_place, kind_place) = (root.child("apiVersion"), root.child("kind"));
    for (place, name) in [(version_place, "apiVersion"), (kind_place, "kind")] {
        if place.is_none() {
            let near = root.children().find(|child| nearest(child.name(), [name]).is_some());
            let hint = match near {
                Some(near) => format!("{} was found: did you mean {name}?", shortened(near.name())),
                None => "Every document states apiVersion and kind.".to_owned(),
            };
            report.missing(root, name, &hint);
        }
    }
    let (version_place, kind_place) = (version_place?, kind_place?);
    let api_version = version_place.non_empty(report);
    let kind = kind_place.non_empty(report);
    let (api_version, kind) = (api_version?, kind?);
    let (group, version) = split_version(api_version);
    let Some((_, versions, kinds)) = SERVED.iter().find(|(served, ..)| *served == group) else {
        foreign_group((version_place, group), kind, report);
        return None;
    };
    if let Some(kind) = kinds.iter().copied().find(|served| served.as_str() == kind) {
        if versions.contains(&version) {
            return Some(kind);
        }
        bad_version(version_place, group, versions, report);
        return None;
    }
    if group.is_empty() && !versions.contains(&version) {
        foreign_version((version_place, api_version), kind, report);
    } else {
        unknown_kind(kind_place, (group, kind), kinds, report);
    }
    None
}

fn bad_version(place: Place<'_>, group: &str, versions: &[&str], report: &mut Report) {
    let full = versions
        .iter()
        .map(|version| if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") });
    let full: Vec<String> = full.collect();
    let hint = format!("Write {}.", alternatives(full.iter().map(String::as_str)));
    report.error(place, "unsupported version: it is not served", hint);
}

/// A group that is not ours, unless it is one of ours misspelt.
fn foreign_group((place, group): (Place<'_>, &str), kind: &str, report: &mut Report) {
    let served = || SERVED.iter().map(|(group, ..)| *group).filter(|group| !group.is_empty());
    let ours = SERVED.iter().find(|(_, _, kinds)| kinds.iter().any(|served| served.as_str() == kind));
    match (nearest(group, served()), ours) {
        (Some(near), Some((group_of_kind, ..))) if near == *group_of_kind => {
            report.error(
                place,
                format!("unknown group {:?}", shortened(group)),
                format!("Did you mean {near}?"),
            );
        }
        _ => {
            let message = format!(
                "{} of group {:?} is not the mesh's and is passed over",
                shortened(kind),
                shortened(group)
            );
            report.note(FOREIGN, place, message, "");
        }
    }
}

/// An apiVersion without group that is not `v1`: a group without version, or a core version of the past.
fn foreign_version((place, api_version): (Place<'_>, &str), kind: &str, report: &mut Report) {
    let group = SERVED.iter().find(|(group, ..)| *group == api_version);
    match group {
        Some((group, versions, _)) => bad_version(place, group, versions, report),
        None => {
            let message = format!("{} of version {:?} is not known", shortened(kind), shortened(api_version));
            report.error(place, message, "Write GROUP/VERSION, or v1 for core kinds.");
        }
    }
}

fn unknown_kind(place: Place<'_>, (group, kind): (&str, &str), kinds: &[Kind], report: &mut Report) {
    if let Some((.., effect)) = UNSERVED.iter().find(|(of, name, _)| *of == group && *name == kind) {
        report.not_enforced(place, effect);
        return;
    }
    if kind == "EnvoyFilter" {
        let hint = "Remove it, and state what it protects as AuthorizationPolicy.";
        report.error(place, "EnvoyFilter cannot be honoured: the proxies are not Envoy", hint);
        return;
    }
    if group.is_empty() && CORE_KINDS.contains(&kind) {
        report.note(FOREIGN, place, format!("{kind} is not the mesh's and is passed over"), "");
        return;
    }
    let elsewhere = SERVED.iter().find(|(_, _, kinds)| kinds.iter().any(|served| served.as_str() == kind));
    let hint = match (elsewhere, nearest(kind, kinds.iter().map(|kind| kind.as_str()))) {
        (Some((group, versions, _)), _) => {
            let version = versions.first().copied().unwrap_or_default();
            let full = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            format!("{kind} is of apiVersion {full}.")
        }
        (None, Some(near)) => format!("Did you mean {near}?"),
        (None, None) => format!("Known are {}.", alternatives(kinds.iter().map(|kind| kind.as_str()))),
    };
    let group = if group.is_empty() { "the core group" } else { group };
    report.error(place, format!("unknown kind {:?} in {group}", shortened(kind)), hint);
}
