//! The part of Go's templates that the chart uses, as Helm evaluates it.
//!
//! Own and small, because the chart is ours: it keeps to what stands here, and whatever goes beyond is an
//! error with file and line rather than something that is guessed. In detail:
//!
//! - `{{ … }}` with `{{-` and `-}}` that take white space away, and comments;
//! - `if`, `else if`, `else`, `with`, `range` (also `range $x := …` and `range $k, $v := …`), `define`, `end`;
//! - `.`, `.a.b`, `$`, `$x.a`, `(…).a`, texts in `"` and backticks, whole numbers, `true`, `false`, `nil`,
//!   `$x := …` and `$x = …`, pipelines;
//! - the functions of [`function`].
//!
//! Values are JSON values, whose maps are in order of their keys as Go's are when they are ranged over. A
//! field that is not there is null and prints as nothing; a field of null is an error, as in Go.

mod evaluate;
mod function;
mod parse;
mod scan;

use std::collections::BTreeMap;

use serde_json::Value;

use parse::Node;

/// Why a template cannot be read or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub(crate) struct TemplateError {
    /// Template.
    pub(crate) file: String,
    /// Line, from one.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// Templates that know each other by the names that they define.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    files: BTreeMap<String, Vec<Node>>,
    defined: BTreeMap<String, (String, Vec<Node>)>,
}

impl Templates {
    /// Reads one more file.
    ///
    /// # Errors
    /// When it goes beyond what this module understands.
    pub(crate) fn add(&mut self, file: &str, text: &str) -> Result<(), TemplateError> {
        let parsed = parse::parse(file, text)?;
        self.files.insert(file.to_owned(), parsed.nodes);
        for (name, nodes) in parsed.defined {
            self.defined.insert(name, (file.to_owned(), nodes));
        }
        Ok(())
    }

    /// What a file becomes with `context` as its `.` and `$`.
    ///
    /// # Errors
    /// When it cannot be evaluated, or says itself that it must not (`fail`, `required`).
    pub(crate) fn render(&self, file: &str, context: &Value) -> Result<String, TemplateError> {
        let nodes = self.files.get(file).map(Vec::as_slice).unwrap_or_default();
        evaluate::evaluate(self, file, nodes, context)
    }
}

#[cfg(test)]
mod tests;
