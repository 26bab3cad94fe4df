//! What is in force of one file (pure).
//!
//! A document that reads well is in force. One that does not keeps the last good version of its object; when
//! it cannot be told whose document it is, every object that the file held before and that is not there now
//! may be the one, so all of those are kept as long as such a document stands in the file. A file that
//! cannot be read, or that has become entirely empty, which is what a writer leaves who was stopped half
//! way, keeps everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::model::{ObjectRef, Origin};
use mesh_api::problem::{Problem, Severity};
use sha2::{Digest, Sha256};

use super::document::{self, Context, Document, InForce};

/// Digest of a file's content.
pub type ContentDigest = [u8; 32];

/// What a look at a file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Its content.
    Text(Arc<str>),
    /// It is as it was at the last look.
    Same,
    /// It is there and cannot be read, and why.
    Unreadable(String),
}

/// What is in force of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FileState {
    /// Objects in force, in order of the file; kept ones follow.
    pub in_force: Vec<InForce>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Digest of the content that was read; `None` when it could not be read.
    pub digest: Option<ContentDigest>,
}

impl FileState {
    /// The state after a look. `None` when it is the same as before.
    #[must_use]
    pub fn next(
        former: Option<&Self>,
        file: &Arc<str>,
        reading: &Reading,
        context: &Context,
    ) -> Option<Self> {
        match reading {
            Reading::Same => match former {
                Some(_) => None,
                None => Some(Self::default()),
            },
            Reading::Unreadable(reason) => {
                let next = Self::kept(former, about_file(file, "MM0101", reason.clone()));
                (former != Some(&next)).then_some(next)
            }
            Reading::Text(text) => {
                let digest: ContentDigest = Sha256::digest(text.as_bytes()).into();
                if former.is_some_and(|former| former.digest == Some(digest)) {
                    return None;
                }
                Some(Self::read(former, file, text, digest, context))
            }
        }
    }

    /// Everything as it was, with the reason.
    #[must_use]
    pub fn kept(former: Option<&Self>, problem: Problem) -> Self {
        let former = former.map(|former| former.in_force.as_slice()).unwrap_or_default();
        Self { in_force: former.iter().map(held).collect(), problems: vec![problem], digest: None }
    }

    fn read(
        former: Option<&Self>,
        file: &Arc<str>,
        text: &str,
        digest: ContentDigest,
        context: &Context,
    ) -> Self {
        let before = former.map(|former| former.in_force.as_slice()).unwrap_or_default();
        if text.trim().is_empty() && !before.is_empty() {
            let message = "the file is empty; what it held stays in force".to_owned();
            let mut problem = about_file(file, "MM0102", message);
            problem.hint = "Remove the file if its objects are to go.".to_owned();
            return Self { digest: Some(digest), ..Self::kept(former, problem) };
        }
        let mut problems = Vec::new();
        let documents = document::read(file, text, context, &mut problems);
        let mut in_force: Vec<InForce> = Vec::new();
        let mut broken = BTreeSet::new();
        let mut is_any_nameless = false;
        for document in documents {
            match document {
                Document::Good(good) => in_force.push(good),
                Document::Bad { identity: Some(object) } => drop(broken.insert(object)),
                Document::Bad { identity: None } => is_any_nameless = true,
                Document::Foreign => {}
            }
        }
        let present: BTreeSet<ObjectRef> = in_force.iter().map(|good| good.object.clone()).collect();
        let is_kept =
            |object: &ObjectRef| !present.contains(object) && (is_any_nameless || broken.contains(object));
        let kept: Vec<InForce> = before.iter().filter(|entry| is_kept(&entry.object)).map(held).collect();
        in_force.extend(kept);
        Self { in_force, problems, digest: Some(digest) }
    }

    /// Reads the texts in force anew, in another context.
    pub fn reread(&mut self, context: &Context) {
        let mut ignored = Vec::new();
        for entry in &mut self.in_force {
            if let Some(again) = reread(&entry.origin, &entry.text, context, &mut ignored) {
                *entry = InForce { is_held: entry.is_held, ..again };
            }
        }
        self.digest = None;
    }
}

/// Reads one document's text on its own, at its line.
pub(super) fn reread(
    origin: &Origin,
    text: &Arc<str>,
    context: &Context,
    problems: &mut Vec<Problem>,
) -> Option<InForce> {
    let documents = document::read(&origin.file, text, context, problems);
    documents.into_iter().find_map(|document| match document {
        Document::Good(good) => Some(InForce { origin: origin.clone(), text: Arc::clone(text), ..good }),
        Document::Bad { .. } | Document::Foreign => None,
    })
}

fn held(entry: &InForce) -> InForce {
    InForce { is_held: true, ..entry.clone() }
}

/// A problem of a whole file.
#[must_use]
pub fn about_file(file: &Arc<str>, code: &str, message: String) -> Problem {
    Problem {
        code: code.to_owned(),
        severity: Severity::Error,
        object: None,
        origin: Origin { file: Arc::clone(file), line: 0 },
        field: String::new(),
        message,
        hint: String::new(),
    }
}
