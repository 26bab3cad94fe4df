//! The one form of a request path that is judged, routed by and forwarded (SEMANTICS 5.1, 5.2).
//!
//! Normalising happens once, before anything looks at the path, and the result replaces the path of the
//! request, so that what is judged is what the application sees (TRAP 9). The query is kept and never
//! rewritten. Escapes are decoded in one pass only: decoding twice would be a bypass of its own (TRAP 11).
//! A path that is already in its form is borrowed, which is the common case.

use std::borrow::Cow;

use mesh_api::model::PathNormalization;

/// A path, possibly with a query, in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalizedPath<'a> {
    text: Cow<'a, str>,
    /// Length of the part before the query.
    path_length: usize,
}

impl NormalizedPath<'_> {
    /// The whole: what is forwarded and logged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the first `?`: what policies and routes test.
    #[must_use]
    pub fn policy_path(&self) -> &str {
        &self.text[..self.path_length]
    }

    /// The part after the first `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_length + 1..)
    }

    /// Whether normalising changed anything, so that the request has to be rewritten.
    #[must_use]
    pub fn is_rewritten(&self) -> bool {
        matches!(self.text, Cow::Owned(_))
    }
}

impl<'a> NormalizedPath<'a> {
    /// Gives up the text; borrowed when nothing changed.
    #[must_use]
    pub fn into_text(self) -> Cow<'a, str> {
        self.text
    }
}

/// Why a path is refused; the request is answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It holds `%00`, which ends the path for some applications and not for others.
    #[error("path holds an encoded NUL")]
    EncodedNul,
    /// The query, or under `NONE` the path, holds bytes that are not UTF-8 and would be forwarded as they are.
    #[error("request target is not valid UTF-8")]
    NotText,
}

/// Normalises a request target in origin form: path and query, without scheme and authority.
///
/// # Errors
/// [`Refusal`] when no form of the path is safe to forward.
pub fn path(raw: &str, mode: PathNormalization) -> Result<NormalizedPath<'_>, Refusal> {
    path_bytes(raw.as_bytes(), mode)
}

/// As [`path`], for a target that need not be UTF-8.
///
/// # Errors
/// [`Refusal`] when no form of the path is safe to forward.
pub fn path_bytes(raw: &[u8], mode: PathNormalization) -> Result<NormalizedPath<'_>, Refusal> {
    let target = &raw[..raw.iter().position(|&b| b == b'#').unwrap_or(raw.len())];
    let path_length = target.iter().position(|&b| b == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(path_length);
    if mode == PathNormalization::None || is_plain(path) {
        return borrowed(target, path_length);
    }
    let decoded = match mode {
        PathNormalization::DecodeAndMergeSlashes => Cow::Owned(decode_slashes(path)),
        PathNormalization::None | PathNormalization::Base | PathNormalization::MergeSlashes => {
            Cow::Borrowed(path)
        }
    };
    let mut text = canonical(&strip_dot_parameters(&decoded))?;
    match mode {
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes => {
            text.dedup_by(|later, earlier| *later == b'/' && *earlier == b'/');
        }
        PathNormalization::None | PathNormalization::Base => {}
    }
    if text == path {
        return borrowed(target, path_length);
    }
    let path_length = text.len();
    text.extend_from_slice(query);
    let text = String::from_utf8(text).map_err(|_| Refusal::NotText)?;
    Ok(NormalizedPath { text: Cow::Owned(text), path_length })
}

fn borrowed(target: &[u8], path_length: usize) -> Result<NormalizedPath<'_>, Refusal> {
    let text = std::str::from_utf8(target).map_err(|_| Refusal::NotText)?;
    Ok(NormalizedPath { text: Cow::Borrowed(text), path_length })
}

/// Whether a glance shows that no mode changes the path: it starts with a slash, and holds nothing that is
/// encoded or decoded and no slash followed by a slash or a dot.
fn is_plain(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && path.iter().all(|&b| b != b'%' && b != b'\\' && !is_encoded_when_raw(b))
        && path.windows(2).all(|pair| pair != b"//" && pair != b"/.")
}

/// `%2F` becomes `/` and `%5C` becomes `\`, in one pass.
fn decode_slashes(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        match rest {
            [b'%', b'2', b'f' | b'F', after @ ..] => {
                decoded.push(b'/');
                rest = after;
            }
            [b'%', b'5', b'c' | b'C', after @ ..] => {
                decoded.push(b'\\');
                rest = after;
            }
            _ => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    decoded
}

/// Segments that start with `..;` or `.;` lose what follows the dots, as servlet containers read them
/// (CVE-2026-73551).
fn strip_dot_parameters(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.contains(&b';') {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&[u8]> = path
        .split(|&b| b == b'/')
        .map(|segment| {
            if segment.starts_with(b"..;") {
                b".."
            } else if segment.starts_with(b".;") {
                b"."
            } else {
                segment
            }
        })
        .collect();
    Cow::Owned(segments.join(&b'/'))
}

/// The canonical form of SEMANTICS 5.2.
fn canonical(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut output = Output { bytes: Vec::with_capacity(path.len() + 1), bare_percent: None };
    let mut rest = path;
    if !matches!(rest.first(), Some(b'/' | b'\\')) {
        output.push(b'/');
    }
    while let Some((&first, after)) = rest.split_first() {
        if let Some(behind) = dot(rest) {
            rest = output.take_dot(behind);
            continue;
        }
        rest = after;
        match first {
            b'\\' => output.push(b'/'),
            b'%' => match escape(after) {
                Some(0) => return Err(Refusal::EncodedNul),
                Some(byte) => {
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
                        output.push(byte);
                    } else {
                        output.bytes.extend_from_slice(&[b'%', after[0], after[1]]);
                    }
                    rest = &after[2..];
                }
                None => output.push_bare_percent(),
            },
            // Encoded, it would be refused; no codec lets a raw one come so far.
            0 => return Err(Refusal::EncodedNul),
            byte if is_encoded_when_raw(byte) => output.push_encoded(byte),
            byte => output.push(byte),
        }
    }
    Ok(output.bytes)
}

struct Output {
    bytes: Vec<u8>,
    /// Where the last `%` stands that began no escape in the input.
    bare_percent: Option<usize>,
}

impl Output {
    /// Appends one byte. Should a bare `%` and what was decoded behind it now read as an escape, the `%` is
    /// written as `%25`: otherwise `%%32e` would become `%2e`, which is decoding twice by another name.
    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
        if let Some(at) = self.bare_percent
            && self.bytes.len() == at + 3
        {
            self.bare_percent = None;
            if self.bytes[at + 1..].iter().all(u8::is_ascii_hexdigit) {
                self.bytes.splice(at + 1..at + 1, *b"25");
            }
        }
    }

    fn push_bare_percent(&mut self) {
        self.push(b'%');
        self.bare_percent = Some(self.bytes.len() - 1);
    }

    fn push_encoded(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        self.bare_percent = None;
        self.bytes.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }

    /// Handles a dot, given what stands behind it in the input, and returns what is left of the input.
    fn take_dot<'i>(&mut self, behind: &'i [u8]) -> &'i [u8] {
        if self.bytes.last() == Some(&b'/') {
            if let Some(left) = end_of_segment(behind) {
                return left;
            }
            if let Some(left) = dot(behind).and_then(end_of_segment) {
                self.remove_segment();
                return left;
            }
        }
        self.push(b'.');
        behind
    }

    /// Takes back the last segment and its slash, but never the root's slash.
    fn remove_segment(&mut self) {
        let inner = &self.bytes[..self.bytes.len() - 1];
        if let Some(slash) = inner.iter().rposition(|&b| b == b'/') {
            self.bytes.truncate(slash + 1);
        }
        self.bare_percent = None;
    }
}

/// What follows a dot, literal or encoded, at the start of `input`.
fn dot(input: &[u8]) -> Option<&[u8]> {
    match input {
        [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What follows the end of a segment: the input behind a slash, or nothing at its end.
fn end_of_segment(input: &[u8]) -> Option<&[u8]> {
    match input {
        [] => Some(input),
        [b'/' | b'\\', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// The byte that the two hex digits at the start of `input` stand for.
fn escape(input: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match input {
        [high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

fn is_encoded_when_raw(b: u8) -> bool {
    b <= b' ' || b >= 0x7f || matches!(b, b'"' | b'#' | b'<' | b'>' | b'?' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests;
