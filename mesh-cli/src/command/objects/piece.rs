//! A YAML file as the pieces it consists of, so that one document can change and the rest stays as it was
//! written, byte for byte (pure).
//!
//! A line that begins with `---` or `...` followed by white space divides documents wherever it stands: YAML
//! forbids such lines inside scalars (YAML 1.2.2, section 9.1.4).

/// One piece. The pieces of a file, put together again, are the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A line that divides documents.
    Marker(String),
    /// Everything between two of them.
    Content {
        /// The text.
        text: String,
        /// Line of the file on which it begins, from 1.
        line: u32,
    },
}

impl Piece {
    fn text(&self) -> &str {
        match self {
            Self::Marker(text) | Self::Content { text, .. } => text,
        }
    }
}

/// Cuts a file.
pub(crate) fn cut(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (row, line) in text.split_inclusive('\n').zip(1..) {
        match (marker(row), pieces.last_mut()) {
            (Some(Bare::Yes), _) => pieces.push(Piece::Marker(row.to_owned())),
            (None, Some(Piece::Content { text, .. })) => text.push_str(row),
            (Some(Bare::No) | None, _) => pieces.push(Piece::Content { text: row.to_owned(), line }),
        }
    }
    pieces
}

/// Puts pieces together.
pub(crate) fn join(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces {
        // A document that is followed by another ends with a line break.
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(piece.text());
    }
    text
}

/// Replaces the content at `at` by documents. A comment at its head stays, unless the new text has its own.
pub(crate) fn replace(pieces: &mut Vec<Piece>, at: usize, documents: &[&str]) {
    let Some(Piece::Content { text, line }) = pieces.get(at) else { return };
    let (line, head) = (*line, head_of(text).to_owned());
    let is_on_marker = marker(text).is_some();
    let mut new = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 || (is_on_marker && marker(document).is_none()) {
            new.push(Piece::Marker("---\n".to_owned()));
        }
        let keeps_head = index == 0 && head_of(document).is_empty() && !is_on_marker;
        let mut text = if keeps_head { format!("{head}{document}") } else { (*document).to_owned() };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        new.push(Piece::Content { text, line });
    }
    pieces.splice(at..=at, new);
}

/// Removes the content at `at` and one of the markers beside it.
pub(crate) fn remove(pieces: &mut Vec<Piece>, at: usize) {
    pieces.remove(at);
    if matches!(pieces.get(at), Some(Piece::Marker(_))) {
        pieces.remove(at);
    } else if at > 0 && matches!(pieces.get(at - 1), Some(Piece::Marker(_))) {
        pieces.remove(at - 1);
    }
}

/// Adds a document at the end.
pub(crate) fn append(pieces: &mut Vec<Piece>, document: &str) {
    if !pieces.is_empty() {
        pieces.push(Piece::Marker("---\n".to_owned()));
    }
    let end = if document.ends_with('\n') { "" } else { "\n" };
    pieces.push(Piece::Content { text: format!("{document}{end}"), line: 0 });
}

/// Whether nothing but comments and blank lines is left.
pub(crate) fn is_blank(pieces: &[Piece]) -> bool {
    let is_idle = |row: &str| row.trim().is_empty() || row.trim_start().starts_with('#');
    pieces.iter().all(|piece| match piece {
        Piece::Marker(_) => true,
        Piece::Content { text, .. } => text.lines().all(is_idle),
    })
}

/// Comments and blank lines before the first other line.
fn head_of(text: &str) -> &str {
    let mut end = 0;
    for row in text.split_inclusive('\n') {
        if !(row.trim().is_empty() || row.starts_with('#')) {
            break;
        }
        end += row.len();
    }
    &text[..end]
}

enum Bare {
    Yes,
    No,
}

fn marker(row: &str) -> Option<Bare> {
    let rest = row.strip_prefix("---").or_else(|| row.strip_prefix("..."))?;
    if !(rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
        return None;
    }
    let rest = rest.trim();
    Some(if rest.is_empty() || rest.starts_with('#') || row.starts_with("...") {
        Bare::Yes
    } else {
        Bare::No
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# about a\na: 1\n--- # next\nb: |\n  x\n  ---\n---\n# about c\nc: 3";

    fn edited(at: usize, documents: &[&str]) -> String {
        let mut pieces = cut(FILE);
        replace(&mut pieces, at, documents);
        join(&pieces)
    }

    #[test]
    fn the_pieces_of_a_file_are_the_file() {
        for text in
            [FILE, "", "a: 1", "---\na: 1\n---\n", "--- {a: 1}\n...\n--- |\n  x\n", "a: 1\r\n---\r\nb: 2\r\n"]
        {
            assert_eq!(join(&cut(text)), text);
        }
        let lines: Vec<u32> = cut(FILE)
            .iter()
            .filter_map(|piece| match piece {
                Piece::Content { line, .. } => Some(*line),
                Piece::Marker(_) => None,
            })
            .collect();
        assert_eq!(lines, [1, 4, 8]);
    }

    #[test]
    fn one_document_changes_and_the_others_stay_as_written() {
        assert_eq!(edited(2, &["b: new"]), FILE.replace("b: |\n  x\n  ---\n", "b: new\n"));
        assert_eq!(edited(0, &["a: 2\n"]), FILE.replace("a: 1", "a: 2"), "the comment stays");
        assert_eq!(edited(0, &["# new\na: 2\n"]), FILE.replace("# about a\na: 1", "# new\na: 2"));
        assert_eq!(edited(4, &["c: 4\n"]), FILE.replace("c: 3", "c: 4\n"));
        assert_eq!(edited(2, &["x: 1\n", "y: 2\n"]), FILE.replace("b: |\n  x\n  ---\n", "x: 1\n---\ny: 2\n"));
    }

    #[test]
    fn a_document_on_the_marker_line_keeps_its_marker() {
        let mut pieces = cut("a: 1\n--- {b: 1}\n");
        replace(&mut pieces, 1, &["b: 2\n"]);
        assert_eq!(join(&pieces), "a: 1\n---\nb: 2\n");
    }

    #[test]
    fn a_removed_document_takes_one_marker_with_it() {
        for (at, left) in [
            (0, "b: |\n  x\n  ---\n---\n# about c\nc: 3"),
            (2, "# about a\na: 1\n--- # next\n# about c\nc: 3"),
            (4, "# about a\na: 1\n--- # next\nb: |\n  x\n  ---\n"),
        ] {
            let mut pieces = cut(FILE);
            remove(&mut pieces, at);
            assert_eq!(join(&pieces), left);
        }
        let mut pieces = cut("# only\na: 1\n");
        remove(&mut pieces, 0);
        assert!(is_blank(&pieces));
    }

    #[test]
    fn a_document_is_added_behind_a_file_without_a_last_line_break() {
        let mut pieces = cut("a: 1");
        append(&mut pieces, "b: 2");
        assert_eq!(join(&pieces), "a: 1\n---\nb: 2\n");
    }
}
