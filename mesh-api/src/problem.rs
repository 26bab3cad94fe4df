//! Problems: what is wrong with something a user wrote, where, and how to put it right.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{ObjectRef, Origin};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Accepted, but probably not meant.
    Warning,
    /// Refused: the last good version stays in force.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Analyzer code: Istio's where one exists (`IST0106`), else our own (`MM0001`).
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// The object, when the document could be read that far.
    pub object: Option<ObjectRef>,
    /// File and line: of the field when it is known, else of the document.
    pub origin: Origin,
    /// Path of the field, for instance `spec.rules[0].from[0].source.principals[1]`; empty for the whole.
    pub field: String,
    /// What is wrong: one clause.
    pub message: String,
    /// What to do about it: one sentence, possibly empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] (", self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, "{object}")?;
            if !self.origin.file.is_empty() {
                f.write_str(" ")?;
            }
        }
        if !self.origin.file.is_empty() {
            write!(f, "{}", self.origin)?;
        }
        f.write_str(") ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}
