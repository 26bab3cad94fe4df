//! Where inputs begin: the case files of the crates, and real messages.

use std::fs;
use std::path::{Path, PathBuf};

/// Largest seed, in bytes.
const SEED_BYTES_MAX: u64 = 32 * 1024;

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Folder of the inputs that have broken a target once.
#[must_use]
pub fn regressions(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target)
}

/// The contents of the files below `folder` (of the workspace), in the order of their names.
#[must_use]
pub fn below(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                open.push(path);
            } else if path.metadata().is_ok_and(|file| file.len() <= SEED_BYTES_MAX) {
                found.extend(fs::read(&path));
            }
        }
    }
    found
}

/// Seeds that are written out here.
#[must_use]
pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
