//! Everything that is looked at together: from files, from the running mesh, or both.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::admin::{ObjectSummary, RegistryDump};
use mesh_api::manifest::{Lines, LowerContext};
use mesh_api::model::{Kind, ObjectRef, Origin};
use mesh_api::problem::{Problem, Severity};
use mesh_policy::analyze::{self, Document, Named};
use serde_json::{Value, json};

use super::entry::Entry;
use super::local_mesh;
use crate::command::objects::collected::{Collected, reread};
use crate::command::objects::input::{self, Input};
use crate::command::objects::value;
use crate::command::{EXIT_USAGE, Failure};

/// A field or kind that is valid and has no effect in this version.
const NOT_ENFORCED: &str = "MM0601";
/// A document that is not the mesh's.
const FOREIGN: &str = "MM0602";
/// A file that cannot be read.
const UNREADABLE: &str = "MM0101";
/// Fields of Istio's MeshConfig that are the mesh's too.
const MESH_FIELDS: [&str; 10] = [
    "trustDomain",
    "trustDomainAliases",
    "rootNamespace",
    "clusterDomain",
    "pathNormalization",
    "outboundTrafficPolicy",
    "accessLogFile",
    "accessLogEncoding",
    "connectTimeout",
    "extensionProviders",
];

/// What is told beside findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What matters.
    Brief,
    /// Also what was passed over.
    Verbose,
}

/// What a cluster says beside the objects of the mesh.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Services and workloads, as the control plane knows them.
    pub(super) registry: Option<RegistryDump>,
    /// Namespaces and pods.
    pub(super) documents: Vec<Document>,
}

/// Whether documents that are none are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    Told,
    Ignored,
}

/// Objects, and what was found while they were read.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    collected: Collected,
    documents: Vec<Document>,
    entries: Vec<Entry>,
    /// Text of each document, by file and line.
    texts: HashMap<Origin, Arc<str>>,
}

impl Gathered {
    /// Everything found, and what could not be judged.
    pub(super) fn findings(mut self) -> (Vec<Entry>, Vec<&'static str>, Vec<Document>) {
        let model = self.collected.model(&self.documents);
        let mut lines: HashMap<Origin, Lines> = HashMap::new();
        let mut found = Vec::new();
        for mut finding in analyze::findings(&model) {
            if let Some(text) = self.texts.get(&finding.origin) {
                let origin = finding.origin.clone();
                let lines = lines.entry(origin.clone()).or_insert_with(|| Lines::of(text, origin.line));
                finding.locate(&|field| lines.line(field));
            } else {
                finding.locate(&|_| None);
            }
            found.push(Entry::from(finding));
        }
        let remarks = analyze::unjudged(&model);
        self.entries.extend(found);
        (self.entries, remarks, self.documents)
    }

    fn document(&mut self, origin: &Origin, text: &Arc<str>, default_namespace: &str) {
        self.texts.insert(origin.clone(), Arc::clone(text));
        let read = value(text).and_then(|value| Document::read(value, origin.clone(), default_namespace));
        self.documents.extend(read);
    }

    /// Adds what is in force.
    fn live(&mut self, object: &ObjectSummary, context: &LowerContext) {
        reread(object, context).into_iter().for_each(|object| self.collected.add(object));
        let origin = Origin { file: object.file.as_str().into(), line: object.line };
        self.document(&origin, &object.yaml.as_str().into(), &object.namespace);
    }
}

/// The running mesh: what the control plane says of its files, and what is to be said of the objects in force.
pub(super) fn of_mesh(objects: &[ObjectSummary], problems: Vec<Problem>, around: Surroundings) -> Gathered {
    let context = input::context_of(objects);
    let mut gathered = Gathered::default();
    // Pods are told whole by what is around.
    let own = objects.iter().filter(|object| object.kind != Kind::Pod || around.documents.is_empty());
    own.for_each(|object| gathered.live(object, &context));
    if let Some(registry) = around.registry {
        gathered.collected = std::mem::take(&mut gathered.collected).with_registry(registry);
    }
    let known: HashSet<Named> = gathered.documents.iter().map(|document| document.subject.clone()).collect();
    let more = around.documents.into_iter().filter(|document| !known.contains(&document.subject));
    gathered.documents.extend(more);
    let model = gathered.collected.model(&gathered.documents);
    let own = analyze::findings(&model);
    // The control plane looks at the same objects, without their texts.
    let is_known = |problem: &Problem| {
        own.iter().any(|finding| {
            finding.code.id == problem.code
                && problem.object.as_ref().is_some_and(|object| Named::from(object) == finding.subject)
        })
    };
    let others: Vec<Entry> =
        problems.into_iter().filter(|problem| !is_known(problem)).map(Entry::from).collect();
    gathered.entries.extend(others);
    gathered
}

/// Files, as if they were applied to `live`, which is empty when they stand for themselves.
///
/// # Errors
/// When none of them can be read.
pub(super) fn of_files(
    paths: &[PathBuf],
    mesh_config: Option<&Path>,
    live: &[ObjectSummary],
    namespace: Option<&str>,
    (detail, unknown): (Detail, Unknown),
) -> Result<Gathered, Failure> {
    let mut gathered = Gathered::default();
    let mut inputs = read(paths, &mut gathered.entries)?;
    if let Some(path) = mesh_config {
        inputs.push(settings_of(path)?);
    }
    let mut context = input::context_of(live);
    if let Some(namespace) = namespace {
        context.default_namespace = input::namespace(namespace)?;
    }
    let (planned, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(local_mesh::is_mesh_file);
    let readings = input::parse(&inputs, &context);
    let mut stated: Vec<ObjectRef> = Vec::new();
    gathered.entries.extend(input::twice(&readings).into_iter().map(Entry::from));
    for document in readings.into_iter().flat_map(|reading| reading.parsed.documents) {
        let is_none = unknown == Unknown::Ignored && document.identity.is_none() && document.outcome.is_err();
        gathered.document(&document.origin, &document.text, context.default_namespace.as_str());
        let problems = document.warnings.iter().chain(document.outcome.as_ref().err().into_iter().flatten());
        // Policy tests and files for `meshctl up` stand beside what they are for.
        let is_beside =
            problems.clone().any(|problem| problem.code == NOT_ENFORCED && problem.object.is_none())
                && value(&document.text).is_some_and(|value| {
                    let version = value.get("apiVersion").and_then(Value::as_str);
                    version.is_some_and(|version| version.starts_with("mini-mesh.io/"))
                });
        let told = problems.filter(|problem| {
            (detail == Detail::Verbose
                || problem.code != FOREIGN && !(is_beside && problem.code == NOT_ENFORCED))
                && !(is_none && problem.severity == Severity::Error)
        });
        gathered.entries.extend(told.cloned().map(mildly).map(Entry::from));
        if let Ok(object) = document.outcome {
            stated.push(object.object_ref());
            gathered.collected.add(object);
        }
    }
    for file in &planned {
        match local_mesh::objects(file, &context) {
            Ok(found) => found.into_iter().for_each(|object| gathered.collected.add(object)),
            Err(problem) => gathered.entries.push(Entry::from(*problem)),
        }
    }
    let stated: std::collections::BTreeSet<_> = stated.into_iter().collect();
    for object in live {
        let is_replaced = reread(object, &context).iter().any(|object| stated.contains(&object.object_ref()));
        if !is_replaced {
            gathered.live(object, &context);
        }
    }
    Ok(gathered)
}

/// Files that may be meant for another mesh: that something is not served here is worth knowing, not a fault.
fn mildly(mut problem: Problem) -> Problem {
    if problem.code == NOT_ENFORCED && problem.severity == Severity::Warning {
        problem.severity = Severity::Info;
    }
    problem
}

/// Reads files, folders and standard input. What cannot be read is told, as long as something can.
fn read(paths: &[PathBuf], entries: &mut Vec<Entry>) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    let mut failures = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut files = Vec::new();
            if let Err(error) = input::list(path, 0, &mut files) {
                failures.push((path.clone(), format!("cannot list {}: {error}", path.display())));
            }
            files.sort();
            for file in files {
                let name = file.to_string_lossy().into_owned();
                match File::open(&file).and_then(input::bounded) {
                    Ok(text) => inputs.push(Input { name, text }),
                    Err(error) => failures.push((file, format!("cannot read {name}: {error}"))),
                }
            }
            continue;
        }
        match input::read(std::slice::from_ref(path)) {
            Ok(read) => inputs.extend(read),
            Err(failure) => failures.push((path.clone(), failure.message().to_owned())),
        }
    }
    if inputs.is_empty() {
        if let Some((_, message)) = failures.into_iter().next() {
            return Err(Failure::new(message));
        }
        let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(format!("there is no YAML in {}", named.join(", ")))
            .hint("Files that end in .yaml, .yml or .json are read; names that begin with a dot are not.")
            .status(EXIT_USAGE));
    }
    for (path, message) in failures {
        entries.push(Entry::from(Problem {
            code: UNREADABLE.to_owned(),
            severity: Severity::Error,
            object: None,
            origin: Origin { file: path.to_string_lossy().as_ref().into(), line: 0 },
            field: String::new(),
            message,
            hint: "The other files were analyzed without it.".to_owned(),
        }));
    }
    Ok(inputs)
}

/// Settings of the mesh from a file: Istio's MeshConfig alone, a ConfigMap that holds it, or ours.
fn settings_of(path: &Path) -> Result<Input, Failure> {
    let mut read = input::read(&[path.to_owned()])?;
    let Some(input) = read.pop() else {
        return Err(Failure::new(format!("{} is no file", path.display())).status(EXIT_USAGE));
    };
    let not_settings = || {
        Failure::new(format!("{} is not a MeshConfig", path.display()))
            .hint("Write Istio's meshConfig, for instance trustDomain: prod.example.")
            .status(EXIT_USAGE)
    };
    let stated = value(&input.text).ok_or_else(not_settings)?;
    let settings = match stated.get("kind").and_then(Value::as_str) {
        Some("MeshConfig") => return Ok(input),
        Some("ConfigMap") => {
            let text = stated.pointer("/data/mesh").and_then(Value::as_str).ok_or_else(not_settings)?;
            value(text).ok_or_else(not_settings)?
        }
        Some(_) => return Err(not_settings()),
        None => stated,
    };
    let fields = settings.as_object().ok_or_else(not_settings)?;
    let known = fields.iter().filter(|(name, _)| MESH_FIELDS.contains(&name.as_str()));
    let spec: serde_json::Map<String, Value> =
        known.map(|(name, value)| (name.clone(), value.clone())).collect();
    let document = json!({
        "apiVersion": "mini-mesh.io/v1alpha1",
        "kind": "MeshConfig",
        "metadata": {"name": "default"},
        "spec": spec,
    });
    Ok(Input { name: input.name, text: manifest_text(&document) })
}

fn manifest_text(document: &Value) -> String {
    // JSON is YAML; `manifest` reads one like the other.
    format!("{document}\n")
}
