//! `mesh.yaml`: what a user writes about a local mesh, as typed.
//!
//! Reading is strict: a field that is not known is an error with its line and the nearest name that is,
//! because a misspelt `namespace` would silently put a workload where other policies hold. What the fields
//! mean together (instances, addresses, implied services) is the plan's concern.

mod scalar;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;

pub(crate) use scalar::{CommandWords, Port, TargetPort, Text};

use crate::suggestion;

/// Name of the file unless another is given.
pub(crate) const DEFAULT_NAME: &str = "mesh.yaml";
/// Longest file that is read, in bytes. A mesh of thousands of workloads is far below.
const BYTES_MAX: u64 = 4 << 20;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MeshFile {
    /// Name of the mesh; default: the folder's name.
    pub(crate) name: Option<String>,
    /// Folder of the user's configuration, relative to the file; default `./config`.
    pub(crate) config: Option<PathBuf>,
    /// Trust domain; default: what the configuration's MeshConfig says, else `cluster.local`.
    pub(crate) trust_domain: Option<Spanned<String>>,
    /// IPv4 network; default `10.77.0.0/16`.
    pub(crate) network: Option<Spanned<String>>,
    /// Life of workload certificates; default `24h`.
    pub(crate) workload_ttl: Option<Spanned<String>>,
    /// What runs.
    #[serde(default)]
    pub(crate) workloads: Vec<Spanned<WorkloadEntry>>,
    /// Names that workloads are called by.
    #[serde(default)]
    pub(crate) services: Vec<Spanned<ServiceEntry>>,
}

/// One entry of `workloads`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WorkloadEntry {
    /// Name: a DNS label.
    pub(crate) name: String,
    /// Namespace; default `default`.
    pub(crate) namespace: Option<String>,
    /// Service account; default: the name.
    pub(crate) service_account: Option<String>,
    /// Labels; `app` is the name unless stated.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, Text>,
    /// What to run: words, or one string that is split like a shell does.
    pub(crate) command: CommandWords,
    /// Environment variables besides PATH, HOME, USER, LANG and TERM.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, Text>,
    /// Working directory, relative to the file; default: the file's folder.
    pub(crate) working_directory: Option<PathBuf>,
    /// Ports that it serves.
    #[serde(default)]
    pub(crate) ports: Vec<Port>,
    /// Number of instances, named NAME-0, NAME-1 and so on; without it there is one, called NAME.
    pub(crate) replicas: Option<u32>,
    /// Whether it has a proxy; default true.
    pub(crate) mesh: Option<bool>,
    /// User to run as when `meshctl` is root: name, uid or uid:gid; default: who called sudo, else nobody.
    pub(crate) user: Option<Text>,
    /// When to start it again; default `on-failure`.
    #[serde(default)]
    pub(crate) restart: RestartPolicy,
}

/// When an application that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartPolicy {
    /// Always.
    Always,
    /// When its exit status is not 0: a job ends with 0.
    #[default]
    OnFailure,
    /// Never.
    No,
}

/// One entry of `services`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ServiceEntry {
    /// Name.
    pub(crate) name: String,
    /// Namespace; default `default`.
    pub(crate) namespace: Option<String>,
    /// Labels of the workloads behind it; default `app: NAME`.
    #[serde(default)]
    pub(crate) selector: BTreeMap<String, Text>,
    /// Ports.
    pub(crate) ports: Vec<Port>,
    /// Whether names resolve to the workloads' own addresses; default false.
    #[serde(default)]
    pub(crate) headless: bool,
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshFileError {
    /// It is not there.
    #[error("there is no {}", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is longer than any mesh needs.
    #[error("{} is larger than {BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It says something that cannot be.
    #[error("{place}: {message}")]
    Invalid {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file.
    pub(crate) path: PathBuf,
    /// Line from 1, when known.
    pub(crate) line: Option<u64>,
    /// Field, for instance `workloads[2].namespace`; empty for the whole.
    pub(crate) field: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        Ok(())
    }
}

impl MeshFile {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// When it is absent, unreadable, too large or not what a mesh is written as.
    pub(crate) fn read(path: &Path) -> Result<Self, MeshFileError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => MeshFileError::Absent { path: path.to_owned() },
            _ => MeshFileError::Read { path: path.to_owned(), source },
        };
        if std::fs::metadata(path).map_err(failed)?.len() > BYTES_MAX {
            return Err(MeshFileError::TooLarge { path: path.to_owned() });
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(failed)?)
    }

    /// Parses a file's text; `path` is only named in errors.
    ///
    /// # Errors
    /// When it is not what a mesh is written as.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, MeshFileError> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
            let place = Place { path: path.to_owned(), line, field: String::new() };
            MeshFileError::Invalid { place, message: reworded(&error) }
        })
    }
}

/// The parser's message with the nearest known name when a field is not known, and without the position that
/// the place states already.
fn reworded(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        return match suggestion::nearest(field, expected.iter().copied()) {
            Some(near) => format!("there is no field `{field}` here; did you mean `{near}`?"),
            None => format!("there is no field `{field}` here; known are {}", expected.join(", ")),
        };
    }
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).trim().trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests;
