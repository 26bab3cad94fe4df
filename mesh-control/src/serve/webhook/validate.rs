//! `POST /validate`: the verdict of the same reader that the control plane and `meshctl` have, with every
//! problem of the object, and what its author probably did not mean as warnings.
//!
//! Never in the way: removal, objects that are being removed, changes of status, finalizers and bookkeeping, and
//! kinds that are not ours. An object that was taken in by another version of the mesh can always be freed of
//! its finalizers.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::{Kind, Origin};
use mesh_api::name::Namespace;
use mesh_api::problem::{Problem, Severity};
use mesh_kube::inject::InjectSettings;
use mesh_kube::name::{CONFIG, CONFIG_INJECT, CONFIG_MESH};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::review::{Answer, Operation, Refusal, Request};
use crate::plane::Plane;
use crate::status::{Collected, said};

/// Time allowed for looking at an object beside all others. Its verdict does not wait longer: without it there
/// are only fewer warnings.
const LINT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Most problems that are listed in a refusal.
const PROBLEMS_MAX: usize = 20;
/// Groups of the kinds that are judged.
const GROUPS: [&str; 3] = ["security.istio.io", "networking.istio.io", "telemetry.istio.io"];

/// Answers a review of an object.
pub(super) async fn answer(plane: &Arc<Plane>, lint: &Arc<Semaphore>, request: Request) -> Answer {
    if is_passed_over(&request) {
        return Answer::admit();
    }
    if request.kind.group.is_empty() {
        return config_map(&request);
    }
    let context = context(plane, &request.namespace);
    let (verdict, warnings) = verdict(&request.object, &context);
    let object = match verdict {
        Ok(object) => object,
        Err(problems) => {
            let object = format!("{} {}/{}", request.kind.kind, request.namespace, request.name);
            tracing::info!(object, problems = problems.len(), user = request.user_info.username, "refused");
            let warnings = warnings.iter().map(told).collect();
            return Answer { warnings, ..Answer::refuse(Refusal::invalid(refusal(&problems))) };
        }
    };
    let mut found = warnings;
    if let Some(object) = object {
        found.extend(findings(plane, lint, object).await);
    }
    Answer { warnings: found.iter().map(told).collect(), ..Answer::admit() }
}

/// Whether the mesh has nothing to say, whatever the object is.
fn is_passed_over(request: &Request) -> bool {
    let is_change = matches!(request.operation, Operation::Create | Operation::Update);
    let is_ours = GROUPS.contains(&request.kind.group.as_str()) && is_served(&request.kind.kind)
        || request.kind.group.is_empty() && request.kind.kind == "ConfigMap";
    if !is_change || !is_ours || !request.sub_resource.is_empty() {
        return true;
    }
    let is_going = request.object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let is_same = request.operation == Operation::Update
        && stated(&request.object).is_some_and(|new| Some(new) == stated(&request.old_object));
    is_going || is_same
}

fn is_served(kind: &str) -> bool {
    Kind::ALL.iter().any(|served| served.as_str() == kind)
}

/// What an author states of an object: all but its status and the bookkeeping of its metadata.
fn stated(object: &Value) -> Option<Map<String, Value>> {
    let mut stated = object.as_object()?.clone();
    stated.remove("status");
    let metadata = stated.remove("metadata");
    for name in ["labels", "annotations"] {
        let value = metadata
            .as_ref()
            .and_then(|metadata| metadata.get(name))
            .filter(|value| !value.is_null() && value.as_object().is_none_or(|entries| !entries.is_empty()));
        if let Some(value) = value {
            stated.insert(format!("metadata.{name}"), value.clone());
        }
    }
    Some(stated)
}

fn context(plane: &Plane, namespace: &str) -> LowerContext {
    let settings = Arc::clone(&plane.configuration().objects.settings);
    let default = LowerContext::default();
    LowerContext {
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
        default_namespace: Namespace::parse(namespace).unwrap_or(default.default_namespace),
    }
}

/// What is said of an object: the object, unless it is of a kind that is passed over, or why it is refused; and
/// what is doubtful.
pub(crate) fn verdict(
    object: &Value,
    context: &LowerContext,
) -> (Result<Option<Object>, Vec<Problem>>, Vec<Problem>) {
    let text = as_written(object).to_string();
    let mut documents = manifest::parse("", &text, context).documents;
    let Some(document) = documents.pop().filter(|_| documents.is_empty()) else {
        return (Err(vec![problem("", "is not one object", "")]), Vec::new());
    };
    match document.outcome {
        Ok(object) => (Ok(Some(object)), document.warnings),
        Err(problems) => {
            let (errors, notes): (Vec<_>, Vec<_>) =
                problems.into_iter().partition(|problem| problem.severity == Severity::Error);
            match errors.is_empty() {
                true => (Ok(None), notes),
                false => (Err(errors), notes),
            }
        }
    }
}

/// The object without what the API server added to it.
fn as_written(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        let prefix = metadata.remove("generateName");
        let prefix = prefix.as_ref().and_then(Value::as_str);
        // The API server makes the name when everybody has agreed.
        if let (Some(prefix), None) = (prefix, metadata.get("name")) {
            metadata.insert("name".to_owned(), Value::from(format!("{prefix}00000")));
        }
    }
    object
}

/// What its author probably did not mean, seen beside the objects in force.
async fn findings(plane: &Arc<Plane>, lint: &Arc<Semaphore>, object: Object) -> Vec<Problem> {
    let (plane, lint) = (Arc::clone(plane), Arc::clone(lint));
    let work = async move {
        // One at a time: many objects that come together are many looks at the whole mesh.
        let permit = lint.acquire_owned().await.ok()?;
        let look = tokio::task::spawn_blocking(move || {
            let name = object.object_ref();
            let collected = Collected::of(plane.snapshot().registry()).with(object);
            let mut problems = collected.analyze();
            problems.retain(|problem| problem.object.as_ref() == Some(&name));
            drop(permit);
            problems
        });
        look.await.ok()
    };
    timeout(LINT_TIMEOUT, work).await.ok().flatten().unwrap_or_default()
}

/// The ConfigMap of the control plane: both of its keys must be readable.
fn config_map(request: &Request) -> Answer {
    let is_ours =
        request.name == CONFIG || request.name.strip_prefix(CONFIG).is_some_and(|rest| rest.starts_with('-'));
    let text = |key: &str| request.object.pointer("/data")?.get(key)?.as_str();
    let (mesh, inject) = (text(CONFIG_MESH), text(CONFIG_INJECT));
    if !is_ours || (mesh, inject) == (None, None) {
        return Answer::admit();
    }
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    if let Some(text) = mesh {
        let (errors, doubts) = mesh_config(text);
        problems.extend(errors);
        warnings.extend(doubts);
    }
    if let Some(Err(error)) = inject.map(InjectSettings::parse) {
        let place = format!("data[{CONFIG_INJECT}]");
        problems.push(problem(&place, &error.to_string(), "docs/injection.md lists every setting."));
    }
    let warnings = warnings.iter().map(told).collect();
    match problems.is_empty() {
        true => Answer { warnings, ..Answer::admit() },
        false => Answer { warnings, ..Answer::refuse(Refusal::invalid(refusal(&problems))) },
    }
}

/// Errors and doubts of the settings of the mesh.
fn mesh_config(text: &str) -> (Vec<Problem>, Vec<Problem>) {
    let documents = manifest::parse("", text, &LowerContext::default()).documents;
    let placed = |mut problem: Problem| {
        let line = problem.origin.line;
        problem.field = match problem.field.is_empty() {
            true => format!("data[{CONFIG_MESH}] line {line}"),
            false => format!("data[{CONFIG_MESH}] line {line}, {}", problem.field),
        };
        problem
    };
    let is_other = |document: &manifest::Document| match &document.outcome {
        Ok(Object::MeshConfig(_)) => false,
        Ok(_) => true,
        Err(problems) => problems.iter().all(|problem| problem.severity != Severity::Error),
    };
    let mut errors: Vec<Problem> = documents
        .iter()
        .flat_map(|document| document.outcome.as_ref().err().into_iter().flatten())
        .filter(|problem| problem.severity == Severity::Error)
        .cloned()
        .map(placed)
        .collect();
    if documents.len() != 1 || documents.iter().any(is_other) {
        let place = format!("data[{CONFIG_MESH}]");
        errors.push(problem(&place, "must hold one document of kind MeshConfig", ""));
    }
    let doubts =
        documents.iter().flat_map(|document| document.warnings.iter().cloned().map(placed)).collect();
    (errors, doubts)
}

fn problem(field: &str, message: &str, hint: &str) -> Problem {
    Problem {
        code: "IST0106".to_owned(),
        severity: Severity::Error,
        object: None,
        origin: Origin::default(),
        field: field.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

/// Every problem, as `kubectl` prints it behind the name of the webhook.
fn refusal(problems: &[Problem]) -> String {
    if let [one] = problems {
        return said(one);
    }
    let listed = problems.iter().take(PROBLEMS_MAX).map(|problem| format!("\n  - {}", said(problem)));
    let mut text = format!("{} problems:", problems.len());
    text.extend(listed);
    if problems.len() > PROBLEMS_MAX {
        text.push_str(&format!("\n  - and {} more", problems.len() - PROBLEMS_MAX));
    }
    text
}

/// A warning, with the code by which `meshctl analyze` explains it.
fn told(problem: &Problem) -> String {
    format!("[{}] {}", problem.code, said(problem))
}

#[cfg(test)]
mod tests;
