//! Where tokens stand in a request (SEMANTICS 7.3).
//!
//! Every line of a header, every occurrence of a parameter and every cookie of the name holds a token of its
//! own. Envoy looks at the first parameter and the first cookie only, and passes the others on unseen: an
//! application that takes the last would read a token that nobody checked. A prefix counts at the start of
//! the value alone, where Envoy finds it anywhere.

use std::borrow::Cow;
use std::sync::Arc;

use mesh_api::model::JwtRule;

use super::failure::Failure;
use super::token::Token;
use crate::authorize::HeaderValues;

/// Most tokens of one request; each costs up to one signature for every rule of its location.
pub(super) const TOKENS_MAX: usize = 16;
/// Where a token stands unless the rule says otherwise (SEMANTICS 7.3).
const DEFAULT_HEADER: (&str, &str) = ("authorization", "Bearer ");
const DEFAULT_PARAMETER: &str = "access_token";

/// What may hold tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A header, by its name in lower case.
    Header(Arc<str>),
    /// A query parameter, by its decoded name.
    Parameter(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

/// A location of tokens: a source, and what stands before a token in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// Position in [`Locations::sources`].
    pub(super) source: usize,
    /// Position of the prefix among those of the source.
    prefix: usize,
}

/// Every location of every rule, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Locations {
    sources: Vec<(Source, Vec<Box<str>>)>,
}

/// A token found, of good form or not.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) location: Location,
    /// Which line, parameter or cookie of the source.
    pub(super) occurrence: usize,
    pub(super) token: Result<Token, Failure>,
    /// Whether some rule verified what stands there.
    pub(super) is_verified: bool,
}

impl Locations {
    /// The locations of a rule, in Envoy's order: headers, parameters, cookies, each sorted. `hidden` says
    /// which headers are removed from the request before the rule sees it.
    pub(super) fn of_rule(&mut self, rule: &JwtRule, hidden: impl Fn(&str) -> bool) -> Vec<Location> {
        let mut headers: Vec<(String, &str)> = rule
            .from_headers
            .iter()
            .map(|(name, prefix)| (name.to_ascii_lowercase(), prefix.as_str()))
            .collect();
        let mut parameters: Vec<&str> = rule.from_params.iter().map(String::as_str).collect();
        let mut cookies: Vec<&str> = rule.from_cookies.iter().map(String::as_str).collect();
        if headers.is_empty() && parameters.is_empty() && cookies.is_empty() {
            headers.push((DEFAULT_HEADER.0.to_owned(), DEFAULT_HEADER.1));
            parameters.push(DEFAULT_PARAMETER);
        }
        headers.sort_by_key(|(name, prefix)| format!("{name}{prefix}"));
        parameters.sort_unstable();
        cookies.sort_unstable();
        let headers = headers.into_iter().filter(|(name, _)| !hidden(name));
        let headers = headers.map(|(name, prefix)| (Source::Header(name.into()), prefix));
        let parameters = parameters.into_iter().map(|name| (Source::Parameter(name.into()), ""));
        let cookies = cookies.into_iter().map(|name| (Source::Cookie(name.into()), ""));
        let mut locations: Vec<Location> = headers
            .chain(parameters)
            .chain(cookies)
            .map(|(source, prefix)| self.location(source, prefix))
            .collect();
        locations.dedup();
        locations
    }

    fn location(&mut self, source: Source, prefix: &str) -> Location {
        let at = match self.sources.iter().position(|(known, _)| *known == source) {
            Some(at) => at,
            None => {
                self.sources.push((source, Vec::new()));
                self.sources.len() - 1
            }
        };
        let prefixes = &mut self.sources[at].1;
        let prefix = match prefixes.iter().position(|known| **known == *prefix) {
            Some(prefix) => prefix,
            None => {
                prefixes.push(prefix.into());
                prefixes.len() - 1
            }
        };
        Location { source: at, prefix }
    }

    pub(super) fn source(&self, location: Location) -> &Source {
        &self.sources[location.source].0
    }

    /// Every token of a request, at most one more than [`TOKENS_MAX`]. Allocates nothing when there is none.
    pub(super) fn tokens(&self, target: &str, headers: &dyn HeaderValues) -> Vec<Found> {
        let mut found = Vec::new();
        let query = target.split_once('?').map(|(_, query)| query);
        for (source, (kind, prefixes)) in self.sources.iter().enumerate() {
            let mut occurrence = 0;
            let mut take = |prefix: usize, occurrence: usize, bytes: &[u8]| {
                if found.len() <= TOKENS_MAX {
                    let location = Location { source, prefix };
                    let token = Token::parse(bytes);
                    found.push(Found { location, occurrence, token, is_verified: false });
                }
            };
            match kind {
                Source::Header(name) => headers.visit(name, &mut |value| {
                    for (index, prefix) in prefixes.iter().enumerate() {
                        if let Some(token) = behind_prefix(value, prefix.as_bytes()) {
                            take(index, occurrence, token);
                        }
                    }
                    occurrence += 1;
                    true
                }),
                Source::Parameter(name) => {
                    for (_, value) in parameters(query).filter(|(key, _)| **key == *name.as_bytes()) {
                        take(0, occurrence, &value);
                        occurrence += 1;
                    }
                }
                Source::Cookie(name) => headers.visit("cookie", &mut |line| {
                    for (_, value) in cookies(line).filter(|(key, _)| *key == name.as_bytes()) {
                        take(0, occurrence, value);
                        occurrence += 1;
                    }
                    true
                }),
            }
        }
        found
    }
}

/// What stands behind the prefix; `None` without it, for then the value is no token (SEMANTICS 7.3).
/// Characters that no token can hold are passed over; when only such follow, the value is a malformed token.
fn behind_prefix<'v>(value: &'v [u8], prefix: &[u8]) -> Option<&'v [u8]> {
    let rest = value.strip_prefix(prefix)?;
    if prefix.is_empty() {
        return Some(value);
    }
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    Some(rest.iter().position(is_token).map_or(value, |start| &rest[start..]))
}

/// Names and values of a query, decoded. A parameter without `=` has an empty value.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    })
}

/// `target` without the parameters of these decoded names; the others stay byte for byte as they were, and a
/// `?` that is left with nothing goes too. `None` when there are none of them.
pub(super) fn without_parameters(target: &str, is_removed: impl Fn(&[u8]) -> bool) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let name = |pair: &str| percent_decoded(pair.split_once('=').map_or(pair, |(name, _)| name)).into_owned();
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_removed(&name(pair))).collect();
    if kept.len() == query.split('&').count() {
        return None;
    }
    if kept.is_empty() { Some(path.to_owned()) } else { Some(format!("{path}?{}", kept.join("&"))) }
}

/// Decodes `%HH` in one pass; a `%` without two hex digits stays, and `+` is a plus.
fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'%', [high, low, behind @ ..]) => match digit(high).zip(digit(low)) {
                Some((high, low)) => {
                    decoded.push(high << 4 | low);
                    rest = behind;
                }
                None => decoded.push(first),
            },
            _ => decoded.push(first),
        }
    }
    Cow::Owned(decoded)
}

/// Names and values of a line of cookies (RFC 6265 section 4.2.1); quotes around a value are not part of it.
fn cookies(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|&b| b == b';').filter_map(|pair| {
        let equals = pair.iter().position(|&b| b == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        Some((pair[..equals].trim_ascii(), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_counts_at_the_start_alone_and_in_its_own_case() {
        for (value, prefix, expected) in [
            ("Bearer a.b.c", "Bearer ", Some("a.b.c")),
            ("Bearer   a.b.c", "Bearer ", Some("a.b.c")),
            ("Bearer \"a.b.c", "Bearer ", Some("a.b.c")),
            ("Bearer ", "Bearer ", Some("Bearer ")),
            ("Bearer", "Bearer ", None),
            ("bearer a.b.c", "Bearer ", None),
            ("Basic a.b.c", "Bearer ", None),
            ("x Bearer a.b.c", "Bearer ", None),
            ("a.b.c", "", Some("a.b.c")),
            (" a.b.c", "", Some(" a.b.c")),
            ("", "", Some("")),
        ] {
            let found = behind_prefix(value.as_bytes(), prefix.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{value:?} with prefix {prefix:?}");
        }
    }

    #[test]
    fn parameters_are_decoded_once_and_removed_whole() {
        let pairs: Vec<_> = parameters(Some("a=1&&b&%61=%2541&c=x=y&d=%zz%4"))
            .map(|(name, value)| {
                (String::from_utf8_lossy(&name).into_owned(), String::from_utf8_lossy(&value).into_owned())
            })
            .collect();
        let expected = [("a", "1"), ("b", ""), ("a", "%41"), ("c", "x=y"), ("d", "%zz%4")]
            .map(|(n, v)| (n.into(), v.into()));
        assert_eq!(pairs, expected);
        for (target, expected) in [
            ("/p?t=1", Some("/p")),
            ("/p?a=%20&t=1&b", Some("/p?a=%20&b")),
            ("/p?t=1&t=2&%74=3&b=2&a=1", Some("/p?b=2&a=1")),
            ("/p?t", Some("/p")),
            ("/p?tt=1", None),
            ("/p?", None),
            ("/p", None),
            ("*", None),
        ] {
            assert_eq!(without_parameters(target, |name| name == b"t").as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn cookies_are_read_without_their_quotes() {
        let pairs: Vec<_> = cookies(b"a=1; b=\"2\";c ;d=x=y; =z").collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b"2"), (b"d", b"x=y"), (b"", b"z")];
        assert_eq!(pairs, expected);
    }
}
