//! What is in force of one folder (pure).
//!
//! A file that is gone takes its objects with it, unless that looks like an accident: the folder itself is
//! gone or cannot be read, or one look finds that everything has disappeared, or that most of many files
//! have. Then what disappeared is held, file by file, until it comes back or an operator confirms that it
//! is to go. Objects that are found in another file have moved and are not missed.
//!
//! A folder whose only object is deleted is taken at its word: that is what deleting a document looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use mesh_api::admin::SourceStatus;
use mesh_api::model::ObjectRef;
use mesh_api::problem::Problem;

use super::document::{Context, InForce};
use super::file::{FileState, Reading, about_file};
use super::last_good::Record;

/// From this number of files on, the disappearance of more than half at once is taken for an accident.
const MANY_FILES: usize = 10;

/// What one look at a folder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// It is not there, or cannot be listed, and why.
    Gone(String),
    /// Its files by name; and the parts that could not be listed, by the prefix of their names, and why.
    Listed {
        /// Files.
        files: BTreeMap<Arc<str>, Reading>,
        /// Parts that could not be listed.
        unlisted: BTreeMap<Arc<str>, String>,
    },
}

/// Whether a look may remove much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obey {
    /// Not if it looks like an accident.
    UnlessAccident,
    /// An operator has confirmed it.
    Everything,
}

/// What a look changed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Anything that a reader of the folder can see.
    pub has_changed: bool,
    /// Files whose last good versions are to be stored, or removed.
    pub stored: Vec<(Arc<str>, Option<Vec<InForce>>)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Known {
    state: FileState,
    /// The file has disappeared and its objects are held.
    is_vanished: bool,
}

/// What is in force of one folder.
#[derive(Debug, Default)]
pub struct Folder {
    files: BTreeMap<Arc<str>, Known>,
    /// Why the folder itself cannot be looked at.
    gone: Option<String>,
    unlisted: BTreeMap<Arc<str>, String>,
}

impl Folder {
    /// Takes up what was stored: the state before the first look.
    #[must_use]
    pub fn restore(records: Vec<Record>, context: &Context) -> Self {
        let mut files = BTreeMap::new();
        for record in records {
            let mut ignored = Vec::new();
            let read = |document: &super::last_good::StoredDocument| {
                let origin = mesh_api::model::Origin { file: Arc::clone(&record.file), line: document.line };
                super::file::reread(&origin, &document.text, context, &mut ignored)
            };
            let in_force = record.documents.iter().filter_map(read).collect();
            let state = FileState { in_force, problems: Vec::new(), digest: None };
            files.insert(record.file, Known { state, is_vanished: false });
        }
        Self { files, gone: None, unlisted: BTreeMap::new() }
    }

    /// Reads every text in force anew, in another context.
    pub fn reread(&mut self, context: &Context) {
        for known in self.files.values_mut() {
            known.state.reread(context);
        }
    }

    /// Takes a look in.
    pub fn advance(&mut self, scan: Scan, context: &Context, obey: Obey) -> Outcome {
        let mut outcome = Outcome::default();
        let (readings, gone, unlisted) = match scan {
            Scan::Gone(reason) => (BTreeMap::new(), Some(reason), BTreeMap::new()),
            Scan::Listed { files, unlisted } => (files, None, unlisted),
        };
        outcome.has_changed |= self.gone != gone || self.unlisted != unlisted;
        self.gone = gone;
        self.unlisted = unlisted;
        for (file, reading) in &readings {
            let former = self.files.get(file);
            let was_vanished = former.is_some_and(|known| known.is_vanished);
            if let Some(state) = FileState::next(former.map(|known| &known.state), file, reading, context) {
                outcome.stored.push((Arc::clone(file), Some(state.in_force.clone())));
                self.files.insert(Arc::clone(file), Known { state, is_vanished: false });
                outcome.has_changed = true;
            } else if was_vanished && let Some(known) = self.files.get_mut(file) {
                known.is_vanished = false;
                outcome.has_changed = true;
            }
        }
        self.take_away(&readings, obey, &mut outcome);
        outcome
    }

    /// Removes or holds the files that are not there any more.
    fn take_away(&mut self, readings: &BTreeMap<Arc<str>, Reading>, obey: Obey, outcome: &mut Outcome) {
        let missing: Vec<Arc<str>> = self
            .files
            .keys()
            .filter(|file| !readings.contains_key(*file) && !self.is_unlisted(file))
            .cloned()
            .collect();
        let is_accident = match obey {
            Obey::Everything => false,
            Obey::UnlessAccident => self.gone.is_some() || self.looks_like_accident(readings, &missing),
        };
        for file in missing {
            let Some(known) = self.files.get_mut(&file) else { continue };
            let is_held_already = known.is_vanished && obey == Obey::UnlessAccident;
            if (is_accident || is_held_already) && !known.state.in_force.is_empty() {
                outcome.has_changed |= !std::mem::replace(&mut known.is_vanished, true);
                // Should the file come back, it is read anew, whatever it holds.
                known.state.digest = None;
            } else {
                self.files.remove(&file);
                outcome.stored.push((file, None));
                outcome.has_changed = true;
            }
        }
    }

    fn looks_like_accident(&self, readings: &BTreeMap<Arc<str>, Reading>, missing: &[Arc<str>]) -> bool {
        let objects = |is_missing: bool| -> BTreeSet<&ObjectRef> {
            self.files
                .iter()
                .filter(|(file, _)| readings.contains_key(*file) != is_missing)
                .flat_map(|(_, known)| known.state.in_force.iter().map(|entry| &entry.object))
                .collect()
        };
        let (present, gone) = (objects(false), objects(true));
        let lost = gone.difference(&present).count();
        let before = present.len() + lost;
        let is_emptied = present.is_empty() && lost > 1;
        let is_most_of_many =
            self.files.len() >= MANY_FILES && missing.len() * 2 > self.files.len() && lost * 2 > before;
        is_emptied || is_most_of_many
    }

    fn is_unlisted(&self, file: &str) -> bool {
        self.unlisted.keys().any(|prefix| file.starts_with(&**prefix))
    }

    /// Adds what is in force, and what is wrong.
    pub fn collect(&self, documents: &mut Vec<InForce>, problems: &mut Vec<Problem>) {
        for (file, known) in &self.files {
            problems.extend(known.state.problems.iter().cloned());
            let is_held = known.is_vanished || self.is_unlisted(file);
            documents.extend(
                known
                    .state
                    .in_force
                    .iter()
                    .map(|entry| InForce { is_held: entry.is_held || is_held, ..entry.clone() }),
            );
        }
        for (part, reason) in &self.unlisted {
            problems.push(about_file(part, "MM0103", format!("cannot be listed: {reason}")));
        }
    }

    /// State for operators.
    #[must_use]
    pub fn status(&self, path: &Path) -> SourceStatus {
        let is_vanished = |known: &&Known| known.is_vanished;
        let vanished = self.files.values().filter(is_vanished).count();
        let mut held: Vec<ObjectRef> = self
            .files
            .iter()
            .flat_map(|(file, known)| {
                let all = known.is_vanished || self.is_unlisted(file);
                known.state.in_force.iter().filter(move |entry| all || entry.is_held)
            })
            .map(|entry| entry.object.clone())
            .collect();
        held.sort();
        let suspended = match (&self.gone, vanished) {
            (Some(reason), _) => Some(format!("the folder cannot be looked at: {reason}")),
            (None, 0) => None,
            (None, count) => {
                Some(format!("{count} files disappeared at once; what they held stays in force"))
            }
        };
        SourceStatus {
            path: path.to_string_lossy().into_owned(),
            files: self.files.len() - vanished,
            objects: self.files.values().map(|known| known.state.in_force.len()).sum(),
            held,
            suspended,
            missing: None,
        }
    }
}
