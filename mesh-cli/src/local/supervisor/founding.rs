//! How the namespaces of a mesh come to be, and its first process in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;

use super::SuperviseError;
use crate::local::host_process::HostProcess;
use crate::local::launch;
use crate::local::plan::Plan;
use crate::local::privilege::{Privilege, PrivilegeError};
use crate::local::program;
use crate::local::state::{self, LocalMeshState, StateDirectory};
use crate::output;

/// How the hidden commands of the supervisor are called.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct FoundingArgs {
    /// State directory, with the plan in it.
    pub(crate) directory: PathBuf,
}

/// Makes the namespaces of a mesh and starts its first process in them; returns once that is on record.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn found(directory: PathBuf) -> Result<(), SuperviseError> {
    let directory = StateDirectory::new(directory);
    let plan: Plan = state::read_plan(&directory)?;
    let program = program::this_program().ok_or_else(|| SuperviseError::Own {
        step: "find the file of this program",
        source: io::ErrorKind::NotFound.into(),
    })?;
    // Ctrl-C in the terminal is for `meshctl up`, which asks the mesh to stop.
    setsid().map_err(SuperviseError::kernel("make a session"))?;
    make_namespaces(plan.privilege)?;
    let log =
        open_log(&directory.log("supervisor")).map_err(SuperviseError::own("open the supervisor's log"))?;
    let again = log.try_clone().map_err(SuperviseError::own("open the supervisor's log"))?;
    let mut init = Command::new(program)
        .arg("local-init")
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(again)
        .spawn()
        .map_err(SuperviseError::own("start the supervisor"))?;
    let recorded = record(&directory, &plan, init.id());
    // Nothing runs yet: the first process waits for this byte, and ends when the pipe closes without it.
    match (recorded, init.stdin.take()) {
        (Ok(()), Some(mut gate)) => gate.write_all(b"!").map_err(SuperviseError::own("start the supervisor")),
        (recorded, _) => recorded,
    }
}

fn record(directory: &StateDirectory, plan: &Plan, pid: u32) -> Result<(), SuperviseError> {
    let pid = i32::try_from(pid).map_err(|error| SuperviseError::Own {
        step: "read the supervisor's number",
        source: io::Error::other(error),
    })?;
    let supervisor = HostProcess::find(pid).map_err(SuperviseError::own("look at the supervisor"))?;
    let state = LocalMeshState {
        name: plan.name.clone(),
        supervisor,
        privilege: plan.privilege,
        file: plan.file.clone(),
        config: plan.config.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(state::write_json(&directory.mesh_json(), &state)?)
}

fn make_namespaces(privilege: Privilege) -> Result<(), SuperviseError> {
    let refused = |errno| SuperviseError::Privilege(PrivilegeError::explain(privilege, errno));
    if let Privilege::Namespaced { uid, gid } = privilege {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused)?;
        if let Err(error) = launch::map_users((0, uid), (0, gid)) {
            return Err(match launch::errno(&error) {
                Some(errno) => refused(errno),
                None => error.into(),
            });
        }
    }
    // The PID namespace is entered by the next child, not by this process.
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    unshare(flags).map_err(refused)?;
    Ok(launch::isolate_mounts()?)
}

/// What the first process of the namespaces does first: waits until it is on record, and sees its own `/proc`.
///
/// # Errors
/// When the process that starts it ended before it was on record.
pub(crate) fn init_namespaces() -> Result<(), SuperviseError> {
    let mut gate = [0];
    io::stdin().read_exact(&mut gate).map_err(SuperviseError::own("get the word to start"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        // Some containers forbid it. Processes then see those of the container, which harms nothing here.
        output::note(&format!("keeping the present /proc: {}", errno.desc()));
    }
    Ok(())
}

/// Opens a log for appending, so that several writers do not overwrite each other.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
