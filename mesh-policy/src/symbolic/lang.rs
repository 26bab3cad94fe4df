//! The languages that patterns denote, each as a small deterministic machine over bytes.
//!
//! One machine serves both for testing a text and for searching one, so the search cannot believe something
//! of a pattern that the test does not. The evaluator has its own code for the same patterns, and property
//! tests hold the two together.

use crate::authorize::template::is_template_byte;

/// A set of texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lang {
    /// Every text, the empty one too.
    All,
    /// Every text but the empty one.
    NonEmpty,
    /// This text alone.
    Exact(Box<[u8]>),
    /// Texts that start so.
    Prefix(Box<[u8]>),
    /// Texts that end so.
    Suffix(Matcher),
    /// Literals with any text between them; at least two.
    Glob(Box<[Matcher]>),
    /// A path template.
    Template(Box<[Piece]>, Option<Matcher>),
    /// Texts of which a part between slashes is in the inner language.
    Part(Part, Box<Self>),
    /// Texts whose part before the first `?` is in the inner language.
    BeforeQuery(Box<Self>),
}

/// A part of a text that is cut at slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Part {
    /// Slashes before the part.
    pub(super) skip: u32,
    /// Where it ends.
    pub(super) until: PartEnd,
}

/// Where a [`Part`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PartEnd {
    /// At the next slash, or the end of the text.
    Slash,
    /// At the end of the text.
    Text,
}

/// A piece of a template before its `{**}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Piece {
    /// These bytes.
    Literal(Box<[u8]>),
    /// One segment.
    Segment,
}

/// A literal that is looked for while a text passes (Knuth, Morris and Pratt).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Matcher {
    text: Box<[u8]>,
    /// For each length of a match, the length of the longest shorter one that is its suffix.
    fallback: Box<[u32]>,
}

impl Matcher {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut fallback = vec![0_u32; text.len() + 1];
        let mut length = 0_u32;
        for at in 1..text.len() {
            while length > 0 && text[at] != text[length as usize] {
                length = fallback[length as usize];
            }
            if text[at] == text[length as usize] {
                length += 1;
            }
            fallback[at + 1] = length;
        }
        Self { text: text.into(), fallback: fallback.into() }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    /// Length of the longest end of what passed that starts the literal.
    fn step(&self, mut matched: u32, byte: u8) -> u32 {
        if matched == self.len() {
            matched = self.fallback[matched as usize];
        }
        loop {
            if self.text.get(matched as usize) == Some(&byte) {
                return matched + 1;
            }
            if matched == 0 {
                return 0;
            }
            matched = self.fallback[matched as usize];
        }
    }
}

/// Where a machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Run {
    /// Whatever follows, the text is in the language.
    Sure,
    /// Whatever follows, it is not.
    Dead,
    /// It depends.
    At(u64),
}

/// Bits of a state below those that wrappers use.
const INNER_BITS: u32 = 40;
const INNER_MASK: u64 = (1 << INNER_BITS) - 1;
/// Bits of a position within a literal.
const POSITION_BITS: u32 = 24;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
/// Longest literal whose positions fit.
pub(super) const LITERAL_BYTES_MAX: usize = 1 << 20;

fn at(index: usize, position: u32) -> Run {
    Run::At((index as u64) << POSITION_BITS | u64::from(position))
}

fn position(state: u64) -> (usize, u32) {
    let index = usize::try_from(state >> POSITION_BITS).unwrap_or(usize::MAX);
    (index, u32::try_from(state & POSITION_MASK).unwrap_or(u32::MAX))
}

impl Lang {
    pub(super) fn suffix(text: &[u8]) -> Self {
        if text.is_empty() { Self::All } else { Self::Suffix(Matcher::new(text)) }
    }

    pub(super) fn prefix(text: &[u8]) -> Self {
        if text.is_empty() { Self::All } else { Self::Prefix(text.into()) }
    }

    /// `text` with a star for any run of bytes.
    pub(super) fn glob(text: &str) -> Self {
        let parts: Vec<&str> = text.split('*').collect();
        match &*parts {
            [only] => Self::Exact(only.as_bytes().into()),
            parts => Self::Glob(parts.iter().map(|part| Matcher::new(part.as_bytes())).collect()),
        }
    }

    /// Whether a text is in the language.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::NonEmpty => !text.is_empty(),
            Self::Exact(literal) => **literal == *text,
            Self::Prefix(literal) => text.starts_with(literal),
            Self::Suffix(literal) => text.ends_with(&literal.text),
            Self::Glob(_) | Self::Template(..) | Self::Part(..) | Self::BeforeQuery(_) => {
                let mut run = self.start();
                for byte in text {
                    match run {
                        Run::Sure => return true,
                        Run::Dead => return false,
                        Run::At(state) => run = self.step(state, *byte),
                    }
                }
                self.accepts(run)
            }
        }
    }

    /// The text, when there is only one.
    pub(super) fn only(&self) -> Option<&[u8]> {
        match self {
            Self::Exact(text) => Some(text),
            Self::All
            | Self::NonEmpty
            | Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Glob(_)
            | Self::Template(..)
            | Self::Part(..)
            | Self::BeforeQuery(_) => None,
        }
    }

    /// Calls `each` with every literal byte.
    pub(super) fn bytes(&self, each: &mut dyn FnMut(u8)) {
        match self {
            Self::All | Self::NonEmpty => {}
            Self::Exact(text) | Self::Prefix(text) => text.iter().for_each(|byte| each(*byte)),
            Self::Suffix(text) => text.text.iter().for_each(|byte| each(*byte)),
            Self::Glob(parts) => parts.iter().flat_map(|part| part.text.iter()).for_each(|byte| each(*byte)),
            Self::Template(head, tail) => {
                for piece in head {
                    if let Piece::Literal(text) = piece {
                        text.iter().for_each(|byte| each(*byte));
                    }
                }
                tail.iter().flat_map(|tail| tail.text.iter()).for_each(|byte| each(*byte));
            }
            Self::Part(_, inner) | Self::BeforeQuery(inner) => inner.bytes(each),
        }
    }

    pub(super) fn start(&self) -> Run {
        match self {
            Self::All => Run::Sure,
            Self::Prefix(text) if text.is_empty() => Run::Sure,
            Self::NonEmpty | Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) => Run::At(0),
            Self::Glob(parts) if parts.first().is_some_and(|part| part.text.is_empty()) => {
                enter_glob_part(parts, 1)
            }
            Self::Glob(_) | Self::Template(..) => Run::At(0),
            Self::Part(part, inner) if part.skip == 0 => running(inner.start()),
            Self::Part(part, _) => Run::At(u64::from(part.skip) << INNER_BITS),
            Self::BeforeQuery(inner) => inner.start(),
        }
    }

    pub(super) fn step(&self, state: u64, byte: u8) -> Run {
        match self {
            Self::All => Run::Sure,
            Self::NonEmpty => Run::Sure,
            Self::Exact(text) => match text.get(position(state).1 as usize) {
                Some(expected) if *expected == byte => Run::At(state + 1),
                _ => Run::Dead,
            },
            Self::Prefix(text) => match text.get(position(state).1 as usize) {
                Some(expected) if *expected != byte => Run::Dead,
                Some(_) if position(state).1 as usize + 1 < text.len() => Run::At(state + 1),
                _ => Run::Sure,
            },
            Self::Suffix(text) => Run::At(u64::from(text.step(position(state).1, byte))),
            Self::Glob(parts) => step_glob(parts, state, byte),
            Self::Template(head, tail) => step_template(head, tail.as_ref(), state, byte),
            Self::Part(part, inner) => step_part(*part, inner, state, byte),
            Self::BeforeQuery(inner) if byte == b'?' => ended(inner, Run::At(state)),
            Self::BeforeQuery(inner) => inner.step(state, byte),
        }
    }

    /// Whether the text may end here.
    pub(super) fn accepts(&self, run: Run) -> bool {
        let state = match run {
            Run::Sure => return true,
            Run::Dead => return false,
            Run::At(state) => state,
        };
        let (index, at) = position(state);
        match self {
            Self::All => true,
            Self::NonEmpty => false,
            Self::Exact(text) => at as usize == text.len(),
            Self::Prefix(text) => at as usize == text.len(),
            Self::Suffix(text) => at == text.len(),
            Self::Glob(parts) => index + 1 == parts.len() && at == parts[index].len(),
            Self::Template(head, tail) => match (head.get(index), tail) {
                (None, None) => true,
                (None, Some(tail)) => at == tail.len(),
                (Some(Piece::Segment), None) => index + 1 == head.len() && at == 1,
                (Some(_), _) => false,
            },
            Self::Part(_, inner) => state >> INNER_BITS == 0 && inner.accepts(Run::At(state & INNER_MASK)),
            Self::BeforeQuery(inner) => inner.accepts(run),
        }
    }
}

/// The inner machine's verdict about a part that ended.
fn ended(inner: &Lang, run: Run) -> Run {
    if inner.accepts(run) { Run::Sure } else { Run::Dead }
}

/// A wrapper's state while the inner machine runs: its own bits are zero.
fn running(run: Run) -> Run {
    match run {
        Run::At(state) => Run::At(state & INNER_MASK),
        Run::Sure => Run::Sure,
        Run::Dead => Run::Dead,
    }
}

fn step_part(part: Part, inner: &Lang, state: u64, byte: u8) -> Run {
    let skip = state >> INNER_BITS;
    if skip > 0 {
        return match (byte, skip) {
            (b'/', 1) => running(inner.start()),
            (b'/', _) => Run::At((skip - 1) << INNER_BITS),
            _ => Run::At(state),
        };
    }
    if byte == b'/' && part.until == PartEnd::Slash {
        return ended(inner, Run::At(state));
    }
    running(inner.step(state, byte))
}

/// Goes to part `index` of a glob, past parts that are empty.
fn enter_glob_part(parts: &[Matcher], mut index: usize) -> Run {
    while index + 1 < parts.len() && parts[index].text.is_empty() {
        index += 1;
    }
    match parts.get(index) {
        Some(last) if last.text.is_empty() => Run::Sure,
        Some(_) => at(index, 0),
        None => Run::Dead,
    }
}

fn step_glob(parts: &[Matcher], state: u64, byte: u8) -> Run {
    let (index, matched) = position(state);
    let Some(part) = parts.get(index) else { return Run::Dead };
    if index == 0 {
        return match part.text.get(matched as usize) {
            Some(expected) if *expected == byte && matched + 1 == part.len() => enter_glob_part(parts, 1),
            Some(expected) if *expected == byte => Run::At(state + 1),
            _ => Run::Dead,
        };
    }
    let matched = part.step(matched, byte);
    if matched == part.len() && index + 1 < parts.len() {
        return enter_glob_part(parts, index + 1);
    }
    at(index, matched)
}

fn step_template(head: &[Piece], tail: Option<&Matcher>, state: u64, byte: u8) -> Run {
    let (index, matched) = position(state);
    match (head.get(index), tail) {
        (Some(Piece::Literal(text)), _) => match text.get(matched as usize) {
            Some(expected) if *expected == byte && matched as usize + 1 == text.len() => at(index + 1, 0),
            Some(expected) if *expected == byte => Run::At(state + 1),
            _ => Run::Dead,
        },
        (Some(Piece::Segment), _) if byte == b'/' && matched == 1 => match at(index + 1, 0) {
            Run::At(next) => step_template(head, tail, next, byte),
            run @ (Run::Sure | Run::Dead) => run,
        },
        (Some(Piece::Segment), _) if is_template_byte(byte) => at(index, 1),
        (Some(Piece::Segment) | None, None) | (Some(Piece::Segment), Some(_)) => Run::Dead,
        (None, Some(tail)) if byte == b'/' || is_template_byte(byte) => at(index, tail.step(matched, byte)),
        (None, Some(_)) => Run::Dead,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::authorize::pattern::{Comparison, Glob, Patterns};
    use crate::authorize::template::Template;

    fn alphabet() -> impl Strategy<Value = String> {
        "[ab/*?%]{0,7}"
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn machines_take_what_the_evaluator_takes(pattern in alphabet(), text in alphabet()) {
            for comparison in [Comparison::Text, Comparison::Header] {
                let langs = super::super::atom::langs_of(&Patterns::parse(comparison, [&pattern]));
                let expected = Patterns::parse(comparison, [&pattern]).matches(text.as_bytes());
                prop_assert_eq!(langs.iter().any(|lang| lang.matches(text.as_bytes())), expected);
                prop_assert_eq!(langs.iter().any(|lang| walk(lang, text.as_bytes())), expected);
            }
            prop_assert_eq!(walk(&Lang::glob(&pattern), text.as_bytes()), Glob::new(&pattern).matches(&text));
        }

        #[test]
        fn templates_too(
            segments in prop::collection::vec(prop::sample::select(vec!["{*}", "{**}", "a", "b", "ab"]), 1..5),
            slash in prop::sample::select(vec!["", "/"]),
            text in "/[ab/|]{0,8}",
        ) {
            let pattern = format!("/{}{slash}", segments.join("/"));
            if let Some(template) = Template::parse(&pattern) {
                let lang = super::super::atom::lang_of_template(&template);
                prop_assert_eq!(walk(&lang, text.as_bytes()), template.matches(&text), "{} {}", pattern, text);
            }
        }

        #[test]
        fn parts_are_those_between_slashes(pattern in "[ab*]{1,4}", text in "[ab/]{0,9}", skip in 0_u32..3) {
            let inner = || Box::new(Lang::glob(&pattern));
            let glob = Glob::new(&pattern);
            let segment = Lang::Part(Part { skip, until: PartEnd::Slash }, inner());
            let expected = text.split('/').nth(skip as usize).is_some_and(|part| glob.matches(part));
            prop_assert_eq!(segment.matches(text.as_bytes()), expected);
            let rest = Lang::Part(Part { skip, until: PartEnd::Text }, inner());
            let expected = text.splitn(skip as usize + 1, '/').nth(skip as usize).is_some_and(|part| glob.matches(part));
            prop_assert_eq!(rest.matches(text.as_bytes()), expected);
        }

        #[test]
        fn queries_are_not_looked_at(pattern in "/[ab*]{0,4}", text in "/[ab?*]{0,8}") {
            let lang = Lang::BeforeQuery(Box::new(Lang::glob(&pattern)));
            let path = text.split('?').next().unwrap_or_default();
            prop_assert_eq!(lang.matches(text.as_bytes()), Glob::new(&pattern).matches(path));
        }
    }

    /// Byte by byte, without the shortcuts of `matches`.
    fn walk(lang: &Lang, text: &[u8]) -> bool {
        let mut run = lang.start();
        for byte in text {
            if let Run::At(state) = run {
                run = lang.step(state, *byte);
            }
        }
        lang.accepts(run)
    }
}
