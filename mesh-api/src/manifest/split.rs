//! Cuts a file into its documents before any of them is parsed, so that a broken one cannot take its
//! neighbours with it.
//!
//! A line that starts with `---` or `...` and goes on with white space ends a document wherever it stands:
//! YAML forbids such lines inside scalars, block scalars included (YAML 1.2.2 section 9.1.4, production
//! `c-forbidden`). So looking at line starts alone is exact, and no parser state is needed.

/// One document's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk<'t> {
    /// The text, without the marker line before it unless content stands on that line.
    pub(super) text: &'t str,
    /// Line of the file on which `text` starts, from 1.
    pub(super) line: u32,
    /// Nothing follows it: a writer who was stopped half way was stopped here.
    pub(super) is_last: bool,
}

/// The documents of `text` in order. Those of comments and blank lines alone are left out.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut start = (0, 1);
    let (mut at, mut line) = (0, 1);
    for row in text.split_inclusive('\n') {
        let after = (at + row.len(), line + 1);
        match marker(row) {
            Some(Marker::Start { is_bare }) => {
                push(&mut chunks, &text[start.0..at], start.1);
                start = if is_bare { after } else { (at, line) };
            }
            Some(Marker::End) => {
                push(&mut chunks, &text[start.0..at], start.1);
                start = after;
            }
            None => {}
        }
        (at, line) = after;
    }
    push(&mut chunks, &text[start.0..], start.1);
    if let Some(last) = chunks.last_mut() {
        last.is_last = true;
    }
    chunks
}

enum Marker {
    /// `---`; bare when nothing but a comment follows on the line.
    Start { is_bare: bool },
    /// `...`.
    End,
}

fn marker(row: &str) -> Option<Marker> {
    let is_end = row.starts_with("...");
    if !is_end && !row.starts_with("---") {
        return None;
    }
    let rest = &row[3..];
    if !(rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
        return None;
    }
    let rest = rest.trim();
    Some(if is_end {
        Marker::End
    } else {
        Marker::Start { is_bare: rest.is_empty() || rest.starts_with('#') }
    })
}

fn push<'t>(chunks: &mut Vec<Chunk<'t>>, text: &'t str, line: u32) {
    let has_content = text.lines().map(str::trim).any(|row| !row.is_empty() && !row.starts_with('#'));
    let is_directive = |row: &str| row.is_empty() || row.starts_with(['%', '#']);
    if has_content && !text.lines().all(|row| is_directive(row.trim_end())) {
        chunks.push(Chunk { text, line, is_last: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(u32, &str)> {
        split(text).into_iter().map(|chunk| (chunk.line, chunk.text)).collect()
    }

    #[test]
    fn documents_are_cut_at_marker_lines() {
        assert_eq!(texts("a: 1\n---\nb: 2\n--- # c\nc: 3\n"), [(1, "a: 1\n"), (3, "b: 2\n"), (5, "c: 3\n")]);
        assert_eq!(texts("---\r\na: 1\r\n---\r\nb: 2"), [(2, "a: 1\r\n"), (4, "b: 2")]);
        assert_eq!(texts("a: 1\n...\n# end\n"), [(1, "a: 1\n")]);
    }

    #[test]
    fn content_on_the_marker_line_stays() {
        assert_eq!(texts("--- {a: 1}\n--- |\n  text\n"), [(1, "--- {a: 1}\n"), (2, "--- |\n  text\n")]);
    }

    #[test]
    fn dashes_that_are_text_cut_nothing() {
        for text in ["a: |\n  x\n  ---\n  y\n", "----\n", "---a: 1\n", "a: '\n --- '\n"] {
            assert_eq!(texts(text), [(1, text)], "{text:?}");
        }
    }

    #[test]
    fn what_holds_nothing_is_no_document() {
        for text in ["", "\n\n", "# only a comment\n", "---\n---\n", "%YAML 1.2\n---\n", "\u{feff}"] {
            assert_eq!(texts(text), [], "{text:?}");
        }
    }

    #[test]
    fn only_the_last_document_is_last() {
        let last: Vec<bool> = split("a: 1\n---\nb: 2\n---\n").iter().map(|chunk| chunk.is_last).collect();
        assert_eq!(last, [false, true]);
    }
}
