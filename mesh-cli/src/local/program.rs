//! Finds the programs that a local mesh is made of: its own, and those of the system.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Folders of system administration, which an ordinary user's PATH leaves out.
const SYSTEM: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A program that is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramMissing {
    /// One of the mesh's own.
    #[error("{name} is neither beside meshctl nor on PATH")]
    Own {
        /// Its name.
        name: &'static str,
    },
    /// One of the system's.
    #[error("the program {name} is missing: install the package {package}")]
    System {
        /// Its name.
        name: &'static str,
        /// Debian's and Fedora's package.
        package: &'static str,
    },
}

/// The programs that a local mesh needs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This program.
    pub(crate) meshctl: PathBuf,
    /// The control plane.
    pub(crate) control: PathBuf,
    /// The proxy.
    pub(crate) proxy: PathBuf,
    /// `ip` of iproute2.
    pub(crate) ip: PathBuf,
}

impl Programs {
    /// Finds all of them.
    ///
    /// # Errors
    /// The first that is missing.
    pub(crate) fn find() -> Result<Self, ProgramMissing> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = std::env::var_os("MESH_BIN_DIR").map(PathBuf::from);
        let meshctl = this_program().ok_or(ProgramMissing::Own { name: "meshctl" })?;
        let beside = meshctl.parent().map(Path::to_path_buf);
        let folders: Vec<PathBuf> =
            own.into_iter().chain(beside).chain(std::env::split_paths(&path)).collect();
        let mesh = |name| find(name, &folders).ok_or(ProgramMissing::Own { name });
        let system: Vec<PathBuf> = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from)).collect();
        let ip = find("ip", &system).ok_or(ProgramMissing::System { name: "ip", package: "iproute2" })?;
        Ok(Self { control: mesh("mesh-control")?, proxy: mesh("mesh-proxy")?, meshctl, ip })
    }
}

/// The file of this program.
pub(crate) fn this_program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// `PATH` with the folders of system administration at its end.
pub(crate) fn system_path(path: &OsStr) -> String {
    let system = SYSTEM.map(PathBuf::from);
    let all = std::env::split_paths(path).chain(system);
    std::env::join_paths(all).map(|joined| joined.to_string_lossy().into_owned()).unwrap_or_default()
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    folders.iter().map(|folder| folder.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_executable_file_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            std::fs::create_dir(place).expect("a folder");
            std::fs::write(place.join("tool"), "").expect("a file");
            std::fs::set_permissions(place.join("tool"), std::fs::Permissions::from_mode(mode))
                .expect("a mode");
        }
        let folders = [first, second.clone()];
        assert_eq!(find("tool", &folders), Some(second.join("tool")));
        assert_eq!(find("other", &folders), None);
    }
}
