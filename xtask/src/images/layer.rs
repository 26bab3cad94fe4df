//! An image's one layer: a tar whose bytes depend on names and contents alone.

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// A file of an image.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Path without a slash at its start.
    pub(crate) path: String,
    /// Contents.
    pub(crate) contents: Vec<u8>,
    mode: u32,
}

impl Entry {
    /// A file that everybody reads.
    pub(crate) fn file(path: &str, contents: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), contents: contents.into(), mode: 0o644 }
    }

    /// A file that everybody runs and nobody writes.
    pub(crate) fn program(path: &str, contents: Vec<u8>) -> Self {
        Self { path: path.to_owned(), contents, mode: 0o755 }
    }
}

/// The layer: folders first, then files, in the order of their names; owned by root; of 1970.
///
/// # Errors
/// When a path does not fit into a tar header.
pub(crate) fn tar_of(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut folders: Vec<&str> = entries.iter().flat_map(|entry| folders_of(&entry.path)).collect();
    folders.sort_unstable();
    folders.dedup();
    let mut files: Vec<&Entry> = entries.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut tar = Builder::new(Vec::new());
    for folder in folders {
        append(&mut tar, &format!("{folder}/"), EntryType::Directory, 0o755, &[])?;
    }
    for file in files {
        append(&mut tar, &file.path, EntryType::Regular, file.mode, &file.contents)?;
    }
    tar.into_inner().context("cannot end a tar")
}

/// Appends one entry without times and owners. Also for archives of images.
///
/// # Errors
/// As for [`tar_of`].
pub(crate) fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    contents: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(contents.len())?);
    tar.append_data(&mut header, path, contents).with_context(|| format!("cannot put {path} into a tar"))
}

/// Every folder above a path, outermost first.
fn folders_of(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_entries_does_not_change_a_layer() {
        let a = Entry::file("etc/passwd", "x");
        let b = Entry::program("app", b"y".to_vec());
        let one = tar_of(&[a.clone(), b.clone()]).expect("a layer");
        assert_eq!(one, tar_of(&[b, a]).expect("a layer"));
    }

    #[test]
    fn a_layer_holds_folders_and_files_of_root_and_no_times() {
        let layer = tar_of(&[Entry::file("etc/ssl/certs/roots", "x"), Entry::program("app", b"y".to_vec())]);
        let layer = layer.expect("a layer");
        let mut archive = tar::Archive::new(layer.as_slice());
        let entries: Vec<(String, u32)> = archive
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                assert_eq!(header.mtime().expect("a time"), 0);
                assert_eq!((header.uid().expect("a user"), header.gid().expect("a group")), (0, 0));
                (entry.path().expect("a path").display().to_string(), header.mode().expect("a mode"))
            })
            .collect();
        let expected = [
            ("etc/", 0o755),
            ("etc/ssl/", 0o755),
            ("etc/ssl/certs/", 0o755),
            ("app", 0o755),
            ("etc/ssl/certs/roots", 0o644),
        ];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }
}
