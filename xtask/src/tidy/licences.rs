//! What may be linked: licences, banned crates and sources, as `deny.toml` says.
//!
//! `cargo xtask deny` asks cargo-deny, which takes minutes to build. This reads the same file and answers the
//! part of it that must hold on every change, in a second.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::metadata::{self, Metadata};
use crate::process::workspace;

/// The only source besides this repository.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Finds packages that may not be linked.
///
/// # Errors
/// When `deny.toml` cannot be read.
pub(crate) fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let rules = Rules::parse(&fs::read_to_string(workspace().join("deny.toml")).context("deny.toml")?)?;
    let built_in = metadata::built_in(&["--workspace", "--all-features"])?;
    let banned = rules.banned.iter().filter(|name| built_in.contains(*name));
    let mut breaches: Vec<String> = banned.map(|name| format!("{name} is banned by deny.toml")).collect();
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        match package.license.as_deref() {
            None => breaches.push(format!("{name} states no licence")),
            Some(licence) if !rules.allows(licence) => {
                breaches.push(format!("{name} is licensed as {licence}, which deny.toml does not allow"));
            }
            Some(_) => {}
        }
        if let Some(source) = package.source.as_deref().filter(|source| *source != CRATES_IO) {
            breaches.push(format!("{name} comes from {source}"));
        }
    }
    Ok(breaches)
}

/// The part of `deny.toml` that is looked at.
#[derive(Debug)]
struct Rules {
    allowed: Vec<String>,
    /// Crates that are banned whatever their version.
    banned: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let allowed = text.lines().find_map(|line| line.strip_prefix("allow = ")).context("no `allow`")?;
        let banned = text.lines().filter_map(|line| line.trim().strip_prefix("{ crate = "));
        let banned = banned.filter_map(|line| quoted(line).next()).filter(|name| !name.contains(':'));
        let rules = Self {
            allowed: quoted(allowed).map(str::to_owned).collect(),
            banned: banned.map(str::to_owned).collect(),
        };
        ensure!(!rules.allowed.is_empty() && !rules.banned.is_empty(), "deny.toml is not understood");
        Ok(rules)
    }

    /// Whether an SPDX expression leaves a choice that is allowed. `/` is the old way to write OR.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        self.either(&mut rest) == Some(true) && rest.is_empty()
    }

    // These take words from the front; nothing means that they are no expression.
    fn either(&self, words: &mut &[&str]) -> Option<bool> {
        let mut allowed = self.both(words)?;
        while next_is(words, "OR") {
            allowed |= self.both(words)?;
        }
        Some(allowed)
    }

    fn both(&self, words: &mut &[&str]) -> Option<bool> {
        let mut allowed = self.single(words)?;
        while next_is(words, "AND") {
            allowed &= self.single(words)?;
        }
        Some(allowed)
    }

    fn single(&self, words: &mut &[&str]) -> Option<bool> {
        if next_is(words, "(") {
            let allowed = self.either(words);
            return if next_is(words, ")") { allowed } else { None };
        }
        let (name, rest) = words.split_first()?;
        *words = rest;
        let mut licence = (*name).to_owned();
        if next_is(words, "WITH") {
            let (exception, rest) = words.split_first()?;
            *words = rest;
            licence = format!("{licence} WITH {exception}");
        }
        Some(self.allowed.contains(&licence))
    }
}

/// Takes the next word if it is the wanted one.
fn next_is(words: &mut &[&str], wanted: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == wanted => {
            *words = rest;
            true
        }
        _ => false,
    }
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let text = "deny = [\n    { crate = \"ring\", reason = \"one\" },\n    { crate = \"rustls:<0.23\" },\n]\n\
                    allow = [\"MIT\", \"ISC\", \"Apache-2.0 WITH LLVM-exception\"]\n";
        Rules::parse(text).expect("rules")
    }

    #[test]
    fn a_choice_is_allowed_when_one_side_is_and_a_sum_when_both_are() {
        let rules = rules();
        for allowed in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "ISC AND (MIT OR GPL-3.0)"] {
            assert!(rules.allows(allowed), "{allowed}");
        }
        for refused in ["GPL-3.0", "MIT AND GPL-3.0", "", "MIT OR", "(MIT", "Apache-2.0", "MIT MIT"] {
            assert!(!rules.allows(refused), "{refused}");
        }
        assert!(rules.allows("Apache-2.0 WITH LLVM-exception"));
    }

    #[test]
    fn bans_of_single_versions_are_left_to_cargo_deny() {
        assert_eq!(rules().banned, ["ring"]);
    }
}
