//! Good keys over a restart: a small file for each source, so that tokens are verified although the provider
//! is down when the control plane starts.
//!
//! A file that is not what was written is passed over with a warning, and its source is fetched like a new
//! one. Keys are read as strictly as a provider's answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_api::error_chain::chain;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key_set::{PublicKeys, TEXT_BYTES_MAX};
use super::schedule::{Good, SOURCES_MAX, UNUSED_MAX};
use crate::state_file::{self, Durability, StateFileError};

/// Longest file that is read, in bytes: JSON in JSON, which at worst doubles it, and the URL.
const FILE_BYTES_MAX: u64 = 2 * TEXT_BYTES_MAX as u64 + 16 * 1024;
/// Bytes of a URL's digest that name its file.
const NAME_BYTES: usize = 16;

/// What is stored of one source.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    url: String,
    jwks: String,
    /// Seconds of the Unix epoch at which the keys were last seen at their source.
    seen: u64,
}

/// Why a file is passed over.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    File(#[from] StateFileError),
    #[error("it is larger than any that is written")]
    TooLarge,
    #[error("its name is not that of its source")]
    Name,
    #[error("its keys cannot be used")]
    Keys(#[from] super::key_set::KeySetError),
}

/// The store: a directory of its own.
#[derive(Debug, Clone)]
pub struct KeyStore {
    directory: PathBuf,
}

impl KeyStore {
    /// Opens the store, making its directory if it is not there.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn open(directory: &Path) -> Result<Self, StateFileError> {
        state_file::make_directory(directory, 0o700)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Everything that is stored and can be used.
    #[must_use]
    pub fn load(&self) -> Vec<(String, Good)> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "stored keys cannot be listed; they are fetched anew");
                return Vec::new();
            }
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let loaded = files.take(SOURCES_MAX + UNUSED_MAX).filter_map(|path| match self.read(&path) {
            Ok(found) => found,
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(path = %path.display(), reason, "stored keys are not used; they are fetched anew");
                None
            }
        });
        loaded.collect()
    }

    fn read(&self, path: &Path) -> Result<Option<(String, Good)>, LoadError> {
        if fs::metadata(path).is_ok_and(|found| found.len() > FILE_BYTES_MAX) {
            return Err(LoadError::TooLarge);
        }
        let Some(record) = state_file::read_json::<Record>(path)? else { return Ok(None) };
        if self.path(&record.url) != path {
            return Err(LoadError::Name);
        }
        let keys = PublicKeys::parse(record.jwks.as_bytes())?;
        let seen = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(record.seen));
        Ok(Some((record.url, Good { keys, seen: seen.unwrap_or(SystemTime::UNIX_EPOCH) })))
    }

    /// Stores the keys of a source, readable by their owner only. Blocks on the disk.
    ///
    /// # Errors
    /// When the operating system refuses; what was stored before is then untouched.
    pub fn save(&self, url: &str, good: &Good, durability: Durability) -> Result<(), StateFileError> {
        let seen = good.seen.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let record = Record { url: url.to_owned(), jwks: good.keys.text.as_ref().to_owned(), seen };
        state_file::write_json(&self.path(url), &record, durability)
    }

    /// Forgets a source. Blocks on the disk.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn remove(&self, url: &str) -> std::io::Result<()> {
        match fs::remove_file(self.path(url)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, url: &str) -> PathBuf {
        let digest = Sha256::digest(url.as_bytes());
        let name: String = digest.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const URL: &str = "https://idp.example/jwks";
    const JWKS: &str = r#"{"keys":[{"crv":"P-256","kid":"a","kty":"EC","x":"1","y":"2"}]}"#;

    fn good() -> Good {
        let seen = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Good { keys: PublicKeys::parse(JWKS.as_bytes()).expect("a key set"), seen }
    }

    fn store(folder: &tempfile::TempDir) -> KeyStore {
        KeyStore::open(&folder.path().join("jwks")).expect("opened")
    }

    #[test]
    fn keys_survive_a_restart_and_are_their_owners_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = store(&folder);
        kept.save(URL, &good(), Durability::Flushed).expect("saved");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&kept.directory), mode(&kept.path(URL))), (0o700, 0o600));
        assert_eq!(store(&folder).load(), [(URL.to_owned(), good())]);
        kept.remove(URL).expect("removed");
        kept.remove(URL).expect("removed already");
        assert!(store(&folder).load().is_empty());
    }

    #[test]
    fn a_file_that_is_not_what_was_written_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = store(&folder);
        kept.save("https://good.example/", &good(), Durability::Flushed).expect("saved");
        let record =
            |url: &str, jwks: &str| serde_json::json!({"url": url, "jwks": jwks, "seen": 1}).to_string();
        let large = "x".repeat(usize::try_from(FILE_BYTES_MAX).expect("small") + 1);
        let damaged = [
            "".to_owned(),
            "{".to_owned(),
            record(URL, "<html>"),
            record(URL, r#"{"keys":[]}"#),
            record("https://other.example/", JWKS),
            large,
        ];
        for content in damaged {
            fs::write(kept.path(URL), &content).expect("written");
            let urls: Vec<_> = kept.load().into_iter().map(|(url, _)| url).collect();
            assert_eq!(urls, ["https://good.example/"], "{}", &content[..content.len().min(80)]);
        }
    }
}
