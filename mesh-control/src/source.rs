//! Folders of YAML: what stands in them, and the last good version of each object.
//!
//! [`scan`] looks at the disk, [`document`] reads text, [`mod@file`] and [`folder`] decide what is in force
//! (pure), [`last_good`] keeps that over a kill, [`watch`] says when to look again. [`Directories`] puts
//! them together: [`Directories::look`] is one look at all folders, blocking, and answers what is in force
//! if anything has changed.
//!
//! What goes wrong with a file, a folder or the watching never removes an object: it stays as it was and a
//! problem says so. Only what is readable and gone on purpose is gone; see [`folder`] for what counts as an
//! accident.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::admin::SourceStatus;
use mesh_api::model::ObjectRef;
use mesh_api::problem::Problem;

pub mod document;
pub mod file;
pub mod folder;
pub mod kubernetes;
pub mod last_good;
pub mod scan;
pub mod watch;

pub use document::{Context, InForce, Payload};
use folder::{Folder, Obey};
use last_good::LastGood;
use scan::{Depth, Scanner};

/// What all folders hold together.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Documents in force, in order of folder, path and position.
    pub documents: Vec<InForce>,
    /// What is wrong with files and documents.
    pub problems: Vec<Problem>,
    /// State of each folder.
    pub folders: Vec<SourceStatus>,
}

/// What happened at a source that has one version of each object (a cluster), since the last time.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// Objects that are new or different.
    pub set: Vec<InForce>,
    /// Objects that are gone. None of them is also set.
    pub removed: Vec<ObjectRef>,
    /// What is wrong with all objects, if that is something else than before.
    pub problems: Option<Vec<Problem>>,
    /// State of each watch.
    pub sources: Vec<SourceStatus>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    scanner: Scanner,
    folder: Folder,
}

/// The watched folders.
#[derive(Debug)]
pub struct Directories {
    watched: Vec<Watched>,
    store: LastGood,
    context: Context,
    /// Nothing has been looked at yet, or the context has changed.
    is_stale: bool,
    /// What could not be read of the store at the start.
    unreadable: Vec<Problem>,
    /// What could not be stored; the store is well again once something could be.
    unstored: Vec<Problem>,
}

impl Directories {
    /// Takes up the last good versions kept in `store`. Nothing is looked at yet.
    #[must_use]
    pub fn new(paths: &[PathBuf], store: LastGood, context: Context) -> Self {
        let mut unreadable = Vec::new();
        let watched = paths
            .iter()
            .map(|path| {
                let folder = Folder::restore(store.load(path, &mut unreadable), &context);
                Watched { path: path.clone(), scanner: Scanner::new(path), folder }
            })
            .collect();
        Self { watched, store, context, is_stale: true, unreadable, unstored: Vec::new() }
    }

    /// The folders.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.watched.iter().map(|watched| watched.path.as_path())
    }

    /// Reads every document anew in another context: a changed cluster domain changes what short host names
    /// mean.
    pub fn set_context(&mut self, context: Context) {
        if self.context != context {
            self.context = context;
            self.is_stale = true;
            for watched in &mut self.watched {
                watched.folder.reread(&self.context);
                watched.scanner.forget();
            }
        }
    }

    /// Looks at every folder. Blocks on the disk. `None` when all is as it was.
    ///
    /// `confirmed` names folders whose emptiness an operator has confirmed.
    pub fn look(&mut self, depth: Depth, confirmed: &[PathBuf]) -> Option<View> {
        let mut has_changed = std::mem::take(&mut self.is_stale);
        for watched in &mut self.watched {
            let obey = match confirmed.contains(&watched.path) {
                true => Obey::Everything,
                false => Obey::UnlessAccident,
            };
            let scan = watched.scanner.scan(depth);
            let outcome = watched.folder.advance(scan, &self.context, obey);
            has_changed |= outcome.has_changed;
            for (file, state) in outcome.stored {
                match self.store.save(&watched.path, &file, state.as_deref()) {
                    Some(problem) if self.unstored.contains(&problem) => {}
                    Some(problem) => self.unstored.push(problem),
                    None => self.unstored.clear(),
                }
            }
        }
        has_changed.then(|| self.view())
    }

    fn view(&self) -> View {
        let problems = self.unreadable.iter().chain(&self.unstored).cloned().collect();
        let mut view = View { problems, ..View::default() };
        for watched in &self.watched {
            watched.folder.collect(&mut view.documents, &mut view.problems);
            view.folders.push(watched.folder.status(&watched.path));
        }
        view
    }
}

/// The name of a file as its user would write it.
fn display_name(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

#[cfg(test)]
mod tests;
