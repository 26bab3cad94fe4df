//! Changes that an authorizer makes to a request or its response, checked before anything is done with them.
//!
//! An authorizer is trusted to decide, not to write heads: a name must be a name and a value a value, and
//! what delimits, addresses or frames a message is not for it to touch. An answer with a change that cannot
//! be made is no answer, because leaving the change out could let a client's own line pass for the
//! authorizer's.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::forward::http1::block::HeaderBlock;

/// Lines that only this proxy writes, as they address, delimit or frame a message (RFC 9110 sections 7.2, 7.6.1,
/// 8.6, 10.1.1; RFC 9113 section 8.2.2).
const OURS: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
];
/// Most changes in one answer.
const EDITS_MAX: usize = 128;

/// Whether a line of that lower-case name is only ever written by this proxy.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name.starts_with(':') || OURS.contains(&name)
}

/// What is done with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Every line of the name is replaced by this one.
    Set,
    /// A further line.
    Add,
    /// A line, if there is none of the name.
    AddIfAbsent,
    /// Every line is replaced, if there is one.
    SetIfPresent,
    /// The value is put behind that of the first line, with a comma; nothing if there is none.
    Join,
    /// Every line of the name goes.
    Remove,
}

/// One change of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderEdit {
    /// Name.
    pub name: HeaderName,
    /// Value; empty for a removal.
    pub value: HeaderValue,
    /// What is done.
    pub how: How,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The name is none.
    #[error("{0:?} is not the name of a header")]
    Name(String),
    /// The name is one that this proxy writes.
    #[error("header {0:?} is not for an authorizer to write")]
    Reserved(String),
    /// The value cannot stand in a header.
    #[error("value of header {0:?} cannot be sent")]
    Value(String),
    /// The query parameter cannot stand in a query.
    #[error("query parameter {0:?} cannot be sent")]
    Query(String),
    /// There are too many.
    #[error("more than {EDITS_MAX} changes")]
    TooMany,
}

impl HeaderEdit {
    /// A change that was asked for.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn new(name: &str, value: &[u8], how: How) -> Result<Self, EditError> {
        let shown = || name.chars().take(64).collect::<String>();
        let lower = name.to_ascii_lowercase();
        if is_ours(&lower) {
            return Err(EditError::Reserved(shown()));
        }
        let name = HeaderName::from_bytes(lower.as_bytes()).map_err(|_| EditError::Name(shown()))?;
        let value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| EditError::Value(shown()))?;
        Ok(Self { name, value, how })
    }
}

/// Changes in order, bounded in number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits(Vec<HeaderEdit>);

impl Edits {
    /// Adds a change at the end.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push(&mut self, edit: HeaderEdit) -> Result<(), EditError> {
        if self.0.len() >= EDITS_MAX {
            return Err(EditError::TooMany);
        }
        self.0.push(edit);
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, lines: &mut dyn EditableLines) {
        for edit in &self.0 {
            apply(edit, lines);
        }
    }

    /// The changes.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderEdit> {
        self.0.iter()
    }
}

fn apply(edit: &HeaderEdit, lines: &mut dyn EditableLines) {
    let (name, value) = (&edit.name, &edit.value);
    match edit.how {
        How::Set => {
            lines.remove_line(name);
            lines.add_line(name, value);
        }
        How::Add => lines.add_line(name, value),
        How::AddIfAbsent => {
            if lines.first_line(name).is_none() {
                lines.add_line(name, value);
            }
        }
        How::SetIfPresent => {
            if lines.first_line(name).is_some() {
                lines.remove_line(name);
                lines.add_line(name, value);
            }
        }
        How::Join => {
            let Some(present) = lines.first_line(name) else { return };
            let joined = [present, b",", value.as_bytes()].concat();
            // Both parts are values, and so is what they make together.
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                lines.remove_line(name);
                lines.add_line(name, &joined);
            }
        }
        How::Remove => lines.remove_line(name),
    }
}

/// Header lines that changes are made to.
pub trait EditableLines {
    /// Value of the first line of that name.
    fn first_line(&self, name: &HeaderName) -> Option<&[u8]>;
    /// Adds a line.
    fn add_line(&mut self, name: &HeaderName, value: &HeaderValue);
    /// Removes every line of that name.
    fn remove_line(&mut self, name: &HeaderName);
}

impl EditableLines for HeaderBlock {
    fn first_line(&self, name: &HeaderName) -> Option<&[u8]> {
        self.first(name.as_str())
    }

    fn add_line(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.push(name.as_str().as_bytes(), value.as_bytes());
    }

    fn remove_line(&mut self, name: &HeaderName) {
        self.remove(name.as_str());
    }
}

impl EditableLines for HeaderMap {
    fn first_line(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }

    fn add_line(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name.clone(), value.clone());
    }

    fn remove_line(&mut self, name: &HeaderName) {
        self.remove(name);
    }
}

/// Changes of a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryEdits {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

impl QueryEdits {
    /// The parameters to set and, after that, to remove. They are written as they are: an authorizer encodes
    /// them itself.
    ///
    /// # Errors
    /// [`EditError::Query`] for what cannot stand in a query.
    pub fn new(set: Vec<(String, String)>, remove: Vec<String>) -> Result<Self, EditError> {
        let is_plain = |text: &str, also: &[u8]| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'&' && !also.contains(&byte))
        };
        let names = set.iter().map(|(name, _)| name).chain(&remove);
        if let Some(bad) = names.into_iter().find(|name| name.is_empty() || !is_plain(name, b"=")) {
            return Err(EditError::Query(bad.chars().take(64).collect()));
        }
        if let Some((name, _)) = set.iter().find(|(_, value)| !is_plain(value, b"")) {
            return Err(EditError::Query(name.clone()));
        }
        if set.len() + remove.len() > EDITS_MAX {
            return Err(EditError::TooMany);
        }
        Ok(Self { set, remove })
    }

    /// Path and query with the changes made; `None` when there are none.
    #[must_use]
    pub fn apply(&self, target: &str) -> Option<String> {
        if self.set.is_empty() && self.remove.is_empty() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parameters: Vec<(&str, Option<&str>)> = query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| match parameter.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (parameter, None),
            })
            .collect();
        for (name, value) in &self.set {
            match parameters.iter().position(|(known, _)| known == name) {
                None => parameters.push((name, Some(value))),
                Some(first) => {
                    parameters[first].1 = Some(value);
                    let mut at = 0;
                    parameters.retain(|(known, _)| {
                        at += 1;
                        known != name || at == first + 1
                    });
                }
            }
        }
        parameters.retain(|(name, _)| !self.remove.iter().any(|removed| removed == name));
        let mut out = path.to_owned();
        for (number, (name, value)) in parameters.iter().enumerate() {
            out.push(if number == 0 { '?' } else { '&' });
            out.push_str(name);
            if let Some(value) = value {
                out.push('=');
                out.push_str(value);
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_or_addresses_a_message_cannot_be_written() {
        for name in
            ["host", "Host", ":path", ":authority", "Content-Length", "transfer-encoding", "Connection"]
        {
            assert!(matches!(HeaderEdit::new(name, b"x", How::Set), Err(EditError::Reserved(_))), "{name}");
        }
        for name in ["", "a b", "a:b", "a\r\nx", "ä"] {
            assert!(matches!(HeaderEdit::new(name, b"x", How::Set), Err(EditError::Name(_))), "{name:?}");
        }
        for value in [&b"a\r\nx-admin: 1"[..], b"a\nb", b"a\0b", b"a\x7fb"] {
            assert!(matches!(HeaderEdit::new("x", value, How::Set), Err(EditError::Value(_))), "{value:?}");
        }
        assert!(HeaderEdit::new("X-User", b" alice ", How::Set).is_ok_and(|edit| edit.value == "alice"));
    }

    #[test]
    fn both_forms_of_a_head_are_changed_alike() {
        let edit = |name, value: &str, how| HeaderEdit::new(name, value.as_bytes(), how).expect("a change");
        let mut edits = Edits::default();
        for edit in [
            edit("x-user", "alice", How::Set),
            edit("x-more", "2", How::Add),
            edit("x-new", "1", How::AddIfAbsent),
            edit("x-more", "3", How::AddIfAbsent),
            edit("x-none", "1", How::SetIfPresent),
            edit("x-join", "b", How::Join),
            edit("x-none", "b", How::Join),
            edit("authorization", "", How::Remove),
        ] {
            edits.push(edit).expect("room");
        }
        let mut block = HeaderBlock::default();
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("X-User", "admin"),
            ("x-user", "root"),
            ("x-more", "1"),
            ("x-join", "a"),
            ("Authorization", "secret"),
        ] {
            block.push(name.as_bytes(), value.as_bytes());
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_static(value));
        }
        edits.apply(&mut block);
        edits.apply(&mut map);
        let mut in_block: Vec<_> =
            block.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
        let mut in_map: Vec<_> =
            map.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec())).collect();
        in_block.sort();
        in_map.sort();
        let expected =
            [("x-join", "a,b"), ("x-more", "1"), ("x-more", "2"), ("x-new", "1"), ("x-user", "alice")]
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!((in_block, in_map), (expected.to_vec(), expected.to_vec()));
    }

    #[test]
    fn changes_are_bounded_in_number() {
        let edit = HeaderEdit::new("x", b"1", How::Add).expect("a change");
        let mut edits = Edits::default();
        for _ in 0..EDITS_MAX {
            edits.push(edit.clone()).expect("room");
        }
        assert_eq!(edits.push(edit), Err(EditError::TooMany));
    }

    #[test]
    fn a_query_is_changed_and_its_path_is_not() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let edits = QueryEdits::new(vec![set("user", "alice"), set("new", "")], vec!["token".to_owned()])
            .expect("changes");
        assert_eq!(edits.apply("/a"), Some("/a?user=alice&new=".to_owned()));
        assert_eq!(
            edits.apply("/a?x&user=admin&token=t&user=root&y=1"),
            Some("/a?x&user=alice&y=1&new=".to_owned())
        );
        assert_eq!(QueryEdits::default().apply("/a?b"), None);
        for (name, value) in
            [("a&b", "c"), ("a", "b#c"), ("a", "b c"), ("a=b", "c"), ("", "c"), ("a", "b&c=d")]
        {
            assert!(QueryEdits::new(vec![set(name, value)], Vec::new()).is_err(), "{name}={value}");
        }
    }
}
