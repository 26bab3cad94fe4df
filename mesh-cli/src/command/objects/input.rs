//! Documents from what is named on the command line: files, folders, or `-` for standard input.
//!
//! Folders are read as the control plane reads them: files that end in `.yaml`, `.yml` or `.json`, in every
//! sub-folder, without those whose names begin with a dot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mesh_api::admin::ObjectSummary;
use mesh_api::manifest::folder::{DEPTH_MAX, FILE_BYTES_MAX, FILES_MAX, is_hidden, is_manifest};
use mesh_api::manifest::{self, Document, LowerContext, Object, Parsed};
use mesh_api::model::{Kind, MeshSettings, ObjectRef};
use mesh_api::name::Namespace;
use mesh_api::problem::{Problem, Severity};

use crate::command::{EXIT_USAGE, Failure};

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Its name, as the user would write it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

/// One file and its documents.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Its name.
    pub(crate) name: String,
    /// Its documents.
    pub(crate) parsed: Parsed,
}

impl Reading {
    /// Problems of at least this severity.
    pub(crate) fn problems(&self, least: Severity) -> impl Iterator<Item = &Problem> {
        self.parsed.problems().filter(move |problem| problem.severity >= least)
    }
}

/// Reads files, folders and standard input.
///
/// # Errors
/// When something cannot be read, or there is nothing.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = bounded(io::stdin().lock())
                .map_err(|error| unreadable(Path::new("standard input"), &error))?;
            inputs.push(Input { name: "stdin".to_owned(), text });
            continue;
        }
        let mut files = Vec::new();
        if path.is_dir() {
            list(path, 0, &mut files).map_err(|error| unreadable(path, &error))?;
            files.sort();
        } else {
            files.push(path.clone());
        }
        for file in files {
            let text = File::open(&file).and_then(bounded).map_err(|error| unreadable(&file, &error))?;
            inputs.push(Input { name: file.to_string_lossy().into_owned(), text });
        }
    }
    if inputs.is_empty() {
        let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(format!("there is no YAML in {}", named.join(", ")))
            .hint("Files that end in .yaml, .yml or .json are read; names that begin with a dot are not.")
            .status(EXIT_USAGE));
    }
    Ok(inputs)
}

/// Lists the files of a folder.
///
/// # Errors
/// When a folder cannot be listed.
pub(crate) fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_hidden(&name) {
            continue;
        }
        if path.is_dir() {
            list(&path, depth + 1, files)?;
        } else if is_manifest(&name) {
            if files.len() >= FILES_MAX {
                return Err(io::Error::other(format!("it holds more than {FILES_MAX} files")));
            }
            files.push(path);
        }
    }
    Ok(())
}

/// Reads a text of bounded length.
///
/// # Errors
/// When it cannot be read, is too long or not UTF-8.
pub(crate) fn bounded(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Parses files in the light of settings. A MeshConfig among them counts for all of them.
pub(crate) fn parse(inputs: &[Input], context: &LowerContext) -> Vec<Reading> {
    let read_all = |context: &LowerContext| -> Vec<Reading> {
        let read = |input: &Input| Reading {
            name: input.name.clone(),
            parsed: manifest::parse(&input.name, &input.text, context),
        };
        inputs.iter().map(read).collect()
    };
    let readings = read_all(context);
    let settings = readings.iter().flat_map(|reading| &reading.parsed.documents).find_map(settings_of);
    match settings {
        Some(settings) if with_settings(context, settings) != *context => {
            read_all(&with_settings(context, settings))
        }
        Some(_) | None => readings,
    }
}

fn settings_of(document: &Document) -> Option<&MeshSettings> {
    match &document.outcome {
        Ok(Object::MeshConfig(config)) => Some(&config.settings),
        Ok(_) | Err(_) => None,
    }
}

/// `context` with what settings say about how documents are read.
fn with_settings(context: &LowerContext, settings: &MeshSettings) -> LowerContext {
    LowerContext {
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
        ..context.clone()
    }
}

/// The context of a running mesh, from the objects in force.
pub(crate) fn context_of(objects: &[ObjectSummary]) -> LowerContext {
    let context = LowerContext::default();
    let configs = objects.iter().filter(|object| object.kind == Kind::MeshConfig);
    let parsed = configs.map(|object| manifest::parse(&object.file, &object.yaml, &context));
    for file in parsed {
        if let Some(settings) = file.documents.iter().find_map(settings_of) {
            return with_settings(&context, settings);
        }
    }
    context
}

/// A namespace from a flag.
///
/// # Errors
/// When it is none.
pub(crate) fn namespace(text: &str) -> Result<Namespace, Failure> {
    Namespace::parse(text).map_err(|error| Failure::from(error).status(EXIT_USAGE))
}

/// Puts a document that states no namespace into one.
pub(crate) fn in_namespace(text: &str, namespace: &Namespace) -> String {
    let mut rows: Vec<&str> = text.split_inclusive('\n').collect();
    let metadata = rows.iter().position(|row| {
        let row = row.split('#').next().unwrap_or_default();
        row.trim_end() == "metadata:"
    });
    if let Some(at) = metadata
        && let Some(next) = rows.get(at + 1)
    {
        let indent = &next[..next.len() - next.trim_start_matches(' ').len()];
        if !indent.is_empty() && !next.trim().is_empty() {
            let row = format!("{indent}namespace: {namespace}\n");
            rows.insert(at + 1, &row);
            return rows.concat();
        }
    }
    // Braces in place of lines: what is written then has another form and says the same.
    let Some(mut value) = super::value(text) else { return text.to_owned() };
    if let Some(metadata) = value.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.insert("namespace".to_owned(), namespace.as_str().into());
    }
    serde_saphyr::to_string(&value).unwrap_or_else(|_| text.to_owned())
}

/// Objects that stand twice among the files, which is never meant.
pub(crate) fn twice(readings: &[Reading]) -> Vec<Problem> {
    let mut first: BTreeMap<ObjectRef, String> = BTreeMap::new();
    let mut problems = Vec::new();
    for document in readings.iter().flat_map(|reading| &reading.parsed.documents) {
        let Ok(object) = &document.outcome else { continue };
        let object = object.object_ref();
        if let Some(place) = first.get(&object) {
            problems.push(Problem {
                code: "MM0105".to_owned(),
                severity: Severity::Error,
                object: Some(object),
                origin: document.origin.clone(),
                field: String::new(),
                message: format!("is defined twice; the other stands at {place}"),
                hint: "Remove one of the two.".to_owned(),
            });
        } else {
            first.insert(object, document.origin.to_string());
        }
    }
    problems
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_added_where_a_person_would_write_it() {
        let namespace = Namespace::parse("backend").expect("a name");
        let text = "kind: X\nmetadata: # here\n  name: a\nspec: {}\n";
        assert_eq!(
            in_namespace(text, &namespace),
            "kind: X\nmetadata: # here\n  namespace: backend\n  name: a\nspec: {}\n"
        );
        let flow = in_namespace("{kind: X, metadata: {name: a}}", &namespace);
        assert!(flow.contains("namespace: backend") && flow.contains("name: a"), "{flow}");
    }

    #[test]
    fn what_is_not_text_is_refused() {
        assert!(bounded(&b"\xff\xfe"[..]).is_err());
        assert_eq!(bounded(&b"a: 1"[..]).expect("text"), "a: 1");
    }
}
