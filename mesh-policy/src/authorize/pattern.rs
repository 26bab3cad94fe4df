//! String tests as AuthorizationPolicy writes them (SEMANTICS 6.4), one pattern or many.
//!
//! A star means something at the very start or the very end only, and the start is looked at first. All
//! tests run on bytes: header values need not be UTF-8, and one that is not must still be seen by a negated
//! test (TRAP 14).

use super::lookup::Lookup;

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pattern {
    /// `*`.
    Any,
    /// `abc*`.
    Prefix(Box<[u8]>),
    /// `*abc`.
    Suffix(Box<[u8]>),
    /// `abc`.
    Exact(Box<[u8]>),
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Any
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.as_bytes().into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.as_bytes().into())
        } else {
            Self::Exact(text.as_bytes().into())
        }
    }
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Byte for byte; `*` needs a non-empty value.
    Text,
    /// Byte for byte; `*` takes the empty value too (header-type fields).
    Header,
    /// As `Header`, without regard to ASCII case.
    Authority,
}

/// From how many exact values on they are hashed instead of compared in turn.
const HASHED_FROM: usize = 8;

/// A list of patterns, ORed.
#[derive(Debug, Clone)]
pub(crate) struct Patterns {
    comparison: Comparison,
    any: bool,
    exact: Exact,
    /// Prefixes and suffixes.
    partial: Box<[Pattern]>,
}

#[derive(Debug, Clone)]
enum Exact {
    Few(Box<[Box<[u8]>]>),
    Many(Lookup),
}

impl Patterns {
    pub(crate) fn new(comparison: Comparison, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let (mut any, mut exact, mut partial) = (false, Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                Pattern::Any => any = true,
                Pattern::Exact(text) => exact.push(fold_case(comparison, text)),
                Pattern::Prefix(text) => partial.push(Pattern::Prefix(fold_case(comparison, text))),
                Pattern::Suffix(text) => partial.push(Pattern::Suffix(fold_case(comparison, text))),
            }
        }
        exact.sort();
        exact.dedup();
        let exact = if exact.len() < HASHED_FROM {
            Exact::Few(exact.into())
        } else {
            Exact::Many(Lookup::build(exact.into_iter().map(|text| (text, 0))))
        };
        Self { comparison, any, exact, partial: partial.into() }
    }

    /// Parses and collects `texts`.
    pub(crate) fn parse<'t>(
        comparison: Comparison,
        texts: impl IntoIterator<Item = &'t (impl AsRef<str> + ?Sized + 't)>,
    ) -> Self {
        Self::new(comparison, texts.into_iter().map(|text| Pattern::parse(text.as_ref())))
    }

    /// How values are compared.
    pub(crate) fn comparison(&self) -> Comparison {
        self.comparison
    }

    /// Every pattern; in lower case when the comparison ignores case.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Pattern> {
        let exact: Vec<_> = match &self.exact {
            Exact::Few(texts) => texts.iter().map(|text| Pattern::Exact(text.clone())).collect(),
            Exact::Many(lookup) => lookup.keys().map(|text| Pattern::Exact(text.into())).collect(),
        };
        self.any.then_some(Pattern::Any).into_iter().chain(exact).chain(self.partial.iter().cloned())
    }

    /// Whether any pattern matches.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self.comparison {
            Comparison::Text => (self.any && !value.is_empty()) || self.matches_bytes(value),
            Comparison::Header => self.any || self.matches_bytes(value),
            Comparison::Authority => self.any || self.matches_ignoring_case(value),
        }
    }

    fn matches_bytes(&self, value: &[u8]) -> bool {
        (match &self.exact {
            Exact::Few(texts) => texts.iter().any(|text| **text == *value),
            Exact::Many(lookup) => lookup.contains(value),
        }) || self.partial.iter().any(|pattern| match pattern {
            Pattern::Any => true,
            Pattern::Exact(text) => **text == *value,
            Pattern::Prefix(text) => value.starts_with(text),
            Pattern::Suffix(text) => value.ends_with(text),
        })
    }

    fn matches_ignoring_case(&self, value: &[u8]) -> bool {
        (match &self.exact {
            Exact::Few(texts) => texts.iter().any(|text| text.eq_ignore_ascii_case(value)),
            Exact::Many(lookup) => {
                let mut buffer = [0; LOWERED_BYTES_MAX];
                match lowered(value, &mut buffer) {
                    Some(value) => lookup.contains(value),
                    None => lookup.keys().any(|text| text.eq_ignore_ascii_case(value)),
                }
            }
        }) || self.partial.iter().any(|pattern| match pattern {
            Pattern::Any => true,
            Pattern::Exact(text) => text.eq_ignore_ascii_case(value),
            Pattern::Prefix(text) => {
                value.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
            }
            Pattern::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .is_some_and(|start| value[start..].eq_ignore_ascii_case(text)),
        })
    }
}

/// Longest value that is brought to lower case on the stack; a DNS name with its port fits.
pub(crate) const LOWERED_BYTES_MAX: usize = 264;

/// `value` in ASCII lower case, or `None` when it is too long for the buffer.
pub(crate) fn lowered<'b>(value: &[u8], buffer: &'b mut [u8; LOWERED_BYTES_MAX]) -> Option<&'b [u8]> {
    let target = buffer.get_mut(..value.len())?;
    target.copy_from_slice(value);
    target.make_ascii_lowercase();
    Some(target)
}

fn fold_case(comparison: Comparison, mut text: Box<[u8]>) -> Box<[u8]> {
    if comparison == Comparison::Authority {
        text.make_ascii_lowercase();
    }
    text
}

/// A namespace pattern: every `*` stands for any run of characters (SEMANTICS 6.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Box<str>);

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The pattern as written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The text, if it holds no star.
    pub(crate) fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = value.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        // Each middle part is taken at its first place; the last one must end the value.
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str, value: &str) -> bool {
        Patterns::parse(Comparison::Text, [pattern]).matches(value.as_bytes())
    }

    #[test]
    fn a_star_counts_only_at_an_end_and_the_start_is_looked_at_first() {
        assert!(text("*", "x") && !text("*", ""));
        assert!(text("abc*", "abc") && text("abc*", "abcd") && !text("abc*", "ab"));
        assert!(text("*abc", "xabc") && text("*abc", "abc") && !text("*abc", "abcx"));
        assert!(text("*a*", "xa*") && !text("*a*", "xax"));
        assert!(text("**/x", "y*/x") && !text("**/x", "y/x"));
        assert!(text("/a/*/b", "/a/*/b") && !text("/a/*/b", "/a/c/b"));
    }

    #[test]
    fn a_header_that_is_present_but_empty_satisfies_the_star() {
        assert!(Patterns::parse(Comparison::Header, ["*"]).matches(b""));
        assert!(!Patterns::parse(Comparison::Text, ["*"]).matches(b""));
    }

    #[test]
    fn authorities_are_compared_without_regard_to_case() {
        for pattern in ["A.com", "a.C*", "*.Com"] {
            assert!(Patterns::parse(Comparison::Authority, [pattern]).matches(b"a.cOM"), "{pattern}");
        }
        let many: Vec<String> = (0..20).map(|n| format!("H{n}.com")).collect();
        let many = Patterns::parse(Comparison::Authority, &many);
        assert!(many.matches(b"h7.COM"));
        assert!(!many.matches(b"h7.com:80"));
        assert!(!many.matches("x".repeat(1_000).as_bytes()));
    }

    #[test]
    fn globs_take_a_star_anywhere_and_dots_literally() {
        for (glob, value, expected) in [
            ("team-*", "team-a", true),
            ("*-a", "team-a", true),
            ("t*m-*", "team-a", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "ab", true),
            ("ab*ab", "ab", false),
            ("a.b", "axb", false),
            ("*", "anything", true),
            ("team", "team-a", false),
        ] {
            assert_eq!(Glob::new(glob).matches(value), expected, "{glob} on {value}");
        }
    }
}
