//! Gets a command of the user into the running mesh: `exec`, `run`, and whatever looks at the wire.
//!
//! The command starts outside, where its terminal is, and joins the namespaces of the supervisor; a process
//! that it then starts is a member of the mesh's PID namespace, so that it ends with the mesh, whatever
//! happens to the command. Joining needs what the mesh was started with: the same user, or root.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use super::host_process::HostProcess;
use super::privilege::Privilege;

/// Why the mesh could not be entered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnterError {
    /// Its supervisor has ended.
    #[error("the mesh has ended; `meshctl down` cleans up, `meshctl up` starts it again")]
    Ended,
    /// A namespace cannot be opened or joined.
    #[error("cannot join the mesh's {namespace} namespace")]
    Join {
        /// Which.
        namespace: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Which namespaces to join besides that of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Processes and files: what starting a program in a workload needs; the launcher joins the network.
    Processes,
    /// The hub's network, with this process's own view of files.
    HubNetwork,
}

/// Joins the namespaces of a running mesh. The process must have one thread only (setns(2)).
///
/// Children are members of the mesh's PID namespace with [`Reach::Processes`]; this process itself is not.
///
/// # Errors
/// When the mesh has ended, or this user may not join it.
pub(crate) fn enter(supervisor: HostProcess, privilege: Privilege, reach: Reach) -> Result<(), EnterError> {
    if !supervisor.is_alive() {
        return Err(EnterError::Ended);
    }
    let mut wanted: Vec<(&'static str, &'static str, CloneFlags)> = Vec::new();
    // User 0 of this machine stays itself: root has every power over a namespace of its own anyway.
    if matches!(privilege, Privilege::Namespaced { .. }) {
        wanted.push(("user", "user", CloneFlags::CLONE_NEWUSER));
    }
    match reach {
        Reach::Processes => {
            wanted.push(("process", "pid", CloneFlags::CLONE_NEWPID));
            wanted.push(("mount", "mnt", CloneFlags::CLONE_NEWNS));
        }
        Reach::HubNetwork => wanted.push(("network", "net", CloneFlags::CLONE_NEWNET)),
    }
    // All are opened first: afterwards /proc may be another one.
    let opened: Vec<(&'static str, CloneFlags, File)> = wanted
        .into_iter()
        .map(|(namespace, file, flag)| {
            let path: PathBuf = Path::new("/proc").join(supervisor.pid.to_string()).join("ns").join(file);
            let file = File::open(path).map_err(|source| EnterError::Join { namespace, source })?;
            Ok((namespace, flag, file))
        })
        .collect::<Result<_, EnterError>>()?;
    // The number may have been given away between the first look and the opening.
    if !supervisor.is_alive() {
        return Err(EnterError::Ended);
    }
    for (namespace, flag, file) in opened {
        let failed = |errno: Errno| EnterError::Join { namespace, source: errno.into() };
        if flag == CloneFlags::CLONE_NEWUSER && geteuid().is_root() {
            // Root of the machine is nobody in there until it becomes the one user that there is.
            setgroups(&[]).map_err(failed)?;
            setns(file.as_fd(), flag).map_err(failed)?;
            let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
            setresgid(group, group, group).and_then(|()| setresuid(user, user, user)).map_err(failed)?;
        } else {
            setns(file.as_fd(), flag).map_err(failed)?;
        }
    }
    Ok(())
}
