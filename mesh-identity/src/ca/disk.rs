//! The authority's state on disk: one file in a directory of its own, readable by its owner only.
//!
//! The whole state is one file, because root and intermediate must change together: it is written aside,
//! flushed, and renamed over the old one, so that a crash at any moment leaves the old state or the new one.
//! A root is made only where there has never been one. After the state, a copy of the root certificate is
//! written beside it; if that copy is there and the state is not, or the state cannot be read, that is an
//! error for a person to look at and never a reason to make a new root, which would cut off every proxy
//! of the mesh. A lock keeps two control planes from making two roots.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mesh_api::name::TrustDomain;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::authority::{AssembleError, Authority, CreateError, MaintainError, Signer};
use super::stored::{self, StoredError};
use super::{CaSettings, Event};

const STATE_FILE: &str = "authority.json";
const ASIDE_FILE: &str = "authority.json.new";
const ROOT_FILE: &str = "root-cert.pem";
const LOCK_FILE: &str = "lock";
/// Form of the state file.
const VERSION: u32 = 1;
/// Largest state file that is read, in bytes.
const STATE_BYTES_MAX: u64 = 1024 * 1024;
/// Room for a real state, which is about 3 kB.
const STATE_BYTES_USUAL: usize = 16 * 1024;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Why the state could not be read or written. Each names the path that a person should look at.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
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
    /// Others can reach the keys.
    #[error("{} may be used by its owner only but has mode {mode:04o}; set it to {wanted:04o}", path.display())]
    Permissions {
        /// Where.
        path: PathBuf,
        /// Found.
        mode: u32,
        /// Expected.
        wanted: u32,
    },
    /// Something else than a plain file or directory, a symbolic link for instance.
    #[error("{} is not a plain {expected}", path.display())]
    NotPlain {
        /// Where.
        path: PathBuf,
        /// `file` or `directory`.
        expected: &'static str,
    },
    /// Another process uses the directory.
    #[error("another process uses {}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The state was there once and is gone.
    #[error(
        "{} is missing although an authority was made in its directory; restore it, or remove the directory to begin with a new root",
        path.display()
    )]
    Missing {
        /// The state file.
        path: PathBuf,
    },
    /// The file is not a state file, or only a part of one.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file is larger than any state.
    #[error("{} is larger than any state of an authority", path.display())]
    TooLarge {
        /// The state file.
        path: PathBuf,
    },
    /// The file is of another program version.
    #[error("{} has form {found}, this program reads form {VERSION}", path.display())]
    Version {
        /// The state file.
        path: PathBuf,
        /// Found.
        found: u32,
    },
    /// A block in the file is not PEM.
    #[error("the {part} in {} is damaged", path.display())]
    Pem {
        /// The state file.
        path: PathBuf,
        /// Which block.
        part: &'static str,
    },
    /// The parts do not make an authority.
    #[error("{} does not hold a usable authority", path.display())]
    Unusable {
        /// The state file.
        path: PathBuf,
        /// Why.
        source: Box<AssembleError>,
    },
    /// A new authority could not be made.
    #[error("a new authority could not be made")]
    Create(#[source] CreateError),
    /// The authority that was read could not be kept in order.
    #[error("the authority in {} could not be brought up to date", path.display())]
    Maintain {
        /// The state file.
        path: PathBuf,
        /// Why.
        source: MaintainError,
    },
    /// The state could not be put into words.
    #[error("the state of the authority could not be encoded")]
    Encode(#[source] serde_json::Error),
}

/// The directory of an authority, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

/// How the authority came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A new root was made: nothing was there.
    Created,
    /// It was read.
    Loaded,
}

impl StateDirectory {
    /// Opens the directory, making it (mode 0700) if it is not there, and locks it.
    ///
    /// # Errors
    /// When others may enter the directory, another process uses it, or the operating system refuses.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        match DirBuilder::new().mode(0o700).recursive(true).create(path) {
            Ok(()) => {}
            Err(source) => return Err(io_error("make directory", path)(source)),
        }
        check_private(path, Expected::Directory)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: lock_path }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &lock_path)(source)),
        }
    }

    /// Reads the authority, or makes and stores one where there has never been one. An intermediate that
    /// has passed half of its life is followed by a new one at once.
    ///
    /// # Errors
    /// Anything but a whole, private, usable state or an untouched directory; see [`DiskError`].
    pub fn load_or_create(
        &self,
        settings: CaSettings,
        now: SystemTime,
    ) -> Result<(Authority, Origin), DiskError> {
        let state = self.path.join(STATE_FILE);
        let authority = match fs::symlink_metadata(&state) {
            Ok(_) => self.load(settings)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.create(settings, now),
            Err(source) => return Err(io_error("look at", &state)(source)),
        };
        let events = authority.maintain(now).map_err(|source| DiskError::Maintain { path: state, source })?;
        if events.iter().any(|event| matches!(event, Event::IntermediateRotated { .. })) {
            self.persist(&authority)?;
        } else {
            self.write_root(&authority)?;
        }
        Ok((authority, Origin::Loaded))
    }

    /// Stores the authority, whole or not at all.
    ///
    /// # Errors
    /// When the operating system refuses; the former state is then untouched.
    pub fn persist(&self, authority: &Authority) -> Result<(), DiskError> {
        let text = encode(authority)?;
        self.replace(ASIDE_FILE, STATE_FILE, &text)?;
        self.write_root(authority)
    }

    fn create(&self, settings: CaSettings, now: SystemTime) -> Result<(Authority, Origin), DiskError> {
        let root = self.path.join(ROOT_FILE);
        // What cannot be looked at may well be there: only a definite "no" lets a root be made.
        match fs::symlink_metadata(&root) {
            Ok(_) => return Err(DiskError::Missing { path: self.path.join(STATE_FILE) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("look at", &root)(source)),
        }
        let authority = Authority::create(settings, now).map_err(DiskError::Create)?;
        self.persist(&authority)?;
        Ok((authority, Origin::Created))
    }

    fn load(&self, settings: CaSettings) -> Result<Authority, DiskError> {
        let path = self.path.join(STATE_FILE);
        check_private(&path, Expected::File)?;
        let file = File::open(&path).map_err(io_error("open", &path))?;
        // Room for all of it from the start: a buffer that grows leaves copies of keys behind.
        let mut text = Zeroizing::new(Vec::with_capacity(STATE_BYTES_USUAL));
        file.take(STATE_BYTES_MAX + 1).read_to_end(&mut text).map_err(io_error("read", &path))?;
        if text.len() as u64 > STATE_BYTES_MAX {
            return Err(DiskError::TooLarge { path });
        }
        decode(&path, &text, settings)
    }

    /// The public copy of the root, which also says that this directory has had an authority.
    fn write_root(&self, authority: &Authority) -> Result<(), DiskError> {
        let pem = crate::certificate::to_pem(authority.root_certificate());
        let path = self.path.join(ROOT_FILE);
        match fs::read(&path) {
            Ok(found) if found == pem.as_bytes() => Ok(()),
            Ok(_) | Err(_) => self.replace("root-cert.pem.new", ROOT_FILE, pem.as_bytes()),
        }
    }

    /// Writes aside, flushes, renames, and flushes the directory, so that the name is on disk too.
    fn replace(&self, aside: &str, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let (aside, target) = (self.path.join(aside), self.path.join(name));
        // A leftover of a crash may have other permissions than those asked for below.
        match fs::remove_file(&aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove", &aside)(source)),
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&aside)
            .map_err(io_error("create", &aside))?;
        file.write_all(bytes).map_err(io_error("write", &aside))?;
        file.sync_all().map_err(io_error("flush", &aside))?;
        fs::rename(&aside, &target).map_err(io_error("rename to", &target))?;
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(io_error("flush", &self.path))
    }
}

/// What a path should be.
#[derive(Clone, Copy)]
enum Expected {
    File,
    Directory,
}

fn check_private(path: &Path, expected: Expected) -> Result<(), DiskError> {
    let metadata = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
    let (is_plain, name, wanted) = match expected {
        Expected::File => (metadata.is_file(), "file", 0o600),
        Expected::Directory => (metadata.is_dir(), "directory", 0o700),
    };
    if !is_plain {
        return Err(DiskError::NotPlain { path: path.to_owned(), expected: name });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(DiskError::Permissions { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let path = path.to_owned();
    move |source| DiskError::Io { action, path, source }
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAuthority {
    version: u32,
    trust_domain: TrustDomain,
    root: StoredSigner,
    intermediate: StoredSigner,
}

/// A certificate with its private key, both PEM. Wiped on drop.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSigner {
    certificate: String,
    private_key: String,
}

impl Drop for StoredSigner {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

impl StoredSigner {
    fn of(signer: &Signer) -> Self {
        Self {
            certificate: stored::certificate(signer),
            private_key: stored::private_key(signer).to_string(),
        }
    }

    fn signer(&self, path: &Path, role: &'static str) -> Result<Signer, DiskError> {
        let signer = stored::signer(role, self.certificate.as_bytes(), self.private_key.as_bytes());
        signer.map_err(|error| match error {
            StoredError::Pem => DiskError::Pem { path: path.to_owned(), part: role },
            StoredError::Unusable(source) => unusable(path)(source),
        })
    }
}

fn unusable(path: &Path) -> impl FnOnce(AssembleError) -> DiskError + use<> {
    let path = path.to_owned();
    move |source| DiskError::Unusable { path, source: Box::new(source) }
}

fn encode(authority: &Authority) -> Result<Zeroizing<Vec<u8>>, DiskError> {
    let (root, intermediate) = authority.signers();
    let stored = StoredAuthority {
        version: VERSION,
        trust_domain: authority.settings().trust_domain.clone(),
        root: StoredSigner::of(root),
        intermediate: StoredSigner::of(&intermediate),
    };
    let mut text = Zeroizing::new(Vec::with_capacity(STATE_BYTES_USUAL));
    serde_json::to_writer_pretty(&mut *text, &stored).map_err(DiskError::Encode)?;
    Ok(text)
}

fn decode(path: &Path, text: &[u8], settings: CaSettings) -> Result<Authority, DiskError> {
    /// Read first, so that a file of a later form is told from a damaged one.
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    let damaged = |source| DiskError::Damaged { path: path.to_owned(), source };
    let form: Form = serde_json::from_slice(text).map_err(damaged)?;
    if form.version != VERSION {
        return Err(DiskError::Version { path: path.to_owned(), found: form.version });
    }
    let stored: StoredAuthority = serde_json::from_slice(text).map_err(damaged)?;
    if stored.trust_domain != settings.trust_domain {
        return Err(unusable(path)(AssembleError::TrustDomain {
            stored: stored.trust_domain.as_str().to_owned(),
            configured: settings.trust_domain.as_str().to_owned(),
        }));
    }
    let root = stored.root.signer(path, "root")?;
    let intermediate = stored.intermediate.signer(path, "intermediate")?;
    Authority::assemble(settings, root, intermediate).map_err(unusable(path))
}

#[cfg(test)]
mod tests;
