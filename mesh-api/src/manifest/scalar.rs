//! What a scalar is: text, or a number, truth value or null by the YAML 1.2 core schema (section 10.3.2).
//!
//! Stricter than older readers on purpose: `yes`, `on` and `010` are text, so that a field which wants a
//! truth value or a number refuses them instead of guessing.

/// The type of a scalar. Its text is kept beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ScalarType {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text: quoted, a block scalar, or nothing of the above.
    Text,
}

impl ScalarType {
    /// The type of a scalar that is neither quoted nor a block scalar.
    pub(super) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Boolean(true),
            "false" | "False" | "FALSE" => return Self::Boolean(false),
            _ => {}
        }
        let first = text.as_bytes().first().copied().unwrap_or_default();
        if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
            return Self::Text;
        }
        match integer(text) {
            Some(number) => Self::Integer(number),
            None => float(text).map_or(Self::Text, Self::Float),
        }
    }

    /// The type in words, with its article.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text => "a string",
        }
    }
}

fn integer(text: &str) -> Option<i64> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return i64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['+', '-']));
        }
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_decimal =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if is_decimal { text.parse().ok() } else { None }
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number =
        unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
            && unsigned.bytes().any(|b| b.is_ascii_digit());
    let has_leading_zero = unsigned.len() > 1
        && unsigned.starts_with('0')
        && unsigned.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    (is_number && !has_leading_zero).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        for (text, expected) in [
            ("", ScalarType::Null),
            ("~", ScalarType::Null),
            ("true", ScalarType::Boolean(true)),
            ("8080", ScalarType::Integer(8080)),
            ("-1", ScalarType::Integer(-1)),
            ("0x1F", ScalarType::Integer(31)),
            ("0.5", ScalarType::Float(0.5)),
            ("1e3", ScalarType::Float(1000.0)),
        ] {
            assert_eq!(ScalarType::of_plain(text), expected, "{text}");
        }
    }

    #[test]
    fn what_older_readers_guess_at_is_text() {
        for text in
            ["yes", "on", "off", "010", "1.2.3", "10.0.0.1", "12:30", "0x", "0x+1", "1_000", "-", "+a", "v1"]
        {
            assert_eq!(ScalarType::of_plain(text), ScalarType::Text, "{text}");
        }
    }
}
