//! One entry of a route's `match`, compiled.

use mesh_api::model::destination::{HttpMatch, StringMatch};
use regex::bytes::{Regex, RegexBuilder};

use super::RequestView;
use crate::select::Subject;

/// Longest expression, in bytes (SEMANTICS 10.2).
const EXPRESSION_BYTES_MAX: usize = 1024;
/// Largest compiled expression, in bytes: the default of RE2's callers is of this order.
const EXPRESSION_SIZE_MAX: usize = 1 << 20;

/// Why a match cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[error("expression {expression:?} is refused: {reason}")]
pub(super) struct MatchError {
    /// Field within the match.
    pub(super) field: String,
    expression: String,
    reason: String,
}

/// A compiled match: everything stated must hold.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    uri: Option<Test>,
    method: Option<Test>,
    authority: Option<Test>,
    scheme: Option<Test>,
    headers: Vec<(String, Test)>,
    without_headers: Vec<(String, Test)>,
    query_params: Vec<(String, Test)>,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Test {
    Exact(String),
    Prefix(String),
    ExactIgnoringCase(String),
    PrefixIgnoringCase(String),
    Regex(Regex),
    Present,
}

impl Test {
    fn compile(field: &str, test: &StringMatch) -> Result<Self, MatchError> {
        Ok(match test {
            StringMatch::Exact(text) => Self::Exact(text.clone()),
            StringMatch::Prefix(text) => Self::Prefix(text.clone()),
            StringMatch::Present => Self::Present,
            StringMatch::Regex(text) => Self::Regex(expression(field, text)?),
        })
    }

    fn ignoring_case(self) -> Self {
        match self {
            Self::Exact(text) => Self::ExactIgnoringCase(text),
            Self::Prefix(text) => Self::PrefixIgnoringCase(text),
            Self::ExactIgnoringCase(_) | Self::PrefixIgnoringCase(_) | Self::Regex(_) | Self::Present => self,
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::ExactIgnoringCase(text) => text.as_bytes().eq_ignore_ascii_case(value),
            Self::PrefixIgnoringCase(text) => {
                value.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
            }
            Self::Regex(expression) => expression.is_match(value),
            Self::Present => true,
        }
    }
}

/// An expression over the whole value. It runs on bytes, as the proxy's peers do: a value that is not UTF-8
/// must not escape a test. `\A` and `\z` rather than `^` and `$`, which `(?m)` would move.
fn expression(field: &str, text: &str) -> Result<Regex, MatchError> {
    let refuse = |reason: String| MatchError { field: field.to_owned(), expression: text.to_owned(), reason };
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(refuse(format!("longer than {EXPRESSION_BYTES_MAX} bytes")));
    }
    // Alone first: `a)|(b` would otherwise close the group that anchors it.
    for whole in [text.to_owned(), format!(r"\A(?:{text})\z")] {
        let built = RegexBuilder::new(&whole)
            .unicode(false)
            .size_limit(EXPRESSION_SIZE_MAX)
            .dfa_size_limit(EXPRESSION_SIZE_MAX)
            .build();
        match built {
            Ok(built) if whole.len() > text.len() => return Ok(built),
            Ok(_) => {}
            Err(error) => return Err(refuse(error.to_string())),
        }
    }
    Err(refuse("cannot be anchored".to_owned()))
}

impl Matcher {
    /// Compiles a match; `None` when it is not for this caller.
    pub(super) fn compile(entry: &HttpMatch, caller: &Subject<'_>) -> Result<Option<Self>, MatchError> {
        let is_callers = entry.source_namespace.as_ref().is_none_or(|name| name == caller.namespace.as_str())
            && entry.source_labels.iter().all(|(key, value)| caller.labels.get(key) == Some(value));
        if !is_callers {
            return Ok(None);
        }
        let one = |field: &str, test: &Option<StringMatch>| {
            test.as_ref().map(|test| Test::compile(field, test)).transpose()
        };
        let list = |field: &str, tests: &[(String, StringMatch)], lower: bool| {
            tests
                .iter()
                .map(|(name, test)| {
                    let test = Test::compile(&format!("{field}[{name}]"), test)?;
                    Ok((if lower { name.to_ascii_lowercase() } else { name.clone() }, test))
                })
                .collect::<Result<Vec<_>, MatchError>>()
        };
        let uri = one("uri", &entry.uri)?;
        Ok(Some(Self {
            uri: if entry.ignore_uri_case { uri.map(Test::ignoring_case) } else { uri },
            method: one("method", &entry.method)?,
            authority: one("authority", &entry.authority)?,
            scheme: one("scheme", &entry.scheme)?,
            headers: list("headers", &entry.headers, true)?,
            without_headers: list("withoutHeaders", &entry.without_headers, true)?,
            query_params: list("queryParams", &entry.query_params, false)?,
            port: entry.port,
        }))
    }

    pub(super) fn matches(&self, request: &RequestView<'_>) -> bool {
        let one = |test: &Option<Test>, value: &str| {
            test.as_ref().is_none_or(|test| test.matches(value.as_bytes()))
        };
        self.port.is_none_or(|port| port == request.port)
            && one(&self.uri, request.path)
            && one(&self.method, request.method)
            && one(&self.authority, request.authority)
            && one(&self.scheme, request.scheme)
            && self.headers.iter().all(|(name, test)| any_line(request, name, |value| test.matches(value)))
            && self.without_headers.iter().all(|(name, test)| lacks(request, name, test))
            && self.query_params.iter().all(|(name, test)| {
                parameter(request.query, name).is_some_and(|value| test.matches(value.as_bytes()))
            })
    }
}

/// Whether `each` says yes to a line of the header; pseudo headers are read from the request itself.
fn any_line(request: &RequestView<'_>, name: &str, mut each: impl FnMut(&[u8]) -> bool) -> bool {
    match name {
        ":authority" | "host" => each(request.authority.as_bytes()),
        ":method" => each(request.method.as_bytes()),
        ":scheme" => each(request.scheme.as_bytes()),
        _ => {
            let mut found = false;
            request.headers.visit(name, &mut |value| {
                found = each(value);
                !found
            });
            found
        }
    }
}

/// `withoutHeaders`: no line matches; a missing header counts as an empty one, except for mere presence.
fn lacks(request: &RequestView<'_>, name: &str, test: &Test) -> bool {
    let mut present = false;
    let matched = any_line(request, name, |value| {
        present = true;
        test.matches(value)
    });
    let empty_matches = || match test {
        Test::Present => false,
        Test::Exact(_)
        | Test::Prefix(_)
        | Test::ExactIgnoringCase(_)
        | Test::PrefixIgnoringCase(_)
        | Test::Regex(_) => test.matches(b""),
    };
    !matched && (present || !empty_matches())
}

/// The first value of a query parameter, as it stands, without decoding.
fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}
