//! Splits a command written as one string into words, as a shell would (pure).
//!
//! Only quoting is understood: single quotes, double quotes and backslashes. There is no expansion of any
//! kind, because the command is not run by a shell; who wants one writes `sh -c '…'`.

/// Why a command could not be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// A quote is opened and not closed.
    #[error("a quote is not closed")]
    OpenQuote,
    /// The last character is a backslash.
    #[error("a backslash stands at the end")]
    TrailingBackslash,
}

/// Splits `text` into words.
///
/// # Errors
/// When quoting is not finished.
pub(crate) fn split(text: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or(SplitError::OpenQuote)? {
                        '\'' => break,
                        inner => word.push(inner),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or(SplitError::OpenQuote)? {
                        '"' => break,
                        '\\' => match letters.next().ok_or(SplitError::OpenQuote)? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next().ok_or(SplitError::TrailingBackslash)?),
            space if space.is_whitespace() => words.extend(word.take()),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

/// A command as one would type it, for people.
pub(crate) fn display(words: &[String]) -> String {
    let quote = |word: &String| {
        let is_plain = !word.is_empty()
            && word.chars().all(|letter| letter.is_alphanumeric() || "-_./:=@,+%".contains(letter));
        if is_plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (text, words) in [
            ("", &[][..]),
            ("  a  b\tc ", &["a", "b", "c"]),
            ("sh -c 'echo \"$X\" \\n'", &["sh", "-c", "echo \"$X\" \\n"]),
            (r#"a "b \" \x c" d\ e"#, &["a", r#"b " \x c"#, "d e"]),
            (r#"'' "" x''y"#, &["", "", "xy"]),
        ] {
            assert_eq!(split(text).expect("splits"), words, "{text}");
        }
    }

    #[test]
    fn unfinished_quoting_is_refused() {
        assert_eq!(split("a 'b"), Err(SplitError::OpenQuote));
        assert_eq!(split("a \"b\\"), Err(SplitError::OpenQuote));
        assert_eq!(split("a\\"), Err(SplitError::TrailingBackslash));
    }

    #[test]
    fn what_is_displayed_splits_into_the_same_words() {
        for words in [vec!["a"], vec!["", "it's", "x y", "\"", "\\"], vec!["redis-server", "--port", "6379"]]
        {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(split(&display(&words)).expect("splits"), words);
        }
    }
}
