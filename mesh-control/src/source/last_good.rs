//! The last good version of each object, kept over a kill: one small file for each file of the source.
//!
//! Without it, a control plane that starts while a file is half written would not know the objects in it,
//! and would take policies away from running proxies. The text is kept, not the parsed object, so that the
//! form on disk is the user's own and outlives every change of the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::problem::Problem;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::InForce;
use super::file::about_file;
use crate::state_file::{self, Durability, StateFileError};

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredDocument {
    /// Line in the file.
    pub line: u32,
    /// Text.
    pub text: Arc<str>,
}

/// What is stored of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The folder that it belongs to.
    pub folder: PathBuf,
    /// The file.
    pub file: Arc<str>,
    /// Its good documents.
    pub documents: Vec<StoredDocument>,
}

/// The store: a directory of its own.
#[derive(Debug)]
pub struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    /// Opens the store, making its directory if it is not there.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn open(directory: &Path) -> Result<Self, StateFileError> {
        state_file::make_directory(directory, 0o700)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// What is stored of a folder. A record that cannot be read is reported and passed over.
    #[must_use]
    pub fn load(&self, folder: &Path, problems: &mut Vec<Problem>) -> Vec<Record> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                problems.push(about_file(&self.name(), "MM0104", format!("cannot be listed: {error}")));
                return Vec::new();
            }
        };
        let mut records = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match state_file::read_json::<Record>(&path) {
                Ok(Some(record)) if record.folder == folder => records.push(record),
                Ok(_) => {}
                Err(error) => problems.push(self.failure(&error)),
            }
        }
        records.sort_by(|a, b| a.file.cmp(&b.file));
        records
    }

    /// Stores the good documents of a file, or removes what is stored of it.
    #[must_use]
    pub fn save(&self, folder: &Path, file: &Arc<str>, in_force: Option<&[InForce]>) -> Option<Problem> {
        let digest = Sha256::digest(format!("{}\0{file}", folder.display()).as_bytes());
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = self.directory.join(format!("{name}.json"));
        let documents: Vec<StoredDocument> = in_force
            .unwrap_or_default()
            .iter()
            .map(|entry| StoredDocument { line: entry.origin.line, text: Arc::clone(&entry.text) })
            .collect();
        if documents.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Some(about_file(
                    &self.name(),
                    "MM0104",
                    format!("a stored version cannot be removed: {error}"),
                )),
                Ok(()) | Err(_) => None,
            };
        }
        let record = Record { folder: folder.to_owned(), file: Arc::clone(file), documents };
        let written = state_file::write_json(&path, &record, Durability::Cached);
        written.err().map(|error| self.failure(&error))
    }

    fn name(&self) -> Arc<str> {
        super::display_name(&self.directory)
    }

    fn failure(&self, error: &StateFileError) -> Problem {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        about_file(&self.name(), "MM0104", format!("{error}{cause}"))
    }
}
