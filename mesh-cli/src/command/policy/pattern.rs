//! Files by pattern: `*` and `?` within a name, `**` for any number of folders, a folder for all manifests in
//! it.
//!
//! Names that begin with a dot are found only by a pattern that says so, as in a shell. What is found is in
//! order of name, whatever the order of the file system.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use mesh_api::manifest::folder::{DEPTH_MAX, FILES_MAX};

use crate::command::objects::input;

/// The files that a pattern finds, looked for from `folder`.
///
/// # Errors
/// When a folder cannot be listed, or too many files are found.
pub(crate) fn matching(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    for component in Path::new(pattern).components() {
        let step = component.as_os_str();
        let name = step.to_string_lossy();
        found = match component {
            Component::Normal(_) if name == "**" => below(found)?,
            Component::Normal(_) if name.contains(['*', '?']) => children(found, &name)?,
            Component::CurDir => found,
            // An absolute pattern starts anew.
            Component::Prefix(_) | Component::RootDir | Component::ParentDir | Component::Normal(_) => {
                found.into_iter().map(|path| path.join(step)).filter(|path| path.exists()).collect()
            }
        };
    }
    let mut files = Vec::new();
    for path in found {
        if path.is_dir() {
            input::list(&path, 0, &mut files)?;
        } else {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!("it finds more than {FILES_MAX} files")));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// What matches in each of some folders.
fn children(folders: Vec<PathBuf>, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let is_shown = !text.starts_with('.') || pattern.starts_with('.');
            if is_shown && is_match(pattern.as_bytes(), text.as_bytes()) {
                found.push(folder.join(&name));
            }
        }
    }
    Ok(found)
}

/// Some folders and every folder below them.
fn below(folders: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, usize)> = folders.into_iter().map(|folder| (folder, 0)).collect();
    while let Some((folder, depth)) = open.pop() {
        if !folder.is_dir() || depth > DEPTH_MAX {
            continue;
        }
        if found.len() >= FILES_MAX {
            return Err(io::Error::other(format!("it looks into more than {FILES_MAX} folders")));
        }
        for child in children(vec![folder.clone()], "*")? {
            open.push((child, depth + 1));
        }
        found.push(folder);
    }
    Ok(found)
}

/// Whether a name matches a pattern of `*` and `?`.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last star stands, and where what it takes ends: on a mismatch it takes one more.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[of] => {
                at += 1;
                of += 1;
            }
            Some(_) | None => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, of) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_letters() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".yaml", true),
            ("*.yaml", "a.yml", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("a*", "b", false),
            ("**", "x", true),
        ] {
            assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn patterns_find_files_in_order_and_pass_hidden_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.yaml", "a.yaml", ".c.yaml", "d.txt", "sub/e.yaml", "sub/deep/f.yaml"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "").expect("a file");
        }
        let found = |pattern: &str| -> Vec<String> {
            let found = matching(folder.path(), pattern).expect("a listing");
            let name =
                |path: &PathBuf| path.strip_prefix(folder.path()).map(|path| path.display().to_string());
            found.iter().filter_map(|path| name(path).ok()).collect()
        };
        assert_eq!(found("*.yaml"), ["a.yaml", "b.yaml"]);
        assert_eq!(found("a.yaml"), ["a.yaml"]);
        assert_eq!(found("./sub/../a.yaml").len(), 1);
        assert_eq!(found("**/*.yaml"), ["a.yaml", "b.yaml", "sub/deep/f.yaml", "sub/e.yaml"]);
        assert_eq!(found("sub"), ["sub/deep/f.yaml", "sub/e.yaml"]);
        assert_eq!(found("missing.yaml"), Vec::<String>::new());
        assert_eq!(found(".c*"), [".c.yaml"]);
    }
}
