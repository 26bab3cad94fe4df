//! The user's configuration folder, as it is changed by `apply` and `delete`.
//!
//! An object that stands in a file of the user is changed in place, within that file; a new one gets a file
//! of its own. All changes are made in memory first, so that nothing is written unless all can be; then file
//! by file, each complete or not at all. A lock on the folder keeps two commands from losing each other's
//! changes.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::manifest::{self, LowerContext};
use mesh_api::model::ObjectRef;
use serde_json::{Value, json};

use super::piece::{self, Piece};
use super::{input, kind, say_the_same, value};

/// Mode of a new file: configuration holds no secrets.
const FILE_MODE: u32 = 0o644;

/// Why the folder cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It stands in several places.
    #[error("{object} stands in several places: {}", places.join(", "))]
    Several {
        /// The object.
        object: ObjectRef,
        /// `FILE:LINE` of each.
        places: Vec<String>,
    },
}

/// What a change of an object amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was not there.
    Created,
    /// It said something else.
    Configured,
    /// It said the same.
    Unchanged,
}

impl Change {
    /// The change as kubectl says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The folder. The lock is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ConfigFolder {
    root: PathBuf,
    files: Vec<ConfigFile>,
    _lock: File,
}

#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    pieces: Vec<Piece>,
    documents: Vec<Stored>,
    is_changed: bool,
}

/// A document of a file.
#[derive(Debug, Clone)]
struct Stored {
    /// Whose it is, when that can be told.
    object: Option<ObjectRef>,
    text: Arc<str>,
    line: u32,
    /// Position of its piece; several documents share one in a `kind: List`.
    piece: usize,
}

impl ConfigFolder {
    /// Reads the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn open(root: &Path, context: &LowerContext) -> Result<Self, FolderError> {
        fs::create_dir_all(root).map_err(failed("make", root))?;
        let lock = File::open(root).map_err(failed("open", root))?;
        lock.lock().map_err(failed("lock", root))?;
        let mut paths = Vec::new();
        input::list(root, 0, &mut paths).map_err(failed("list", root))?;
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            let text = File::open(&path).and_then(input::bounded).map_err(failed("read", &path))?;
            files.push(ConfigFile::read(path, &text, context));
        }
        Ok(Self { root: root.to_owned(), files, _lock: lock })
    }

    /// Where an object stands, as `FILE:LINE`.
    pub(crate) fn places(&self, object: &ObjectRef) -> Vec<String> {
        let places = self.files.iter().flat_map(|file| {
            let found = file.documents.iter().filter(|stored| stored.object.as_ref() == Some(object));
            found.map(|stored| format!("{}:{}", file.path.display(), stored.line))
        });
        places.collect()
    }

    /// Makes an object say `text`.
    ///
    /// # Errors
    /// When it stands in several places, so that none could be said to be the one.
    pub(crate) fn put(
        &mut self,
        object: &ObjectRef,
        text: &str,
        context: &LowerContext,
    ) -> Result<Change, FolderError> {
        let places = self.places(object);
        if places.len() > 1 {
            return Err(FolderError::Several { object: object.clone(), places });
        }
        for file in &mut self.files {
            if let Some(stored) = file.documents.iter().find(|stored| stored.object.as_ref() == Some(object))
            {
                if say_the_same(&stored.text, text) {
                    return Ok(Change::Unchanged);
                }
                file.edit(object, Some(text), context);
                return Ok(Change::Configured);
            }
        }
        let path = self.free_path(object);
        let mut pieces = Vec::new();
        piece::append(&mut pieces, text);
        let mut file = ConfigFile::read(path, &piece::join(&pieces), context);
        file.is_changed = true;
        self.files.push(file);
        Ok(Change::Created)
    }

    /// Takes an object out, wherever it stands. Whether it stood anywhere.
    pub(crate) fn remove(&mut self, object: &ObjectRef, context: &LowerContext) -> bool {
        let mut was_there = false;
        for file in &mut self.files {
            while file.documents.iter().any(|stored| stored.object.as_ref() == Some(object)) {
                file.edit(object, None, context);
                was_there = true;
            }
        }
        was_there
    }

    /// Writes what has changed. Files in which nothing is left are removed.
    ///
    /// # Errors
    /// When a file cannot be written; those before it are.
    pub(crate) fn write(&self) -> Result<(), FolderError> {
        for file in self.files.iter().filter(|file| file.is_changed) {
            let path = &file.path;
            if piece::is_blank(&file.pieces) {
                fs::remove_file(path).map_err(failed("remove", path))?;
            } else {
                write_file(path, piece::join(&file.pieces).as_bytes()).map_err(failed("write", path))?;
            }
        }
        Ok(())
    }

    fn free_path(&self, object: &ObjectRef) -> PathBuf {
        let stem = kind::file_stem(object);
        let names =
            std::iter::once(format!("{stem}.yaml")).chain((2..).map(|n: u32| format!("{stem}-{n}.yaml")));
        let is_free = |path: &PathBuf| !path.exists() && self.files.iter().all(|file| file.path != *path);
        names
            .map(|name| self.root.join(name))
            .find(is_free)
            .expect("among endless names one is free, since the files of a folder are not endless")
    }
}

impl ConfigFile {
    fn read(path: PathBuf, text: &str, context: &LowerContext) -> Self {
        let pieces = piece::cut(text);
        let parsed = manifest::parse(&path.to_string_lossy(), text, context);
        let documents = parsed
            .documents
            .into_iter()
            .map(|document| Stored {
                object: document
                    .outcome
                    .as_ref()
                    .ok()
                    .map(manifest::Object::object_ref)
                    .or(document.identity),
                line: document.origin.line,
                piece: piece_at(&pieces, document.origin.line),
                text: document.text,
            })
            .collect();
        Self { path, pieces, documents, is_changed: false }
    }

    /// Replaces an object's document, or removes it.
    fn edit(&mut self, object: &ObjectRef, text: Option<&str>, context: &LowerContext) {
        let Some(found) = self.documents.iter().find(|stored| stored.object.as_ref() == Some(object)) else {
            return;
        };
        let at = found.piece;
        let line = found.line;
        let beside = self.documents.iter().filter(|stored| stored.piece == at);
        let new: Vec<Arc<str>> = beside
            .filter_map(|stored| {
                match (stored.object.as_ref() == Some(object) && stored.line == line, text) {
                    (true, text) => text.map(Arc::from),
                    (false, _) => Some(Arc::clone(&stored.text)),
                }
            })
            .collect();
        let is_json = self.path.extension().is_some_and(|extension| extension == "json");
        let documents: Vec<&str> = new.iter().map(AsRef::as_ref).collect();
        if documents.is_empty() {
            piece::remove(&mut self.pieces, at);
        } else if is_json {
            let text = as_json(&documents);
            piece::replace(&mut self.pieces, at, &[&text]);
        } else {
            piece::replace(&mut self.pieces, at, &documents);
        }
        let path = std::mem::take(&mut self.path);
        let text = piece::join(&self.pieces);
        *self = Self { is_changed: true, ..Self::read(path, &text, context) };
    }
}

/// Documents as JSON, which knows no several documents: they become a List.
fn as_json(documents: &[&str]) -> String {
    let mut values: Vec<Value> = documents.iter().filter_map(|text| value(text)).collect();
    let value = match values.len() {
        1 => values.swap_remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": values}),
    };
    format!("{value:#}\n")
}

/// The piece on which a line of the file stands.
fn piece_at(pieces: &[Piece], line: u32) -> usize {
    let begins = |piece: &Piece| match piece {
        Piece::Content { line, .. } => Some(*line),
        Piece::Marker(_) => None,
    };
    let at = pieces.iter().rposition(|piece| begins(piece).is_some_and(|begin| begin <= line));
    at.unwrap_or_else(|| pieces.iter().position(|piece| begins(piece).is_some()).unwrap_or(0))
}

/// Writes a file, complete or not at all, with the mode and owner of the one that it replaces, or the owner
/// of the folder: under `sudo` files stay the user's.
fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    // A link is followed, so that it stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The name begins with a dot, so that a watcher of the folder passes it over.
    let temporary = folder.join(format!(".{name}.{}.new", std::process::id()));
    let (mode, owner) = match fs::metadata(&path) {
        Ok(found) => (found.mode() & 0o777, (found.uid(), found.gid())),
        Err(_) => fs::metadata(folder).map(|found| (FILE_MODE, (found.uid(), found.gid())))?,
    };
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    let written = write();
    if written.is_err() {
        // What was begun is of no use to anybody; why it failed is what counts.
        let _gone = fs::remove_file(&temporary);
    }
    written
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
