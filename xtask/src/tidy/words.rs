//! Words that do not belong into what is kept: unfinished business, and places of one machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process::workspace;

/// Words, in halves so that this file holds none of them, and what to do instead.
const WORDS: [([&str; 2], &str); 5] = [
    (["TO", "DO"], "finish it, or write an issue"),
    (["FIX", "ME"], "fix it, or write an issue"),
    (["X", "XX"], "say what is meant"),
    (["/ho", "me/"], "a path of one machine"),
    (["/wo", "rk/"], "a path of one machine"),
];

/// Endings of files that people write.
const WRITTEN: [&str; 7] = ["rs", "toml", "md", "yaml", "yml", "proto", "sh"];

/// Finds the words.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn check(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| is_written(file)) {
        let path = workspace().join(file);
        // A file that was deleted and not yet committed is listed still.
        if path.is_file() {
            let text = fs::read_to_string(path)?;
            breaches.extend(found(&text).map(|(line, why)| format!("{}:{line}: {why}", file.display())));
        }
    }
    Ok(breaches)
}

fn is_written(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| WRITTEN.contains(&ending)) || file.ends_with(".ci/run")
}

fn found(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        let words = WORDS.iter().map(|(halves, why)| (halves.concat(), *why));
        words
            .filter(|(word, _)| holds(line, word))
            .map(move |(word, why)| (index + 1, format!("{word}: {why}")))
    })
}

/// Whether a line holds a word that is not part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let is_path = word.starts_with('/');
        is_path && !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.' || c == '}')
            || !is_path && ![before, after].into_iter().flatten().any(|c| c.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole_and_with_their_line() {
        let text = format!("fine\n// {}{}: later\n", "TO", "DO");
        let lines: Vec<usize> = found(&text).map(|(line, _)| line).collect();
        assert_eq!(lines, [2]);
        assert_eq!(found("TODOS are not it").count(), 0);
    }

    #[test]
    fn a_path_inside_of_another_is_no_place_of_a_machine() {
        let path = ["/ho", "me/"].concat();
        assert!(holds(&format!("cd {path}x"), &path));
        assert!(!holds(&format!("GET http://shop{path}x"), &path));
    }
}
