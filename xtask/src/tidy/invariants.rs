//! That the tests which ARCHITECTURE.md names for its invariants exist.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::process::workspace;

/// The page.
const PAGE: &str = "ARCHITECTURE.md";

/// Finds names of tests that nothing has.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn check(files: &[PathBuf]) -> Result<Vec<String>> {
    let page = fs::read_to_string(workspace().join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let mut missing: Vec<&str> = named_tests(&page).collect();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        // A file that was deleted and not yet committed is listed still.
        let text = fs::read_to_string(workspace().join(file)).unwrap_or_default();
        missing.retain(|name| !text.contains(&format!("fn {name}(")));
    }
    Ok(missing.into_iter().map(|name| format!("{PAGE}: there is no test {name}")).collect())
}

/// Words in backquotes that are written as tests are named: several words, joined by `_`.
fn named_tests(page: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 2
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    page.split('`').skip(1).step_by(2).filter(is_name)
}

#[cfg(test)]
mod tests {
    use super::named_tests;

    #[test]
    fn tests_are_told_from_other_code() {
        let page = "`lib.rs`, `a_rule_that_holds`, `mesh_api`, ```text\na_b_c d\n``` and `State::resolve`";
        let names: Vec<&str> = named_tests(page).collect();
        assert_eq!(names, ["a_rule_that_holds"]);
    }
}
