//! Path templates: `{*}` for one segment, `{**}` for any number (SEMANTICS 6.6).
//!
//! A template is compiled to a short list of literals and operators and matched by walking the path once;
//! there is at most one `{**}`, and no operator follows it, so nothing ever backtracks.

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Literals and `{*}`, in order, up to `{**}` or the end.
    head: Box<[Piece]>,
    /// What follows `{**}`; `None` when there is none.
    tail: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Segment,
}

/// Whether a path pattern is a template.
pub(crate) fn is_template(pattern: &str) -> bool {
    pattern.contains("{*}") || pattern.contains("{**}")
}

impl Template {
    /// Compiles a template, or says `None` when it breaks the rules of SEMANTICS 6.6.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !text.starts_with('/') {
            return None;
        }
        let mut head = Vec::new();
        let mut literal = String::new();
        let mut tail: Option<String> = None;
        let segments: Vec<_> = text[1..].split('/').collect();
        for (index, segment) in segments.iter().enumerate() {
            let target = tail.as_mut().unwrap_or(&mut literal);
            target.push('/');
            match (*segment, &tail) {
                ("{*}", None) => {
                    head.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    head.push(Piece::Segment);
                }
                ("{**}", None) => {
                    head.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    tail = Some(String::new());
                }
                ("{*}" | "{**}", Some(_)) => return None,
                ("", _) if index + 1 < segments.len() => return None,
                (plain, _) if plain.bytes().all(|b| is_template_byte(b) && b != b'*') => {
                    tail.as_mut().unwrap_or(&mut literal).push_str(plain);
                }
                _ => return None,
            }
        }
        if !literal.is_empty() {
            head.push(Piece::Literal(literal.into()));
        }
        Some(Self { head: head.into(), tail: tail.map(Into::into) })
    }

    /// What comes before `{**}`, `None` for each `{*}`; and what comes behind it, when there is one.
    pub(crate) fn pieces(&self) -> (impl Iterator<Item = Option<&str>>, Option<&str>) {
        let head = self.head.iter().map(|piece| match piece {
            Piece::Literal(literal) => Some(&**literal),
            Piece::Segment => None,
        });
        (head, self.tail.as_deref())
    }

    /// The literal that every matching path starts with.
    pub(crate) fn literal_prefix(&self) -> &str {
        match self.head.first() {
            Some(Piece::Literal(literal)) => literal,
            Some(Piece::Segment) | None => "",
        }
    }

    /// The literal that every matching path ends with.
    pub(crate) fn literal_suffix(&self) -> &str {
        match (&self.tail, self.head.last()) {
            (Some(tail), _) => tail,
            (None, Some(Piece::Literal(literal))) => literal,
            (None, Some(Piece::Segment) | None) => "",
        }
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        for piece in &self.head {
            match piece {
                Piece::Literal(literal) => match rest.strip_prefix(&**literal) {
                    Some(after) => rest = after,
                    None => return false,
                },
                Piece::Segment => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    let (segment, after) = rest.split_at(end);
                    if segment.is_empty() || !segment.bytes().all(is_template_byte) {
                        return false;
                    }
                    rest = after;
                }
            }
        }
        match &self.tail {
            None => rest.is_empty(),
            Some(tail) => rest
                .strip_suffix(&**tail)
                .is_some_and(|middle| middle.bytes().all(|b| b == b'/' || is_template_byte(b))),
        }
    }
}

/// Bytes that an operator stands for.
pub(crate) fn is_template_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'+'
                | b','
                | b';'
                | b':'
                | b'@'
                | b'='
                | b'*'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        Template::parse(template).expect("a valid template").matches(path)
    }

    #[test]
    fn one_star_is_exactly_one_segment() {
        assert!(matches("/a/{*}/c", "/a/b/c"));
        assert!(!matches("/a/{*}/c", "/a//c"));
        assert!(!matches("/a/{*}/c", "/a/b/b/c"));
        assert!(!matches("/a/{*}", "/a/b/"));
        assert!(matches("/a/{*}/", "/a/b/"));
        assert!(matches("/{*}", "/*"));
        assert!(!matches("/{*}", "/"));
        assert!(matches("/a/{*}/{*}", "/a/b/c"));
    }

    #[test]
    fn two_stars_are_any_number_of_characters() {
        assert!(matches("/a/{**}", "/a/") && matches("/a/{**}", "/a/b/c") && !matches("/a/{**}", "/a"));
        assert!(matches("/a/{**}/b", "/a//b") && matches("/a/{**}/b", "/a/x/b"));
        assert!(!matches("/a/{**}/b", "/a/b"));
        assert!(matches("/{*}/{**}/z", "/a/b/c/z"));
    }

    #[test]
    fn operators_stand_for_their_alphabet_only() {
        assert!(!matches("/a/{*}", "/a/b\"c"));
        assert!(!matches("/a/{**}", "/a/b|c"));
        assert!(matches("/a/{**}", "/a/b%7Cc"));
    }

    #[test]
    fn malformed_templates_are_refused() {
        for bad in
            ["a/{*}", "/a{*}", "/{*}b", "/{**}/{*}", "/{**}/{**}", "/a//{*}", "/{*}/a*", "/{x}/{*}", "/{*}/|"]
        {
            assert_eq!(Template::parse(bad), None, "{bad}");
        }
    }
}
