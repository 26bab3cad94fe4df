//! `--set a.b=c,d[0].e=f,list={x,y}`, as Helm reads it (pure).
//!
//! A backslash takes the meaning from the character behind it. `null` takes a value away, so that not even
//! the chart's own holds; `true`, `false` and whole numbers are what they look like, everything else is text.
//! `--set-string` makes text of everything.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

/// Items that one `--set` may reach in a list.
const INDEX_MAX: usize = 1024;

/// Why an assignment is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    /// No `=`.
    #[error("`{0}` has no value: it is written name=value")]
    NoValue(String),
    /// A name without letters.
    #[error("`{0}` has an empty name in its path")]
    EmptyName(String),
    /// `a[x]`.
    #[error("`{0}` has an index that is no number below {INDEX_MAX}")]
    Index(String),
    /// A part of the path is something else already.
    #[error("`{path}` goes through {found}, which was set to something else before")]
    NotThere {
        /// Path.
        path: String,
        /// The part.
        found: String,
    },
    /// A list without end.
    #[error("`{0}` has a list without its closing brace")]
    OpenList(String),
}

/// What texts become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What they look like.
    Typed,
    /// Text.
    Text,
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// Puts what `text` assigns into `values`.
///
/// # Errors
/// When it is not understood; `values` may have got what stands before.
pub(crate) fn set(values: &mut Value, text: &str, reading: Reading) -> Result<(), SetError> {
    let mut characters = text.chars().peekable();
    loop {
        let path = path(&mut characters, text)?;
        let value = if characters.peek() == Some(&'{') {
            characters.next();
            list(&mut characters, text, reading)?
        } else {
            typed(&word(&mut characters, &[',']), reading)
        };
        put(values, &path, value, text)?;
        if characters.next().is_none() {
            return Ok(());
        }
    }
}

/// Puts one text, whatever is in it, at a path: for `--set-file name=path`.
///
/// # Errors
/// When the path is not understood.
pub(crate) fn set_text(values: &mut Value, name: &str, text: String) -> Result<(), SetError> {
    let written = format!("{name}=");
    let path = path(&mut written.chars().peekable(), &written)?;
    put(values, &path, Value::String(text), name)
}

fn path(characters: &mut Peekable<Chars<'_>>, text: &str) -> Result<Vec<Step>, SetError> {
    let mut steps = Vec::new();
    loop {
        let name = word(characters, &['.', '=', '[', ',']);
        if name.is_empty() {
            return Err(SetError::EmptyName(text.to_owned()));
        }
        steps.push(Step::Name(name));
        while characters.next_if_eq(&'[').is_some() {
            let index = word(characters, &[']']);
            let index = index.parse().ok().filter(|index| *index < INDEX_MAX);
            steps.push(Step::Index(index.ok_or_else(|| SetError::Index(text.to_owned()))?));
            characters.next();
        }
        match characters.next() {
            Some('.') => {}
            Some('=') => return Ok(steps),
            _ => return Err(SetError::NoValue(text.to_owned())),
        }
    }
}

fn list(characters: &mut Peekable<Chars<'_>>, text: &str, reading: Reading) -> Result<Value, SetError> {
    let mut items = Vec::new();
    loop {
        let item = word(characters, &[',', '}']);
        let end = characters.next();
        if !(item.is_empty() && items.is_empty() && end == Some('}')) {
            items.push(typed(&item, reading));
        }
        match end {
            Some(',') => {}
            Some('}') => return Ok(Value::Array(items)),
            _ => return Err(SetError::OpenList(text.to_owned())),
        }
    }
}

/// Up to one of `ends`, which is left there.
fn word(characters: &mut Peekable<Chars<'_>>, ends: &[char]) -> String {
    let mut word = String::new();
    while let Some(character) = characters.next_if(|character| !ends.contains(character)) {
        match character {
            '\\' => word.extend(characters.next()),
            other => word.push(other),
        }
    }
    word
}

fn typed(text: &str, reading: Reading) -> Value {
    match (reading, text) {
        (Reading::Text, _) => Value::String(text.to_owned()),
        (Reading::Typed, "true") => Value::Bool(true),
        (Reading::Typed, "false") => Value::Bool(false),
        (Reading::Typed, "null") => Value::Null,
        (Reading::Typed, "0") => 0.into(),
        // A leading zero is part of a name: of an account, or a commit.
        (Reading::Typed, _) if !text.starts_with('0') => {
            text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from)
        }
        (Reading::Typed, _) => Value::String(text.to_owned()),
    }
}

fn put(values: &mut Value, path: &[Step], value: Value, text: &str) -> Result<(), SetError> {
    let mut place = values;
    for step in path {
        let found = match step {
            Step::Name(name) => {
                if place.is_null() {
                    *place = Value::Object(Map::new());
                }
                place.as_object_mut().map(|fields| fields.entry(name.clone()).or_insert(Value::Null))
            }
            Step::Index(index) => {
                if place.is_null() {
                    *place = Value::Array(Vec::new());
                }
                place.as_array_mut().map(|items| {
                    if items.len() <= *index {
                        items.resize(index + 1, Value::Null);
                    }
                    &mut items[*index]
                })
            }
        };
        place = found.ok_or_else(|| SetError::NotThere {
            path: text.to_owned(),
            found: match step {
                Step::Name(name) => name.clone(),
                Step::Index(index) => format!("[{index}]"),
            },
        })?;
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, SetError> {
        let mut values = Value::Null;
        set(&mut values, text, Reading::Typed).map(|()| values)
    }

    #[test]
    fn assignments_are_read_as_helm_reads_them() {
        for (text, values) in [
            ("a=b", json!({"a": "b"})),
            ("a.b=1,c=true", json!({"a": {"b": 1}, "c": true})),
            ("a=007", json!({"a": "007"})),
            ("a=", json!({"a": ""})),
            ("a={x,2}", json!({"a": ["x", 2]})),
            ("a={}", json!({"a": []})),
            ("a[1].b=x", json!({"a": [null, {"b": "x"}]})),
            (r"a\.b/c=x\,y", json!({"a.b/c": "x,y"})),
            ("a=null", json!({"a": null})),
            ("a=b=c", json!({"a": "b=c"})),
        ] {
            assert_eq!(read(text), Ok(values), "{text}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        for text in ["a", "=b", "a..b=c", "a={x", "a[x]=1", "a[5000]=1", "a=1,b", "a=1,a.b=2", ""] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn set_string_makes_text_of_everything() {
        let mut values = Value::Null;
        set(&mut values, "a=1,b=true", Reading::Text).expect("it is understood");
        assert_eq!(values, json!({"a": "1", "b": "true"}));
    }
}
