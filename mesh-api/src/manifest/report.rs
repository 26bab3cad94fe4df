//! The problems of one document, as they are found.

use std::sync::Arc;

use super::tree::{Place, push_name};
use crate::model::{ObjectRef, Origin};
use crate::problem::{Problem, Severity};

/// A document that breaks the schema or a rule.
pub(super) const INVALID: &str = "IST0106";
/// A document that is valid and probably not meant so.
pub(super) const DOUBTFUL: &str = "IST0133";
/// A field or kind that is valid and has no effect in this version.
pub(super) const NOT_ENFORCED: &str = "MM0601";
/// A document that is not the mesh's.
pub(super) const FOREIGN: &str = "MM0602";

/// Most problems told of one document; nobody reads more, and a hostile one must not fill the log.
const PROBLEMS_MAX: usize = 100;
/// Longest piece of a user's text that is quoted in a message, in characters.
const QUOTED_MAX: usize = 80;

/// Collects the problems of one document.
#[derive(Debug)]
pub(super) struct Report {
    file: Arc<str>,
    object: Option<ObjectRef>,
    problems: Vec<Problem>,
    has_errors: bool,
    omitted: usize,
}

impl Report {
    pub(super) fn new(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), object: None, problems: Vec::new(), has_errors: false, omitted: 0 }
    }

    /// States whose document it is.
    pub(super) fn identify(&mut self, object: Option<ObjectRef>) {
        self.object = object;
    }

    pub(super) fn has_errors(&self) -> bool {
        self.has_errors
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The value at `at` is refused.
    pub(super) fn error(&mut self, at: Place<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.add((INVALID, Severity::Error), (at.line(), at.path()), message.into(), hint.into());
    }

    /// Something is wrong at a line that no value stands on.
    pub(super) fn error_at_line(&mut self, line: u32, message: String, hint: &str) {
        self.add((INVALID, Severity::Error), (line, String::new()), message, hint.to_owned());
    }

    /// The field `name` that the map at `at` should have.
    pub(super) fn missing(&mut self, at: Place<'_>, name: &str, hint: &str) {
        let mut path = at.path();
        push_name(&mut path, name);
        self.add((INVALID, Severity::Error), (at.line(), path), "is missing".to_owned(), hint.to_owned());
    }

    /// The value at `at` is taken, and probably not meant so.
    pub(super) fn warn(&mut self, at: Place<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.add((DOUBTFUL, Severity::Warning), (at.line(), at.path()), message.into(), hint.into());
    }

    /// The value at `at` is valid and has no effect; `effect` says what happens instead.
    pub(super) fn not_enforced(&mut self, at: Place<'_>, effect: &str) {
        let message = match effect {
            "" => "accepted but not enforced by this version".to_owned(),
            effect => format!("accepted but not enforced by this version: {effect}"),
        };
        self.add((NOT_ENFORCED, Severity::Warning), (at.line(), at.path()), message, String::new());
    }

    /// Something worth knowing about the value at `at`.
    pub(super) fn note(&mut self, code: &str, at: Place<'_>, message: impl Into<String>, hint: &str) {
        self.add((code, Severity::Info), (at.line(), at.path()), message.into(), hint.to_owned());
    }

    /// A problem of an object that stands within the document.
    pub(super) fn adopt(&mut self, problem: Problem) {
        let place = (problem.origin.line, problem.field);
        self.add((&problem.code, problem.severity), place, problem.message, problem.hint);
    }

    fn add(&mut self, code: (&str, Severity), place: (u32, String), message: String, hint: String) {
        let (code, severity) = code;
        let (line, field) = place;
        let is_first_error = severity == Severity::Error && !self.has_errors;
        self.has_errors |= severity == Severity::Error;
        if self.problems.len() >= PROBLEMS_MAX {
            self.omitted += 1;
            if !is_first_error {
                return;
            }
            // The first error displaces what is not one: it is the reason for the refusal.
            self.problems.pop();
        }
        self.problems.push(Problem {
            code: code.to_owned(),
            severity,
            object: None,
            origin: Origin { file: Arc::clone(&self.file), line },
            field,
            message,
            hint,
        });
    }

    /// Everything found, in order of line.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        if self.omitted > 0
            && let Some(last) = self.problems.last_mut()
        {
            last.message.push_str(&format!(", and {} more problems in this document", self.omitted));
        }
        self.problems.sort_by_key(|problem| problem.origin.line);
        for problem in &mut self.problems {
            problem.object.clone_from(&self.object);
        }
        self.problems
    }
}

/// A user's text, short enough to quote.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Values in words: `a, b or c`.
pub(super) fn alternatives<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The known name nearest to one that is not known, unless even that is unlike what was written.
pub(super) fn nearest<'n>(written: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if written.len() > QUOTED_MAX {
        return None;
    }
    let wanted = letters(written);
    let likeness = |name: &'n str| {
        let candidate = letters(name);
        let edits = distance(&wanted, &candidate);
        let is_part = wanted.len() >= 4 && (name.starts_with(written) || written.starts_with(name));
        (edits <= (wanted.len().max(candidate.len()) / 3).max(1) || is_part).then_some((edits, name))
    };
    known.into_iter().filter_map(likeness).min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

/// Letters and digits in lower case: `portLevelMTLS` and `port_level_mtls` are the same word.
fn letters(name: &str) -> Vec<char> {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Letters to insert, delete, replace or swap with their neighbour to make one of the other.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut edits = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i - 1] == *b && right[j - 1] == *a {
                edits = edits.min(before_last[j - 1] + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_an_unlike_one_is_not() {
        let known = ["rules", "action", "selector", "portLevelMtls", "notPaths"];
        for (written, expected) in [
            ("ruels", Some("rules")),
            ("acton", Some("action")),
            ("Action", Some("action")),
            ("port_level_mtls", Some("portLevelMtls")),
            ("notPath", Some("notPaths")),
            ("select", Some("selector")),
            ("image", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
    }
}
