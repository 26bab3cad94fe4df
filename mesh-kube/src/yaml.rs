//! YAML as Helm's `toYaml` writes it (go-yaml 2): block style, keys in their natural order, lists not
//! indented below their key, strings plain wherever they read back as strings.
//!
//! For texts that must be the same wherever they are made: what the chart renders, and the definitions.

use std::cmp::Ordering;

use serde_json::Value;

/// Lines are broken at the first space beyond this column.
const WIDTH: usize = 80;

/// A value as YAML, without a last line break.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut writer = Writer { text: String::new() };
    match value {
        Value::Array(items) if !items.is_empty() => writer.list(items, 0),
        Value::Object(fields) if !fields.is_empty() => writer.map(fields, 0),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => writer.scalar(value, 0),
    }
    let text = writer.text;
    text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
}

struct Writer {
    text: String,
}

impl Writer {
    fn map(&mut self, fields: &serde_json::Map<String, Value>, indent: usize) {
        let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
        fields.sort_by(|(left, _), (right, _)| natural(left, right));
        for (position, (key, value)) in fields.into_iter().enumerate() {
            if position > 0 {
                self.line(indent);
            }
            self.text.push_str(&key_of(key));
            self.text.push(':');
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    self.line(indent + 2);
                    self.map(inner, indent + 2);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.line(indent);
                    self.list(items, indent);
                }
                other => {
                    self.text.push(' ');
                    self.scalar(other, indent);
                }
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize) {
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.line(indent);
            }
            self.text.push_str("- ");
            match item {
                Value::Object(fields) if !fields.is_empty() => self.map(fields, indent + 2),
                Value::Array(inner) if !inner.is_empty() => self.list(inner, indent + 2),
                other => self.scalar(other, indent),
            }
        }
    }

    /// Begins a line. A literal text has ended its own.
    fn line(&mut self, indent: usize) {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.extend(std::iter::repeat_n(' ', indent));
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number.to_string()),
            Value::Array(_) => self.text.push_str("[]"),
            Value::Object(_) => self.text.push_str("{}"),
            Value::String(text) if text.contains('\n') && is_literal(text) => self.literal(text, indent),
            Value::String(text) => match style(text) {
                Style::Plain => self.folded(text, indent),
                Style::Single => self.folded(&format!("'{}'", text.replace('\'', "''")), indent),
                Style::Double => self.folded(&escaped(text), indent),
            },
        }
    }

    /// A text of one line, broken at spaces beyond the width.
    fn folded(&mut self, text: &str, indent: usize) {
        let start = self.text.rfind('\n').map_or(0, |at| at + 1);
        let mut column = self.text[start..].chars().count();
        let characters: Vec<char> = text.chars().collect();
        for (position, character) in characters.iter().enumerate() {
            let before = position.checked_sub(1).and_then(|before| characters.get(before));
            let after = characters.get(position + 1);
            let alone = before.is_some_and(|c| *c != ' ') && after.is_some_and(|c| *c != ' ');
            if *character == ' ' && alone && column > WIDTH {
                self.line(indent + 2);
                column = indent + 2;
            } else {
                self.text.push(*character);
                column += 1;
            }
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        let body = text.trim_end_matches('\n');
        self.text.push('|');
        if text.starts_with([' ', '\n']) {
            self.text.push('2');
        }
        match text.len() - body.len() {
            0 => self.text.push('-'),
            1 => {}
            _ => self.text.push('+'),
        }
        self.text.push('\n');
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                self.text.extend(std::iter::repeat_n(' ', indent + 2));
                self.text.push_str(line);
            }
            self.text.push('\n');
        }
    }
}

/// Whether a text of several lines can stand as it is: a space before a line's end could not be seen.
fn is_literal(text: &str) -> bool {
    !text.split('\n').any(|line| line.ends_with(' ')) && !text.chars().any(|c| c.is_control() && c != '\n')
}

enum Style {
    Plain,
    Single,
    Double,
}

fn key_of(key: &str) -> String {
    match style(key) {
        Style::Plain => key.to_owned(),
        Style::Single => format!("'{}'", key.replace('\'', "''")),
        Style::Double => escaped(key),
    }
}

fn style(text: &str) -> Style {
    if text.chars().any(char::is_control) || reads_as_something_else(text) {
        return Style::Double;
    }
    let ends = |at: usize| text[at + 1..].chars().next().is_none_or(char::is_whitespace);
    let first = match text.chars().next() {
        Some(
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`',
        ) => true,
        Some('-' | '?') => ends(0),
        _ => false,
    };
    let inside = text.char_indices().any(|(at, character)| match character {
        ':' => ends(at),
        '#' => text[..at].ends_with(' '),
        _ => false,
    });
    let edges = text.starts_with(' ') || text.ends_with(' ');
    if first || inside || edges || text.starts_with("---") || text.starts_with("...") {
        Style::Single
    } else {
        Style::Plain
    }
}

/// Whether YAML 1.1 reads a plain text as null, boolean, number or date.
fn reads_as_something_else(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let lower = text.to_ascii_lowercase();
    let is_word = WORDS.contains(&lower.as_str())
        && (text == lower || text == text.to_ascii_uppercase() || text[1..] == lower[1..]);
    let is_special =
        matches!(text, "" | "~" | "<<") || matches!(lower.trim_start_matches(['+', '-']), ".inf" | ".nan");
    is_word || is_special || is_number(text) || is_date(text) || is_sexagesimal(text)
}

fn is_number(text: &str) -> bool {
    let plain = text.replace('_', "");
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let of_base = |prefix: &str, radix: u32| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)))
    };
    if of_base("0x", 16) || of_base("0X", 16) || of_base("0b", 2) || of_base("0B", 2) || of_base("0o", 8) {
        return true;
    }
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && digits.parse::<f64>().is_ok()
}

/// `2026-01-31`, alone or with a time behind it.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, lengths: [usize; 2]| {
        part.is_some_and(|part| lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let (year, month, rest) = (parts.next(), parts.next(), parts.next());
    let day = rest.map(|rest| rest.split(['T', 't', ' ']).next().unwrap_or_default());
    digits(year, [4, 4]) && digits(month, [1, 2]) && digits(day, [1, 2])
}

/// `12:30`: a number of base 60 in YAML 1.1.
fn is_sexagesimal(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, _) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        && !rest.is_empty()
        && rest.iter().all(|part| part.parse::<u8>().is_ok_and(|part| part < 60) && part.len() <= 2)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            other if other.is_control() => escaped.push_str(&format!("\\x{:02X}", u32::from(other))),
            other => escaped.push(other),
        }
    }
    escaped.push('"');
    escaped
}

/// Order of keys: signs before letters, and numbers inside of names by their value.
fn natural(left: &str, right: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let Some(at) = (0..a.len().min(b.len())).find(|at| a[*at] != b[*at]) else {
        return a.len().cmp(&b.len());
    };
    let after_digit = at > 0 && a[at - 1].is_numeric();
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => a[at].cmp(&b[at]),
        // What is no letter comes first, except where it would continue a number.
        (true, false) => {
            if after_digit {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if after_digit {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) => {
            let (x, y) = (number(&a[at..]), number(&b[at..]));
            x.cmp(&y).then_with(|| a[at].cmp(&b[at]))
        }
    }
}

/// The number at the beginning, and how many digits it has.
fn number(text: &[char]) -> (u64, usize) {
    let digits = text.iter().map_while(|digit| digit.to_digit(10));
    digits.fold((0, 0), |(number, length), digit| {
        (number.saturating_mul(10).saturating_add(u64::from(digit)), length + 1)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_written_as_go_yaml_writes_it() {
        for (value, text) in [
            (json!({}), "{}"),
            (json!([]), "[]"),
            (
                json!({"b": [1, {"x": 1, "y": [2]}], "a": {"c": null}}),
                "a:\n  c: null\nb:\n- 1\n- x: 1\n  \"y\":\n  - 2",
            ),
            (json!({"a10": 1, "a9": 2, "b": ""}), "a9: 2\na10: 1\nb: \"\""),
            (
                json!(["yes", "1", "1.5", "0x1f", "1e3", "2026-01-01", "12:30", "null", "~"]),
                "- \"yes\"\n- \"1\"\n- \"1.5\"\n- \"0x1f\"\n- \"1e3\"\n- \"2026-01-01\"\n- \"12:30\"\n- \"null\"\n- \"~\"",
            ),
            (
                json!(["a: b", "#x", "a #b", "- x", "-x", "*", "a:b", "{x", "it's", " x", "'x'"]),
                "- 'a: b'\n- '#x'\n- 'a #b'\n- '- x'\n- -x\n- '*'\n- a:b\n- '{x'\n- it's\n- ' x'\n- '''x'''",
            ),
            (json!({"t": "a\nb\n", "u": "a\n\nb", "v": 1}), "t: |\n  a\n  b\nu: |-\n  a\n\n  b\nv: 1"),
        ] {
            assert_eq!(to_yaml(&value), text);
        }
    }
}
