//! Files of tests, and the policies that tests name: inline, by file, by folder, by pattern.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::manifest::policy_test::{self, PolicySource, PolicyTests, SourcedObject};
use mesh_api::manifest::{LowerContext, Object};
use mesh_api::model::{ObjectRef, Origin};
use mesh_api::name::Namespace;
use mesh_api::problem::{Problem, Severity};
use mesh_policy::policy_test::PolicySet;

use crate::command::objects::input;
use crate::command::policy::pattern;

/// A file of tests.
#[derive(Debug)]
pub(super) struct TestFile {
    /// Its name, as the user would write it.
    pub(super) name: String,
    /// The folder that it stands in.
    pub(super) folder: PathBuf,
    /// What was read of it.
    pub(super) read: PolicyTests,
}

/// Reads files of tests. In folders, files without a test are passed over.
pub(super) fn test_files(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<TestFile> {
    let mut files = Vec::new();
    for path in paths {
        let name = path.to_string_lossy().into_owned();
        if path.as_os_str() == "-" {
            match input::bounded(io::stdin().lock()) {
                Ok(text) => {
                    files.extend(test_file("stdin".to_owned(), PathBuf::from("."), &text, Named::ByUser))
                }
                Err(error) => problems.push(unreadable("stdin", &error)),
            }
        } else if path.is_dir() {
            let mut listed = Vec::new();
            if let Err(error) = input::list(path, 0, &mut listed) {
                problems.push(unreadable(&name, &error));
            }
            listed.sort();
            for path in listed {
                files.extend(test_file_at(&path, Named::ByFolder, problems));
            }
        } else {
            files.extend(test_file_at(path, Named::ByUser, problems));
        }
    }
    files
}

/// Who says that a file holds tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    ByUser,
    ByFolder,
}

fn test_file_at(path: &Path, named: Named, problems: &mut Vec<Problem>) -> Option<TestFile> {
    let name = path.to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(path).and_then(input::bounded) {
        Ok(text) => test_file(name, folder.to_owned(), &text, named),
        Err(error) => {
            problems.push(unreadable(&name, &error));
            None
        }
    }
}

fn test_file(name: String, folder: PathBuf, text: &str, named: Named) -> Option<TestFile> {
    // A file of a folder that does not speak of tests is none, broken or not.
    if named == Named::ByFolder && !text.contains("PolicyTest") {
        return None;
    }
    let mut read = policy_test::parse(&name, text);
    if named == Named::ByFolder && read.tests.is_empty() && !read.is_broken() {
        return None;
    }
    for other in std::mem::take(&mut read.others) {
        let hint = "Policies stand in spec.policies, or in files that it names: {file: policies.yaml}.";
        read.problems.push(problem(&name, other.line, "the document is not a PolicyTest", hint));
    }
    Some(TestFile { name, folder, read })
}

/// What was read of a file of policies.
type ReadObjects = Result<Arc<Vec<SourcedObject>>, Vec<Problem>>;

/// Files of policies that were read before: tests share them.
#[derive(Debug, Default)]
pub(in crate::command::policy) struct Sources {
    read: BTreeMap<(PathBuf, Namespace), ReadObjects>,
}

impl Sources {
    /// Gathers the policies of a test or case. `root` is the root namespace that it states.
    ///
    /// # Errors
    /// Everything that keeps them from being read.
    pub(in crate::command::policy) fn policy_set(
        &mut self,
        folder: &Path,
        sources: &[PolicySource],
        root: Option<&Namespace>,
    ) -> Result<PolicySet, Vec<Problem>> {
        let mut context = LowerContext::default();
        if let Some(root) = root {
            context.root_namespace.clone_from(root);
        }
        let mut gathered = Gathered::default();
        for source in sources {
            match source {
                PolicySource::Inline(object) => gathered.take(object),
                PolicySource::Files { pattern, origin } => match pattern::matching(folder, pattern) {
                    Ok(files) if files.is_empty() => {
                        let hint = "Patterns are relative to the file of the test.";
                        let message = format!("no file matches {pattern:?}");
                        gathered.problems.push(problem(&origin.file, origin.line, &message, hint));
                    }
                    Ok(files) => {
                        for file in files {
                            match self.objects(&file, &context) {
                                Ok(objects) => objects.iter().for_each(|object| gathered.take(object)),
                                Err(problems) => gathered.problems.extend(problems),
                            }
                        }
                    }
                    Err(error) => {
                        let message = format!("cannot read {pattern:?}: {error}");
                        gathered.problems.push(problem(&origin.file, origin.line, &message, ""));
                    }
                },
            }
        }
        if gathered.problems.is_empty() { Ok(gathered.set) } else { Err(gathered.problems) }
    }

    fn objects(&mut self, file: &Path, context: &LowerContext) -> ReadObjects {
        let key = (file.to_owned(), context.root_namespace.clone());
        self.read
            .entry(key)
            .or_insert_with(|| {
                let name = file.to_string_lossy().into_owned();
                let text = File::open(file).and_then(input::bounded);
                let text = text.map_err(|error| vec![unreadable(&name, &error)])?;
                policy_test::parse_policies(&name, &text, context).map(Arc::new)
            })
            .clone()
    }
}

/// Policies as they come together.
#[derive(Debug, Default)]
struct Gathered {
    set: PolicySet,
    seen: BTreeMap<ObjectRef, Origin>,
    problems: Vec<Problem>,
}

impl Gathered {
    fn take(&mut self, sourced: &SourcedObject) {
        let meta = sourced.object.meta();
        if let Some(other) = self.seen.insert(meta.object.clone(), meta.origin.clone()) {
            // The same document by two patterns is one document.
            if other != meta.origin {
                let Origin { file, line } = &meta.origin;
                let message = format!("{} is defined twice; the other stands at {other}", meta.object);
                self.problems.push(problem(file, *line, &message, "Remove one of the two."));
            }
            return;
        }
        let policies = &mut self.set.policies;
        match &sourced.object {
            Object::AuthorizationPolicy(policy) => {
                self.set.rule_lines.insert(meta.object.clone(), sourced.rule_lines.clone());
                policies.authorization.push(Arc::new(policy.clone()));
            }
            Object::PeerAuthentication(policy) => policies.peer_authentication.push(Arc::new(policy.clone())),
            Object::RequestAuthentication(policy) => {
                policies.request_authentication.push(Arc::new(policy.clone()));
            }
            Object::MeshConfig(config) => self.set.mesh = Some(config.settings.clone()),
            // They are valid, and no request is judged by them.
            Object::DestinationRule(_)
            | Object::VirtualService(_)
            | Object::Service(_)
            | Object::Workload(_)
            | Object::Telemetry(_)
            | Object::ServiceAccount(_)
            | Object::Namespace(_) => {}
        }
    }
}

/// A reason why a test cannot run.
pub(super) fn problem(file: &str, line: u32, message: &str, hint: &str) -> Problem {
    Problem {
        code: "IST0106".to_owned(),
        severity: Severity::Error,
        object: None,
        origin: Origin { file: file.into(), line },
        field: String::new(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

fn unreadable(name: &str, error: &io::Error) -> Problem {
    problem(name, 1, &format!("cannot be read: {error}"), "")
}
