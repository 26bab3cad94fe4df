//! Which line of a file a field of a document stands on.
//!
//! Objects of the model know the line of their document only. Whoever finds something out about one of their
//! fields later (analysis looks at many objects together) asks here.

use std::collections::HashMap;

use super::split::split;
use super::tree::{Place, build};

/// The lines of one document's fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    by_path: HashMap<String, u32>,
}

impl Lines {
    /// Reads a document. `text` is the document's own, `line` that of its first key in its file.
    #[must_use]
    pub fn of(text: &str, line: u32) -> Self {
        let mut lines = Self::default();
        let Some(chunk) = split(text).into_iter().next() else { return lines };
        let (tree, _) = build(chunk);
        if let Some(root) = tree.root() {
            lines.add(root, line.wrapping_sub(root.line()));
        }
        lines
    }

    fn add(&mut self, place: Place<'_>, offset: u32) {
        self.by_path.insert(place.path(), place.line().wrapping_add(offset));
        place.children().for_each(|child| self.add(child, offset));
    }

    /// The line of a field such as `spec.rules[0].to`; that of the nearest parent when there is no such field.
    #[must_use]
    pub fn line(&self, field: &str) -> Option<u32> {
        let mut path = field;
        loop {
            if let Some(line) = self.by_path.get(path) {
                return Some(*line);
            }
            // Names in brackets may hold dots: the last bracket goes first.
            let end = match path.strip_suffix(']').and_then(|open| open.rfind('[')) {
                Some(bracket) => bracket,
                None => path.rfind(['.', '[']).unwrap_or(0),
            };
            if path.is_empty() {
                return None;
            }
            path = &path[..end];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_where_they_stand() {
        let text = "# a comment\nkind: X\nspec:\n  rules:\n  - to:\n    - a: [x,\n        y]\n  b.c/d: 1\n";
        let lines = Lines::of(text, 12);
        for (field, line) in [
            ("", 12),
            ("kind", 12),
            ("spec.rules", 14),
            ("spec.rules[0]", 15),
            ("spec.rules[0].to[0].a", 16),
            ("spec.rules[0].to[0].a[1]", 17),
            ("spec[b.c/d]", 18),
            ("spec[b.c/e]", 13),
            ("spec.rules[7].from[0].source", 14),
            ("nothing", 12),
        ] {
            assert_eq!(lines.line(field), Some(line), "{field}");
        }
    }
}
