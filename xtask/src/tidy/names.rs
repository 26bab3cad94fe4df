//! How files may be called.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::process::{capture, command};

/// Names that say nothing about what is inside. Whoever needs one has not yet found out where the code lives.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "misc", "manager"];

/// Files under version control, and new ones that are not ignored.
///
/// # Errors
/// When git fails.
pub(crate) fn tracked_files() -> Result<Vec<PathBuf>> {
    let mut git = command("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = capture(&mut git)?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

/// Finds files and folders with empty names, and `mod.rs`.
pub(crate) fn check(files: &[PathBuf]) -> Vec<String> {
    files.iter().filter_map(|file| Some(format!("{}: {}", file.display(), complaint(file)?))).collect()
}

fn complaint(file: &Path) -> Option<&'static str> {
    if file.ends_with("mod.rs") {
        return Some("modules are `name.rs` plus `name/`");
    }
    let stems = file.iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    stems
        .into_iter()
        .any(|stem| EMPTY_NAMES.contains(&stem))
        .then_some("a name that says nothing about the inside")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_say_something() {
        for bad in ["a/src/utils.rs", "a/src/common/x.rs", "a/src/x/mod.rs", "tests/helpers.py"] {
            assert!(complaint(Path::new(bad)).is_some(), "{bad}");
        }
        assert!(complaint(Path::new("a/src/uncommon.rs")).is_none());
    }
}
