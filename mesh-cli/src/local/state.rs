//! Where a local mesh keeps its files, and which mesh a command is about.
//!
//! Everything lies under one directory that only its owner may enter, since it holds keys of the authority
//! and join tokens. Only files that are listed here are ever removed: a state directory that was mistyped
//! does not lose what else lies in it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::host_process::HostProcess;
use super::mesh_file::{self, MeshFile, MeshFileError};
use super::plan::Plan;
use super::privilege::Privilege;

/// The state directory of one mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct StateDirectory(PathBuf);

/// `mesh.json`: what a command needs to know to find the running mesh. Written before anything runs in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LocalMeshState {
    /// Name of the mesh.
    pub(crate) name: String,
    /// First process of the mesh's PID namespace, as the machine sees it.
    pub(crate) supervisor: HostProcess,
    /// With what privilege it runs.
    pub(crate) privilege: Privilege,
    /// The `mesh.yaml` that it comes from.
    pub(crate) file: PathBuf,
    /// Folder of the user's configuration: `apply` and `delete` write there.
    pub(crate) config: PathBuf,
    /// Version of the meshctl that started it.
    pub(crate) version: String,
}

/// How a command says which mesh it is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// State directory.
    pub(crate) directory: Option<PathBuf>,
    /// Name.
    pub(crate) name: Option<String>,
}

/// Why no mesh was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocateError {
    /// None is up.
    #[error("no mesh is up")]
    None,
    /// This one is not.
    #[error("no mesh is up in {}", .0.display())]
    NotUp(PathBuf),
    /// Several are, and it was not said which.
    #[error("several meshes are up ({}); say which one with --mesh", .0.join(", "))]
    Several(Vec<String>),
    /// It belongs to somebody else.
    #[error("{} may not be read by this user; the mesh was started by another one, perhaps with sudo", .0.display())]
    Forbidden(PathBuf),
    /// A state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no place for state.
    #[error("neither XDG_STATE_HOME nor HOME is set; say where the state is with --state-dir")]
    NoHome,
}

/// What went wrong with a file of the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// It cannot be read, written or removed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{} is not readable by this version of meshctl", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Subdirectories that exist while a mesh is up.
const FOLDERS: [&str; 6] = ["control", "control/state", "config", "config/local", "run", "logs"];
/// What `down` removes.
const RUNNING: [&str; 6] =
    ["supervisor.sock", "plan.json", "config", "run", "control/admin.sock", "mesh.json"];
/// What `down` removes unless it is told to keep it.
const KEPT: [&str; 2] = ["control", "logs"];

impl StateDirectory {
    /// A state directory at an absolute path.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What a running mesh is known by.
    pub(crate) fn mesh_json(&self) -> PathBuf {
        self.0.join("mesh.json")
    }

    /// The plan that the supervisor carries out.
    pub(crate) fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// The supervisor's API.
    pub(crate) fn supervisor_socket(&self) -> PathBuf {
        self.0.join("supervisor.sock")
    }

    /// The control plane's admin socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.0.join("control/admin.sock")
    }

    /// The public trust bundle.
    pub(crate) fn root_cert(&self) -> PathBuf {
        self.0.join("control/state/root-cert.pem")
    }

    /// Generated configuration.
    pub(crate) fn local_config(&self) -> PathBuf {
        self.0.join("config/local")
    }

    /// The user's configuration, when the user has no folder for it.
    pub(crate) fn user_config(&self) -> PathBuf {
        self.0.join("config/user")
    }

    /// Files of a running workload.
    pub(crate) fn run(&self, workload: &str) -> PathBuf {
        self.0.join("run").join(workload)
    }

    /// Where the namespaces of the workloads' networks are kept, in the supervisor's view of files.
    pub(crate) fn networks(&self) -> PathBuf {
        self.0.join("run/.networks")
    }

    /// The network namespace of a workload, in the supervisor's view of files.
    pub(crate) fn network(&self, workload: &str) -> PathBuf {
        self.networks().join(workload)
    }

    /// How the application of a workload is launched.
    pub(crate) fn app_spec(&self, workload: &str) -> PathBuf {
        self.run(workload).join("app.json")
    }

    /// The admin socket of a workload's proxy.
    pub(crate) fn proxy_socket(&self, workload: &str) -> PathBuf {
        self.run(workload).join("proxy/admin.sock")
    }

    /// A log, for instance `control` or `frontend.web.app`.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    /// Makes the directory and its subdirectories.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn create(&self) -> Result<(), StateError> {
        let make = |path: &Path| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))
        };
        make(&self.0)?;
        FOLDERS.iter().try_for_each(|folder| make(&self.0.join(folder)))
    }

    /// Removes what a mesh left; with `Keep::AuthorityAndLogs`, all but those.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn remove(&self, keep: Keep) -> Result<(), StateError> {
        let kept = match keep {
            Keep::Nothing => KEPT.as_slice(),
            Keep::AuthorityAndLogs => &[],
        };
        // mesh.json comes last of the first list: until then an interrupted removal can be repeated.
        for name in RUNNING.iter().chain(kept) {
            let path = self.0.join(name);
            let removed = match path.symlink_metadata() {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        match fs::remove_dir(&self.0) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) =>
            {
                Err(failed("remove", &self.0)(error))
            }
            // What is not ours stays.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What is known of the mesh here, whether or not it still runs.
    ///
    /// # Errors
    /// When there is none, or its file cannot be used.
    pub(crate) fn load(&self) -> Result<LocalMeshState, LocateError> {
        match read_json(&self.mesh_json()) {
            Ok(state) => Ok(state),
            Err(StateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(LocateError::NotUp(self.0.clone()))
            }
            Err(StateError::File { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(LocateError::Forbidden(self.0.clone()))
            }
            Err(other) => Err(other.into()),
        }
    }
}

/// What stays when a mesh goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing.
    Nothing,
    /// The authority's keys, so that identities stay valid for the next start, and the logs.
    AuthorityAndLogs,
}

impl Selection {
    /// Where a mesh of this name keeps its state, when it is started.
    ///
    /// # Errors
    /// When there is no place for state.
    pub(crate) fn directory_for(
        &self,
        name: &str,
        privilege: Privilege,
    ) -> Result<StateDirectory, LocateError> {
        match &self.directory {
            Some(path) => Ok(StateDirectory::new(absolute(path))),
            None => Ok(StateDirectory::new(base(privilege)?.join(name))),
        }
    }

    /// Finds the mesh that a command is about: the stated one; else the one of the `mesh.yaml` here; else the
    /// only one.
    ///
    /// # Errors
    /// When there is none, or several.
    pub(crate) fn locate(&self) -> Result<(StateDirectory, LocalMeshState), LocateError> {
        if let Some(path) = &self.directory {
            let directory = StateDirectory::new(absolute(path));
            return directory.load().map(|state| (directory, state));
        }
        let base = base(Privilege::of_this_process())?;
        if let Some(name) = &self.name {
            let directory = StateDirectory::new(base.join(name));
            return directory.load().map(|state| (directory, state));
        }
        let mut found = meshes(&base)?;
        if found.len() > 1
            && let Ok(here) = name_here()
            && let Some(position) = found.iter().position(|(_, state)| state.name == here)
        {
            return Ok(found.swap_remove(position));
        }
        match found.len() {
            0 => Err(LocateError::None),
            1 => Ok(found.remove(0)),
            _ => Err(LocateError::Several(found.into_iter().map(|(_, state)| state.name).collect())),
        }
    }
}

fn name_here() -> Result<String, MeshFileError> {
    let path = Path::new(mesh_file::DEFAULT_NAME);
    let file = MeshFile::read(path)?;
    file.name.ok_or_else(|| MeshFileError::Absent { path: path.to_owned() })
}

fn meshes(base: &Path) -> Result<Vec<(StateDirectory, LocalMeshState)>, LocateError> {
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(LocateError::Forbidden(base.to_owned()));
        }
        Err(error) => return Err(failed("read", base)(error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let directory = StateDirectory::new(entry.map_err(failed("read", base))?.path());
        match directory.load() {
            Ok(state) => found.push((directory, state)),
            Err(LocateError::NotUp(_)) => {}
            Err(other) => return Err(other),
        }
    }
    found.sort_by(|(_, left), (_, right)| left.name.cmp(&right.name));
    Ok(found)
}

/// Where meshes keep their state unless told otherwise: the place of system services for root, that of
/// programs of a user (XDG Base Directory Specification) otherwise.
fn base(privilege: Privilege) -> Result<PathBuf, LocateError> {
    if privilege == Privilege::Root {
        return Ok(PathBuf::from("/var/lib/mini-mesh"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("mini-mesh"))
        .ok_or(LocateError::NoHome)
}

fn absolute(path: &Path) -> PathBuf {
    // Fails for an empty path or a working directory that is gone; using it will then say so.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { action, path, source }
}

/// Reads a JSON file.
///
/// # Errors
/// When it cannot be read or does not hold what it should.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    let text = fs::read(path).map_err(failed("read", path))?;
    serde_json::from_slice(&text).map_err(|source| StateError::Content { path: path.to_owned(), source })
}

/// Writes a JSON file that only its owner may read, complete or not at all.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| StateError::Content { path: path.to_owned(), source })?;
    write_file(path, &text, 0o600)
}

/// Writes a file, complete or not at all: a reader sees the former content or the new one.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), StateError> {
    // The name starts with a dot so that a watcher of the folder passes it over.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let write = || {
        use std::io::Write as _;
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("write", path))
}

/// Reads the plan of a mesh.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_plan(directory: &StateDirectory) -> Result<Plan, StateError> {
    read_json(&directory.plan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_leaves_what_is_not_the_meshs() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = StateDirectory::new(folder.path().join("state"));
        directory.create().expect("created");
        fs::write(directory.path().join("diary.txt"), "mine").expect("a file");
        fs::write(directory.log("control"), "log").expect("a file");
        fs::write(directory.root_cert(), "cert").expect("a file");
        write_json(&directory.plan(), &1).expect("a file");
        directory.remove(Keep::AuthorityAndLogs).expect("removed");
        assert!(directory.log("control").exists() && directory.root_cert().exists());
        assert!(!directory.plan().exists() && !directory.local_config().exists());
        directory.remove(Keep::Nothing).expect("removed");
        let left: Vec<_> = fs::read_dir(directory.path()).expect("a folder").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        fs::remove_file(directory.path().join("diary.txt")).expect("removed");
        directory.remove(Keep::Nothing).expect("removed");
        assert!(!directory.path().exists());
        directory.remove(Keep::Nothing).expect("nothing to remove is no error");
    }

    #[test]
    fn only_the_owner_may_enter() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let directory = StateDirectory::new(folder.path().join("state"));
        directory.create().expect("created");
        let mode = fs::metadata(directory.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_directory_without_a_mesh_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let selection = Selection { directory: Some(folder.path().to_owned()), name: None };
        assert!(matches!(selection.locate(), Err(LocateError::NotUp(_))));
        fs::write(folder.path().join("mesh.json"), "{").expect("a file");
        assert!(matches!(selection.locate(), Err(LocateError::State(StateError::Content { .. }))));
    }
}
