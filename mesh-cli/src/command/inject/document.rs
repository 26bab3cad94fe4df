//! Documents of a stream: read, injected, and written again (pure).

use std::collections::BTreeSet;

use mesh_kube::inject::{
    Decision, Injection, NamespaceMeta, Template, inject_object, templates, uninject_object,
};
use serde_json::Value;

use super::namespaces::{self, Namespaces};
use super::source::Source;
use crate::command::objects::input::Input;
use crate::command::objects::piece::{self, Piece};
use crate::command::{EXIT_DATA, Failure};

/// A piece of a file: a document, or what stands between two.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// File and line.
    pub(crate) place: String,
    /// As written.
    pub(crate) text: String,
    /// What it says; `None` for what divides documents, and for comments alone.
    pub(crate) object: Option<Value>,
    /// Whether it is the first piece of a file.
    is_first: bool,
}

/// What became of a document.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    text: String,
    is_first: bool,
    is_changed: bool,
    /// What it says now.
    pub(crate) object: Option<Value>,
    /// What to tell about it.
    pub(crate) remarks: Vec<String>,
}

/// The documents of a file.
///
/// # Errors
/// When one is no YAML.
pub(crate) fn read(input: &Input) -> Result<Vec<Document>, Failure> {
    let pieces = piece::cut(&input.text);
    let document = |(index, piece): (usize, &Piece)| {
        let is_first = index == 0;
        match piece {
            Piece::Marker(text) => {
                Ok(Document { place: input.name.clone(), text: text.clone(), object: None, is_first })
            }
            Piece::Content { text, line } => {
                let place = format!("{}:{line}", input.name);
                let object = parse(text).map_err(|message| {
                    Failure::new(format!("{place}: this is no YAML: {message}")).status(EXIT_DATA)
                })?;
                Ok(Document { place, text: text.clone(), object, is_first })
            }
        }
    };
    pieces.iter().enumerate().map(document).collect()
}

/// What a document says; `None` when it holds comments alone.
fn parse(text: &str) -> Result<Option<Value>, String> {
    let is_idle = |row: &str| row.trim().is_empty() || row.trim_start().starts_with('#');
    if text.lines().all(is_idle) {
        return Ok(None);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let value: Value =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    Ok((!value.is_null()).then_some(value))
}

/// The namespaces of all pods of documents.
pub(crate) fn namespaces(documents: &[Document], default: Option<&str>) -> BTreeSet<String> {
    let objects = documents.iter().filter_map(|document| document.object.as_ref());
    objects.flat_map(templates).map(|template| namespace_of(&template, default).to_owned()).collect()
}

/// The namespace that an object is created in.
pub(crate) fn namespace_of<'t>(template: &'t Template, default: Option<&'t str>) -> &'t str {
    if template.namespace.is_empty() { default.unwrap_or(namespaces::DEFAULT) } else { &template.namespace }
}

/// An object as it is told of: `Deployment "web"`.
pub(crate) fn told(template: &Template) -> String {
    let name = if template.name.is_empty() { "(no name)" } else { &template.name };
    format!("{} {name:?}", template.kind)
}

impl Document {
    /// Injects every pod in it.
    ///
    /// # Errors
    /// The reasons for which pods must not be created as they are.
    pub(crate) fn inject(
        self,
        namespaces: &Namespaces,
        source: &Source,
        default_namespace: Option<&str>,
    ) -> Result<Done, Vec<String>> {
        let Some(object) = self.object.clone() else { return Ok(self.unchanged()) };
        let (mut new, mut remarks, mut refused, mut is_changed) = (object.clone(), vec![], vec![], false);
        for template in templates(&object) {
            let namespace = namespaces.named(namespace_of(&template, default_namespace));
            match one(&new, &template, &namespace, source) {
                Ok((changed, injection)) => {
                    is_changed |= injection.decision.is_inject();
                    new = changed;
                    remarks.extend(remarks_of(&template, &injection));
                }
                Err(reason) => refused.push(format!("{}: {}: {reason}", self.place, told(&template))),
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        Ok(if is_changed { self.changed(new, remarks) } else { Done { remarks, ..self.unchanged() } })
    }

    /// Takes the proxy out of every pod in it.
    pub(crate) fn uninject(self) -> Done {
        let Some(object) = self.object.clone() else { return self.unchanged() };
        let (mut new, mut remarks, mut is_changed) = (object.clone(), vec![], false);
        for template in templates(&object) {
            match uninject_object(&new, &template) {
                Some(without) => {
                    (new, is_changed) = (without, true);
                    remarks.push(format!("{} uninjected", told(&template)));
                }
                None => remarks.push(format!("{} skipped: it has no proxy of this mesh", told(&template))),
            }
        }
        if is_changed { self.changed(new, remarks) } else { Done { remarks, ..self.unchanged() } }
    }

    fn unchanged(self) -> Done {
        Done {
            text: self.text,
            is_first: self.is_first,
            is_changed: false,
            object: self.object,
            remarks: Vec::new(),
        }
    }

    fn changed(self, object: Value, remarks: Vec<String>) -> Done {
        Done { text: self.text, is_first: self.is_first, is_changed: true, object: Some(object), remarks }
    }
}

fn one(
    object: &Value,
    template: &Template,
    namespace: &NamespaceMeta,
    source: &Source,
) -> Result<(Value, Injection), String> {
    inject_object(object, template, namespace, &source.settings, source.platform)
        .map_err(|error| error.to_string())
}

fn remarks_of(template: &Template, injection: &Injection) -> Vec<String> {
    let what = match &injection.decision {
        Decision::Inject { .. } => "injected".to_owned(),
        Decision::Skip { reason } | Decision::Refuse { reason } => format!("skipped: {reason}"),
    };
    let warnings = injection.warnings.iter().map(|warning| format!("  warning: {warning}"));
    std::iter::once(format!("{} {what}", told(template))).chain(warnings).collect()
}

/// The documents as one stream: those that did not change as they were written.
///
/// # Errors
/// When a document cannot be written so that it is read as it was.
pub(crate) fn stream(all: &[Done]) -> Result<String, String> {
    let mut text = String::new();
    for done in all {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        // A further file begins with a document of its own.
        if done.is_first && !text.is_empty() && !done.text.starts_with("---") {
            text.push_str("---\n");
        }
        match (&done.object, done.is_changed) {
            (Some(object), true) => {
                if done.text.starts_with("---") {
                    text.push_str("---\n");
                }
                text.push_str(&written(object)?);
            }
            (Some(_) | None, _) => text.push_str(&done.text),
        }
    }
    Ok(text)
}

/// An object as YAML, which has been read again: what is applied must be what was injected.
fn written(object: &Value) -> Result<String, String> {
    let text = serde_saphyr::to_string(object).map_err(|error| format!("it cannot be written: {error}"))?;
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(again) if again == *object => Ok(text),
        // JSON is YAML too, and has no two ways to read a text.
        Ok(_) | Err(_) => Ok(format!("{object:#}\n")),
    }
}

#[cfg(test)]
mod tests {
    use mesh_kube::inject::{InjectSettings, Platform};

    use super::*;

    const FILE: &str = "# first\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}   # kept\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - {name: app, image: app, env: [{name: A, value: \"yes\"}, {name: B, value: \"1e3\"}]}\n--- # next\nkind: Service\napiVersion: v1\n";

    fn source() -> Source {
        Source {
            settings: InjectSettings::default(),
            platform: Platform { native_sidecars: true },
            cluster: None,
        }
    }

    fn injected(text: &str) -> Result<(String, Vec<String>), Vec<String>> {
        let input = Input { name: "f.yaml".to_owned(), text: text.to_owned() };
        let documents = read(&input).expect("YAML");
        let mut namespaces = Namespaces::of(&documents);
        namespaces.ask_for("default");
        let done: Result<Vec<Done>, Vec<String>> =
            documents.into_iter().map(|document| document.inject(&namespaces, &source(), None)).collect();
        let done = done?;
        let remarks = done.iter().flat_map(|done| done.remarks.clone()).collect();
        Ok((stream(&done).expect("a stream"), remarks))
    }

    #[test]
    fn what_holds_no_pod_passes_byte_for_byte() {
        let (text, remarks) = injected(FILE).expect("injected");
        assert!(
            text.starts_with("# first\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}   # kept\n---\n")
        );
        assert!(text.ends_with("--- # next\nkind: Service\napiVersion: v1\n"), "{text}");
        assert!(text.contains("mesh-proxy") && text.contains("value: \"yes\""), "{text}");
        assert_eq!(remarks, ["Deployment \"web\" injected"]);
    }

    #[test]
    fn what_was_injected_is_left_alone_and_can_be_taken_out() {
        let (once, _) = injected(FILE).expect("injected");
        let (twice, remarks) = injected(&once).expect("injected");
        assert_eq!(once, twice);
        assert_eq!(remarks, ["Deployment \"web\" skipped: it has the proxy of this mesh already"]);
        let input = Input { name: "f.yaml".to_owned(), text: once };
        let done: Vec<Done> = read(&input).expect("YAML").into_iter().map(Document::uninject).collect();
        let out = stream(&done).expect("a stream");
        let objects = |text: &str| {
            let input = Input { name: String::new(), text: text.to_owned() };
            read(&input).expect("YAML").into_iter().map(|document| document.object).collect::<Vec<_>>()
        };
        assert_eq!(objects(&out), objects(FILE));
    }

    #[test]
    fn a_namespace_among_the_documents_is_heard() {
        let closed = "kind: Namespace\napiVersion: v1\nmetadata: {name: default, labels: {istio-injection: disabled}}\n---\n";
        let (text, remarks) = injected(&format!("{closed}{FILE}")).expect("skipped");
        assert_eq!(text, format!("{closed}{FILE}"));
        assert_eq!(
            remarks,
            ["Deployment \"web\" skipped: namespace label istio-injection turns injection off"]
        );
    }

    #[test]
    fn a_refusal_names_file_line_and_object() {
        let text = FILE.replace("name: app,", "name: mesh-proxy,");
        let reasons = injected(&text).expect_err("refused");
        assert_eq!(
            reasons,
            [
                "f.yaml:6: Deployment \"web\": the container \"mesh-proxy\" has a name that injection uses; rename it"
            ]
        );
    }

    #[test]
    fn every_pod_of_a_list_is_injected() {
        let pod =
            "{apiVersion: v1, kind: Pod, metadata: {name: N}, spec: {containers: [{name: app, image: a}]}}";
        let list = format!(
            "apiVersion: v1\nkind: List\nitems: [{}, {}]\n",
            pod.replace('N', "a"),
            pod.replace('N', "b")
        );
        let (text, remarks) = injected(&list).expect("injected");
        assert_eq!(remarks, ["Pod \"a\" injected", "Pod \"b\" injected"]);
        assert_eq!(text.matches("name: mesh-init").count(), 2);
    }
}
