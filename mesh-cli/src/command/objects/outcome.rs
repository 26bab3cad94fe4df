//! What became of objects, as `apply`, `delete` and `wait` say it: a line for each at once, or one document at
//! the end.
//!
//! The document is printed also when the command fails on the way, so that a program learns what was done
//! before.

use mesh_api::model::ObjectRef;
use serde::Serialize;

use super::kind;
use crate::output::{self, Format};

/// One object and what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// Outcomes in the form that is wanted. Dropping it prints the document.
#[derive(Debug)]
pub(crate) struct Outcomes {
    form: Format,
    is_dry_run: bool,
    entries: Vec<Entry>,
}

impl Outcomes {
    /// None yet.
    pub(crate) fn new(form: Format, is_dry_run: bool) -> Self {
        Self { form, is_dry_run, entries: Vec::new() }
    }

    /// One more.
    pub(crate) fn add(&mut self, object: &ObjectRef, outcome: &'static str) {
        if self.form == Format::Table {
            let suffix = if self.is_dry_run { " (dry run)" } else { "" };
            output::line(&format!("{} {outcome}{suffix}", kind::display(object)));
            return;
        }
        let namespace = match object.kind {
            mesh_api::model::Kind::Namespace => String::new(),
            _ => object.namespace.to_string(),
        };
        self.entries.push(Entry {
            kind: object.kind.as_str(),
            namespace,
            name: object.name.to_string(),
            outcome,
            dry_run: self.is_dry_run,
        });
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        if self.form != Format::Table {
            output::value(&self.entries, self.form);
        }
    }
}
