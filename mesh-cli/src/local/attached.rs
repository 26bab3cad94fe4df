//! Runs a program inside a workload, attached to this terminal: what `exec` and `run` share.
//!
//! The program is a member of the mesh's PID namespace and of the workload's network, as the workload's
//! user. It shares the terminal's process group with this command, so that Ctrl-C reaches it directly; this
//! command only waits, passes other requests to end on, and ends with the program's status.

use std::io;
use std::process::{Command, ExitCode, ExitStatus};

use std::os::unix::process::ExitStatusExt as _;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::enter::{EnterError, Reach, enter};
use super::program;
use super::state::{LocalMeshState, StateDirectory};

/// Why a program was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The mesh cannot be entered.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// Something of this process.
    #[error("cannot {step}")]
    Own {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl AttachError {
    fn own(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Own { step, source }
    }
}

/// Runs `words` in a workload and returns with which status this command is to end. The event loop must have
/// this thread only.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn run(
    runtime: &Runtime,
    directory: &StateDirectory,
    state: &LocalMeshState,
    workload: &str,
    words: &[String],
) -> Result<ExitCode, AttachError> {
    let launcher = program::this_program().ok_or(io::ErrorKind::NotFound);
    let launcher = launcher.map_err(|kind| AttachError::own("find the file of this program")(kind.into()))?;
    enter(state.supervisor, state.privilege, Reach::Processes)?;
    let mut command = Command::new(launcher);
    command.arg("local-launch").arg("--attached").arg("--spec").arg(directory.app_spec(workload));
    command.arg("--").args(words);
    let status = runtime.block_on(wait(command))?;
    Ok(code(status))
}

async fn wait(command: Command) -> Result<ExitStatus, AttachError> {
    let watch = |kind| signal(kind).map_err(AttachError::own("watch for signals"));
    let mut terminate = watch(SignalKind::terminate())?;
    let mut hang_up = watch(SignalKind::hangup())?;
    // The terminal sends these to the program too; this command stays to tell its status.
    let _interrupt = watch(SignalKind::interrupt())?;
    let _quit = watch(SignalKind::quit())?;
    let mut command = tokio::process::Command::from(command);
    let mut child = command.spawn().map_err(AttachError::own("start the program"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let pass_on = |signal: Signal| match pid.map(|pid| kill(pid, signal)) {
        None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
        Some(Err(errno)) => Err(AttachError::Own { step: "pass the signal on", source: errno.into() }),
    };
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(AttachError::own("wait for the program")),
            _ = terminate.recv() => pass_on(Signal::SIGTERM)?,
            _ = hang_up.recv() => pass_on(Signal::SIGHUP)?,
        }
    }
}

/// The program's own status, or 128 and the number of the signal that ended it, as shells have it.
fn code(status: ExitStatus) -> ExitCode {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}
