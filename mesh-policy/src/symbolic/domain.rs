//! Which texts an attribute can have at all, as deterministic machines over bytes.
//!
//! A counter-example must be a request that somebody can send, and "holds" must not be spoilt by one that
//! nobody can: a path is one that normalising can produce, an identity is one that the mesh's authority
//! issues, an authority is one that a proxy reads. Each machine is written after the code that admits such a
//! text, and the tests hold the two together.

use mesh_api::model::PathNormalization;

/// The texts of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Domain {
    /// Request methods.
    Method,
    /// Hosts with an optional port, in lower case. The second field are addresses in brackets, of which a
    /// finite number is told apart, with each of their beginnings.
    Authority { brackets: Vec<Vec<u8>>, starts: Vec<Vec<u8>> },
    /// Normalised paths, followed by a query when one is looked at.
    Target { mode: PathNormalization, query: Query },
    /// Names in a TLS handshake, in lower case.
    ServerName,
    /// Values of header lines.
    HeaderValue,
    /// Strings of a token.
    Claim,
    /// Identities of workloads without `spiffe://`, of these trust domains; each beginning is a state.
    Peer { domains: Vec<Vec<u8>>, starts: Vec<Vec<u8>> },
}

/// Whether queries are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Left,
    Kept,
}

/// State of every machine at its start.
pub(super) const START: u64 = 0;

/// State behind one of several words that may begin a text.
const BEHIND_WORDS: u64 = 1 << 32;

impl Domain {
    pub(super) fn peer<'d>(domains: impl IntoIterator<Item = &'d str>) -> Self {
        let domains: Vec<Vec<u8>> = domains.into_iter().map(|domain| domain.as_bytes().to_vec()).collect();
        let starts = starts(&domains);
        Self::Peer { domains, starts }
    }

    /// `addresses` are those that patterns tell apart; one more stands for all others.
    pub(super) fn authority(addresses: impl IntoIterator<Item = String>) -> Self {
        let mut brackets: Vec<Vec<u8>> = addresses.into_iter().map(String::into_bytes).collect();
        let other = (1..).map(|number| format!("[2001:db8::{number:x}]").into_bytes());
        brackets.extend(other.take(brackets.len() + 1).find(|other| !brackets.contains(other)));
        let starts = starts(&brackets);
        Self::Authority { brackets, starts }
    }

    /// Every byte that occurs, those that read best first.
    pub(super) fn alphabet(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = match self {
            Self::Method => (b'A'..=b'Z').collect(),
            Self::Authority { .. }
            | Self::Target { .. }
            | Self::ServerName
            | Self::HeaderValue
            | Self::Claim
            | Self::Peer { .. } => (b'a'..=b'z').collect(),
        };
        bytes.extend(b'0'..=b'9');
        let others = (b' '..=b'~').filter(|byte| !byte.is_ascii_alphanumeric());
        bytes.extend(others);
        bytes.extend(b'A'..=b'Z');
        bytes.dedup();
        bytes
    }

    pub(super) fn step(&self, state: u64, byte: u8) -> Option<u64> {
        match self {
            Self::Method => {
                let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                (is_token && !byte.is_ascii_lowercase()).then_some(1)
            }
            Self::Authority { brackets, starts } => step_authority(brackets, starts, state, byte),
            Self::Target { mode, query } => step_target(*mode, *query, state, byte),
            Self::ServerName => match (state, byte) {
                (_, b'a'..=b'z' | b'0'..=b'9' | b'_') => Some(1),
                (1 | 2, b'-') => Some(2),
                (1, b'.') => Some(0),
                _ => None,
            },
            Self::HeaderValue => step_header(state, byte),
            Self::Claim => step_utf8(state, byte),
            Self::Peer { domains, starts } => step_peer(domains, starts, state, byte),
        }
    }

    pub(super) fn accepts(&self, state: u64) -> bool {
        match self {
            Self::Method | Self::ServerName => state == 1,
            Self::Authority { brackets, starts } => match word(starts, state) {
                Some(word) => brackets.contains(word),
                None => state == HOST || state == HOST_PORT || state == BRACKET_PORT,
            },
            Self::Target { .. } => Target::of(state).may_end(),
            Self::HeaderValue => state >> 8 == 0 && state & 0xff != BEHIND_SPACE,
            Self::Claim => state == 0,
            Self::Peer { .. } => state == BEHIND_WORDS + IN_ACCOUNT,
        }
    }
}

/// Every beginning of every word, the empty one first.
fn starts(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut starts: Vec<Vec<u8>> =
        words.iter().flat_map(|word| (0..=word.len()).map(|length| word[..length].to_vec())).collect();
    starts.push(Vec::new());
    starts.sort();
    starts.dedup();
    starts
}

/// The word that a state stands behind, while it stands within one.
fn word(starts: &[Vec<u8>], state: u64) -> Option<&Vec<u8>> {
    starts.get(usize::try_from(state).unwrap_or(usize::MAX))
}

/// The state behind a word and one more byte.
fn step_word(starts: &[Vec<u8>], state: u64, byte: u8) -> Option<u64> {
    let mut longer = word(starts, state)?.clone();
    longer.push(byte);
    starts.binary_search(&longer).ok().map(|at| at as u64)
}

const HOST: u64 = BEHIND_WORDS + 1;
const HOST_PORT: u64 = BEHIND_WORDS + 2;
const BRACKET_PORT: u64 = BEHIND_WORDS + 3;

/// After the reader of authorities in `judge`, without those that no client sends: an empty host, and digits
/// behind a bracket without a colon.
fn step_authority(brackets: &[Vec<u8>], starts: &[Vec<u8>], state: u64, byte: u8) -> Option<u64> {
    let is_host = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._~!$&'()*+;=%".contains(&byte);
    match state {
        START if is_host => Some(HOST),
        HOST if is_host => Some(HOST),
        HOST if byte == b':' => Some(HOST_PORT),
        HOST_PORT | BRACKET_PORT => byte.is_ascii_digit().then_some(state),
        HOST => None,
        _ if byte == b':' && word(starts, state).is_some_and(|word| brackets.contains(word)) => {
            Some(BRACKET_PORT)
        }
        _ => step_word(starts, state, byte),
    }
}

const IN_DOMAIN_SLASH: u64 = 1;
const IN_NAMESPACE: u64 = 5;
const IN_NAMESPACE_HYPHEN: u64 = 6;
const IN_ACCOUNT: u64 = 11;

/// `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, with names as Kubernetes has them: what the authority issues, and with
/// it what any peer can be.
fn step_peer(domains: &[Vec<u8>], starts: &[Vec<u8>], state: u64, byte: u8) -> Option<u64> {
    let Some(phase) = state.checked_sub(BEHIND_WORDS) else {
        if byte == b'/' && word(starts, state).is_some_and(|word| domains.contains(word)) {
            return Some(BEHIND_WORDS + IN_DOMAIN_SLASH);
        }
        return step_word(starts, state, byte);
    };
    let is_name = byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let next = match (phase, byte) {
        (IN_DOMAIN_SLASH, b'n') => 2,
        (2, b's') => 3,
        (3, b'/') => 4,
        (4..=IN_NAMESPACE_HYPHEN, _) if is_name => IN_NAMESPACE,
        (IN_NAMESPACE | IN_NAMESPACE_HYPHEN, b'-') => IN_NAMESPACE_HYPHEN,
        (IN_NAMESPACE, b'/') => 7,
        (7, b's') => 8,
        (8, b'a') => 9,
        (9, b'/') => 10,
        (10..=12, _) if is_name => IN_ACCOUNT,
        (IN_ACCOUNT | 12, b'-') => 12,
        (IN_ACCOUNT, b'.') => 10,
        _ => return None,
    };
    Some(BEHIND_WORDS + next)
}

const BEHIND_SPACE: u64 = 2;

/// Visible text, without spaces at the ends: a reader takes those off (RFC 9110 section 5.5).
fn step_header(state: u64, byte: u8) -> Option<u64> {
    let open = state >> 8;
    if open > 0 || byte >= 0x80 {
        return step_utf8(open, byte).map(|open| open << 8 | 1);
    }
    match (state & 0xff, byte) {
        (START, b' ' | b'\t') => None,
        (_, b' ' | b'\t') => Some(BEHIND_SPACE),
        (_, 0x21..=0x7e) => Some(1),
        _ => None,
    }
}

/// How many bytes are missing to the character that was begun.
fn step_utf8(open: u64, byte: u8) -> Option<u64> {
    match (open, byte) {
        (0, 0..=0x7f) => Some(0),
        (0, 0xc2..=0xdf) => Some(1),
        (0, 0xe0..=0xef) => Some(2),
        (0, 0xf0..=0xf4) => Some(3),
        (1.., 0x80..=0xbf) => Some(open - 1),
        _ => None,
    }
}

/// Where a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    phase: Phase,
    segment: Segment,
    /// 0, 1 behind `%`, 2 behind `%` and a hex digit.
    escape: u8,
    /// That digit, or how many bytes a character of `NONE` lacks.
    digit: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Path,
    /// Behind a star alone, which only `NONE` keeps.
    Star,
    Query,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    Empty,
    Dot,
    Dots,
    Other,
}

impl Target {
    fn of(state: u64) -> Self {
        let byte = |at: u32| u8::try_from(state >> at & 0xff).unwrap_or(0);
        Self {
            phase: match byte(0) {
                0 => Phase::Start,
                1 => Phase::Path,
                2 => Phase::Star,
                _ => Phase::Query,
            },
            segment: match byte(8) {
                0 => Segment::Empty,
                1 => Segment::Dot,
                2 => Segment::Dots,
                _ => Segment::Other,
            },
            escape: byte(16),
            digit: byte(24),
        }
    }

    fn state(self) -> u64 {
        self.phase as u64
            | (self.segment as u64) << 8
            | u64::from(self.escape) << 16
            | u64::from(self.digit) << 24
    }

    fn may_end(self) -> bool {
        match self.phase {
            Phase::Start => false,
            Phase::Star => true,
            Phase::Path | Phase::Query => {
                !matches!(self.segment, Segment::Dot | Segment::Dots) && (self.escape > 0 || self.digit == 0)
            }
        }
    }
}

fn step_target(mode: PathNormalization, query: Query, state: u64, byte: u8) -> Option<u64> {
    let at = Target::of(state);
    let next = match (at.phase, byte) {
        (Phase::Start, b'/') => Target { phase: Phase::Path, segment: Segment::Empty, escape: 0, digit: 0 },
        (Phase::Start, b'*') if mode == PathNormalization::None => Target { phase: Phase::Star, ..at },
        (Phase::Start | Phase::Star, _) => return None,
        (Phase::Query, _) => {
            if !(0x21..=0x7e).contains(&byte) || byte == b'#' {
                return None;
            }
            at
        }
        (Phase::Path, b'?') if query == Query::Kept && at.may_end() => {
            Target { phase: Phase::Query, segment: Segment::Other, escape: 0, digit: 0 }
        }
        (Phase::Path, b'?' | b'#') => return None,
        (Phase::Path, _) if mode == PathNormalization::None => {
            if !(0x21..=0x7e).contains(&byte) && byte < 0x80 {
                return None;
            }
            let open = step_utf8(u64::from(at.digit), byte)?;
            Target { segment: Segment::Other, digit: u8::try_from(open).ok()?, ..at }
        }
        (Phase::Path, _) => step_path(mode, at, byte)?,
    };
    Some(next.state())
}

/// What SEMANTICS 5.2 leaves of a path, byte by byte.
fn step_path(mode: PathNormalization, at: Target, byte: u8) -> Option<Target> {
    if !(0x21..=0x7e).contains(&byte) || b"\"#<>?^`{|}\\".contains(&byte) {
        return None;
    }
    let segment = match (byte, at.segment) {
        (b'/', Segment::Dot | Segment::Dots) => return None,
        (b'/', Segment::Empty) if merges(mode) => return None,
        (b'/', _) => Segment::Empty,
        (b'.', Segment::Empty) => Segment::Dot,
        (b'.', Segment::Dot) => Segment::Dots,
        _ => Segment::Other,
    };
    let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (escape, digit) = match (at.escape, digit) {
        _ if byte == b'%' => (1, 0),
        (1, Some(digit)) => (2, digit),
        (2, Some(digit)) if !stays_escaped(mode, at.digit << 4 | digit) => return None,
        _ => (0, 0),
    };
    Some(Target { phase: Phase::Path, segment, escape, digit })
}

fn merges(mode: PathNormalization) -> bool {
    matches!(mode, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes)
}

/// Whether an escape for this byte survives normalising.
fn stays_escaped(mode: PathNormalization, byte: u8) -> bool {
    let is_decoded = byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte);
    let is_slash = mode == PathNormalization::DecodeAndMergeSlashes && matches!(byte, b'/' | b'\\');
    byte != 0 && !is_decoded && !is_slash
}

/// A target that normalising turns into this one: itself, but for segments that begin with a dot and a
/// semicolon, which only come out of an encoded dot (SEMANTICS C4).
pub(super) fn written(target: &str, mode: PathNormalization) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if mode == PathNormalization::None {
        return target.to_owned();
    }
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| match segment.strip_prefix('.') {
            Some(rest) if segment.starts_with(".;") || segment.starts_with("..;") => format!("%2e{rest}"),
            _ => segment.to_owned(),
        })
        .collect();
    segments.join("/") + query
}

#[cfg(test)]
mod tests {
    use mesh_api::name::SpiffeId;
    use proptest::prelude::*;

    use super::*;
    use crate::normalize;

    fn takes(domain: &Domain, text: &str) -> bool {
        let mut state = START;
        for byte in text.bytes() {
            match domain.step(state, byte) {
                Some(next) => state = next,
                None => return false,
            }
        }
        domain.accepts(state)
    }

    const MODES: [PathNormalization; 3] =
        [PathNormalization::Base, PathNormalization::MergeSlashes, PathNormalization::DecodeAndMergeSlashes];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_normalising_leaves_is_a_path(raw in "/?[a/.;%2eE5cFf01| \\\\#?]{0,9}") {
            for mode in MODES {
                if let Ok(path) = normalize::path(&raw, mode) {
                    let domain = Domain::Target { mode, query: Query::Left };
                    prop_assert!(takes(&domain, path.policy_path()), "{:?} {:?} {:?}", mode, raw, path);
                }
            }
        }

        #[test]
        fn every_path_is_left_by_normalising_what_is_written_for_it(path in "/[a/.;%2eE5cFf01*]{0,9}") {
            for mode in MODES {
                let domain = Domain::Target { mode, query: Query::Left };
                let written = written(&path, mode);
                let left = normalize::path(&written, mode);
                let left = left.as_ref().map(normalize::NormalizedPath::as_str);
                prop_assert_eq!(takes(&domain, &path), left == Ok(path.as_str()), "{:?} {:?}", mode, path);
            }
        }

        #[test]
        fn peers_are_identities_of_the_domains(text in "(td|te|t)/ns/[a.-]{0,3}/sa/[a.-]{0,4}") {
            let domain = Domain::peer(["td", "tdx"]);
            let names = |text: &str| {
                let id = SpiffeId::parse(&format!("spiffe://{text}")).ok()?;
                let (namespace, account) = id.workload_parts()?;
                mesh_api::name::Namespace::parse(namespace).ok()?;
                mesh_api::name::ServiceAccount::parse(account).ok()?;
                (id.trust_domain() == "td").then_some(())
            };
            prop_assert_eq!(takes(&domain, &text), names(&text).is_some(), "{}", text);
        }
    }

    #[test]
    fn authorities_have_a_host_and_digits_for_a_port() {
        let domain = Domain::authority(["[::1]".to_owned()]);
        for good in ["a", "a.b:80", "[::1]", "[::1]:80", "[2001:db8::1]", "a:"] {
            assert!(takes(&domain, good), "{good}");
        }
        for bad in ["", "A", "a:b", ":80", "[::2]", "a b", "a,b", "[::1]80"] {
            assert!(!takes(&domain, bad), "{bad}");
        }
    }

    #[test]
    fn header_values_do_not_end_in_spaces() {
        for (text, expected) in
            [("", true), ("a b", true), (" a", false), ("a ", false), ("é", true), ("\u{1}", false)]
        {
            assert_eq!(takes(&Domain::HeaderValue, text), expected, "{text:?}");
        }
    }
}
