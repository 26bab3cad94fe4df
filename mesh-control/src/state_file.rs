//! Small files of state that survive a kill at any moment: written aside, flushed, renamed into place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not what was written.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The value could not be encoded.
    #[error("the content of {} cannot be encoded", path.display())]
    Encode {
        /// Where.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Whether the bytes must be on the disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// They must: a power cut must not undo what was answered.
    Flushed,
    /// The system writes them in its own time; a kill of this process loses nothing.
    Cached,
}

fn failed<'p>(action: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> StateFileError + 'p {
    move |source| StateFileError::Io { action, path: path.to_owned(), source }
}

/// Makes a directory of this mode, with its parents, if it is not there.
///
/// # Errors
/// When the operating system refuses.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), StateFileError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make directory", path))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// When the operating system refuses; the former content is then untouched.
pub fn write(path: &Path, content: &[u8], mode: u32, durability: Durability) -> Result<(), StateFileError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    // A leftover of a killed writer may have any content and, if somebody else made it, any mode.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &aside)(error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file: File =
        options.write(true).create_new(true).mode(mode).open(&aside).map_err(failed("create", &aside))?;
    file.write_all(content).map_err(failed("write", &aside))?;
    if durability == Durability::Flushed {
        file.sync_all().map_err(failed("flush", &aside))?;
    }
    fs::rename(&aside, path).map_err(failed("replace", path))?;
    if durability == Durability::Flushed
        && let Some(parent) = path.parent()
    {
        let directory = File::open(parent).map_err(failed("open", parent))?;
        directory.sync_all().map_err(failed("flush", parent))?;
    }
    Ok(())
}

/// Writes a value as JSON, readable by its owner only.
///
/// # Errors
/// When the value cannot be encoded or the operating system refuses.
pub fn write_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> Result<(), StateFileError> {
    let content = serde_json::to_vec(value)
        .map_err(|source| StateFileError::Encode { path: path.to_owned(), source })?;
    write(path, &content, 0o600, durability)
}

/// Reads a value; `None` when there is no file.
///
/// # Errors
/// When the content is damaged or the operating system refuses.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let value = serde_json::from_slice(&content)
        .map_err(|source| StateFileError::Damaged { path: path.to_owned(), source })?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_leftover_of_a_killed_writer_is_replaced_and_modes_hold() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens.json");
        fs::write(directory.path().join("tokens.json.new"), b"half").expect("written");
        write_json(&path, &vec![1, 2], Durability::Flushed).expect("written");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("read"), Some(vec![1, 2]));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damage_is_an_error_and_absence_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("read"), None);
        fs::write(&path, b"[1,").expect("written");
        assert!(matches!(read_json::<Vec<u8>>(&path), Err(StateFileError::Damaged { .. })));
    }
}
