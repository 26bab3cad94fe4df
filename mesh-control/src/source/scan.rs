//! Looks at a folder on disk.
//!
//! Taken are files that end in `.yaml`, `.yml` or `.json`, in any sub-folder. Names that begin with a dot
//! are passed over: editors' swap files, and the `..data` of a mounted ConfigMap, whose files are links
//! beside it. Links are followed. A file that vanishes between listing and reading was not there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::manifest::folder::{DEPTH_MAX, FILE_BYTES_MAX, FILES_MAX, is_hidden, is_manifest};

use super::display_name;
use super::file::Reading;
use super::folder::Scan;

/// A file that was changed this shortly ago may change again without a new time stamp (the kernel's clock
/// for them ticks every few milliseconds), so its stamp is not relied on.
const STAMP_TRUSTED_AFTER: Duration = Duration::from_secs(1);

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Files whose time stamps have changed are read.
    Stamps,
    /// Every file is read.
    Content,
}

/// What tells a changed file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Looks at one folder again and again.
#[derive(Debug)]
pub struct Scanner {
    root: PathBuf,
    stamps: HashMap<Arc<str>, Stamp>,
}

#[derive(Debug, Default)]
struct Listing {
    files: BTreeMap<Arc<str>, PathBuf>,
    unlisted: BTreeMap<Arc<str>, String>,
    visited: HashSet<(u64, u64)>,
}

impl Scanner {
    /// A scanner that has not looked yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), stamps: HashMap::new() }
    }

    /// Makes the next look read every file.
    pub fn forget(&mut self) {
        self.stamps.clear();
    }

    /// Looks. Blocks on the disk.
    pub fn scan(&mut self, depth: Depth) -> Scan {
        let mut listing = Listing::default();
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Scan::Gone("it is not a folder".to_owned()),
            Err(error) => return Scan::Gone(error.to_string()),
        }
        if let Err(error) = list(&self.root, 0, &mut listing) {
            return Scan::Gone(error.to_string());
        }
        let mut stamps = HashMap::with_capacity(listing.files.len());
        let mut files = BTreeMap::new();
        for (name, path) in listing.files {
            if let Some(reading) = self.read(&name, &path, depth, &mut stamps) {
                files.insert(name, reading);
            }
        }
        self.stamps = stamps;
        Scan::Listed { files, unlisted: listing.unlisted }
    }

    fn read(
        &self,
        name: &Arc<str>,
        path: &Path,
        depth: Depth,
        stamps: &mut HashMap<Arc<str>, Stamp>,
    ) -> Option<Reading> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // A link whose target is gone is there and cannot be read; a plain name is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return fs::symlink_metadata(path).is_ok().then(|| unreadable(&error));
            }
            Err(error) => return Some(unreadable(&error)),
        };
        if !metadata.is_file() {
            return None;
        }
        let stamp = Stamp::of(&metadata);
        if depth == Depth::Stamps && self.stamps.get(name) == Some(&stamp) {
            stamps.insert(Arc::clone(name), stamp);
            return Some(Reading::Same);
        }
        match read_text(path) {
            Ok(text) => {
                if is_settled(&metadata) {
                    stamps.insert(Arc::clone(name), stamp);
                }
                Some(Reading::Text(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(unreadable(&error)),
        }
    }
}

fn unreadable(error: &io::Error) -> Reading {
    Reading::Unreadable(format!("the file cannot be read: {error}"))
}

fn is_settled(metadata: &fs::Metadata) -> bool {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    SystemTime::now().duration_since(changed).is_ok_and(|age| age > STAMP_TRUSTED_AFTER)
}

fn read_text(path: &Path) -> io::Result<Arc<str>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map(Arc::from).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Lists a folder. The error is the folder's own; those of sub-folders are noted.
fn list(folder: &Path, depth: usize, listing: &mut Listing) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if depth > DEPTH_MAX || !listing.visited.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_hidden(&name) {
            continue;
        }
        if path.is_dir() {
            if let Err(error) = list(&path, depth + 1, listing)
                && error.kind() != io::ErrorKind::NotFound
            {
                let prefix = format!("{}/", path.to_string_lossy());
                listing.unlisted.insert(prefix.into(), error.to_string());
            }
        } else if is_manifest(&name) {
            if listing.files.len() >= FILES_MAX {
                return Err(io::Error::other(format!("it holds more than {FILES_MAX} files")));
            }
            listing.files.insert(display_name(&path), path);
        }
    }
    Ok(())
}
