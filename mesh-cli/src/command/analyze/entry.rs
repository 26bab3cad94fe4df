//! A message as it is printed, wherever it comes from (pure).

use mesh_api::model::Origin;
use mesh_api::problem::{Problem, Severity};
use mesh_policy::analyze::{Finding, Named};
use serde::Serialize;

use crate::output;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) code: String,
    pub(super) severity: Severity,
    pub(super) subject: Option<Named>,
    pub(super) origin: Origin,
    pub(super) field: String,
    pub(super) message: String,
    pub(super) hint: String,
    /// YAML, possibly empty.
    pub(super) fix: String,
}

impl From<Problem> for Entry {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code,
            severity: problem.severity,
            subject: problem.object.as_ref().map(Named::from),
            origin: problem.origin,
            field: problem.field,
            message: problem.message,
            hint: problem.hint,
            fix: String::new(),
        }
    }
}

impl From<Finding> for Entry {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code.id.to_owned(),
            severity: finding.severity,
            subject: Some(finding.subject),
            origin: finding.origin,
            field: finding.field,
            message: finding.message,
            hint: finding.hint,
            fix: finding.fix,
        }
    }
}

/// A message for programs: istioctl's fields, and those that it has no place for.
#[derive(Debug, Serialize)]
pub(super) struct Message<'e> {
    code: &'e str,
    level: String,
    /// `KIND NAMESPACE/NAME`.
    origin: String,
    /// `FILE:LINE`.
    reference: String,
    field: &'e str,
    message: &'e str,
    hint: &'e str,
    /// YAML, possibly empty.
    fix: &'e str,
}

impl<'e> From<&'e Entry> for Message<'e> {
    fn from(entry: &'e Entry) -> Self {
        Self {
            code: &entry.code,
            level: entry.severity.to_string(),
            origin: entry.subject.as_ref().map(ToString::to_string).unwrap_or_default(),
            reference: entry.place(),
            field: &entry.field,
            message: &entry.message,
            hint: &entry.hint,
            fix: &entry.fix,
        }
    }
}

impl Entry {
    fn place(&self) -> String {
        match (self.origin.file.is_empty(), self.origin.line) {
            (true, _) => String::new(),
            // A file as a whole.
            (false, 0) => self.origin.file.to_string(),
            (false, _) => self.origin.to_string(),
        }
    }

    /// Errors first, each severity in order of file and line.
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |entry: &Self| {
            (entry.origin.file.clone(), entry.origin.line, entry.code.clone(), entry.message.clone())
        };
        other.severity.cmp(&self.severity).then_with(|| key(self).cmp(&key(other)))
    }

    /// As istioctl prints it, in one line; below it, indented, the field and what to do.
    pub(super) fn print(&self) {
        let word = self.severity.to_string();
        let word = match self.severity {
            Severity::Error => output::bad(&word),
            Severity::Warning => output::doubtful(&word),
            Severity::Info => word,
        };
        let subject = self.subject.as_ref().map(ToString::to_string);
        let place = Some(self.place()).filter(|place| !place.is_empty());
        let of: Vec<String> = subject.into_iter().chain(place).collect();
        output::line(&format!("{word} [{}] ({}) {}", self.code, of.join(" "), self.message));
        let advice: Vec<&str> =
            [self.field.as_str(), self.hint.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
        if !advice.is_empty() {
            output::line(&format!("    {}", advice.join(": ")));
        }
        for row in self.fix.lines() {
            output::line(&format!("      {row}"));
        }
    }
}
