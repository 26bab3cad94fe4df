//! Starts one program of the mesh, confined: the hidden command `meshctl local-launch`.
//!
//! A process of its own does this, between the supervisor's fork and the program, because everything here
//! changes the calling process: it joins the workload's network, gets a view of the file system of its own,
//! gives up its privilege and then becomes the program. The order is fixed: what needs privilege first, then
//! the privilege, then what the program itself must be allowed to do (enter its directory, be executed), so
//! that those are judged as the program's user.
//!
//! When something fails the program is not started. The reason goes to standard error, and, with a report
//! channel, to the supervisor: the channel is closed by the kernel at the moment the program is executed, so
//! that silence means success.

mod confinement;
mod spec;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stdin, sethostname, setsid};

pub(crate) use confinement::{errno, isolate_mounts, map_users};
pub(crate) use spec::{LaunchSpec, Mount, Role};

use super::command_line;
use super::state::{self, StateError};

/// Exit status when the program may not be executed (POSIX shells use the same).
const CANNOT_EXECUTE: u8 = 126;
/// Exit status when there is no such program.
const NOT_FOUND: u8 = 127;
/// Exit status when the confinement could not be built.
const NOT_CONFINED: u8 = 125;

/// How the launcher is called.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct LaunchArgs {
    /// What to start, and how: a JSON file.
    #[arg(long)]
    pub(crate) spec: PathBuf,
    /// Report failure on standard input, which is a socket, and give the program an empty one.
    #[arg(long)]
    pub(crate) report: bool,
    /// Stay in the session of the terminal, and end when the parent ends.
    #[arg(long)]
    pub(crate) attached: bool,
    /// Another command than that of the file.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The description cannot be read.
    #[error("cannot read what to start")]
    Spec(#[from] StateError),
    /// Something that needs privilege failed.
    #[error("cannot {step}")]
    Confine {
        /// What was tried.
        step: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The user may not enter the working directory.
    #[error("user {user} cannot enter the working directory {}", directory.display())]
    Directory {
        /// As whom.
        user: String,
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("user {user} cannot execute {command} in {}", directory.display())]
    Execute {
        /// As whom.
        user: String,
        /// What.
        command: String,
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    /// A step of the confinement that failed with an error of the kernel.
    fn confine(step: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let step = step.into();
        move |errno| Self::Confine { step, source: errno.into() }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Spec(_) | Self::Confine { .. } => NOT_CONFINED,
            Self::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Directory { .. } | Self::Execute { .. } => CANNOT_EXECUTE,
        })
    }
}

/// Becomes the program. Returns only when that fails.
pub(crate) fn run(args: &LaunchArgs) -> ExitCode {
    let mut report = None;
    let error = match prepare(args, &mut report) {
        Ok(mut program) => {
            let source = explained(program.command.exec(), &program.command);
            LaunchError::Execute {
                user: program.user,
                command: program.display,
                directory: program.directory,
                source,
            }
        }
        Err(error) => error,
    };
    let text = crate::output::chain(&error);
    if let Some(channel) = report {
        // The supervisor may be gone; standard error has the reason too.
        let _gone = File::from(channel).write_all(text.as_bytes());
    }
    crate::output::error(&text, None);
    error.exit_code()
}

/// The search along PATH ends with "permission denied" when this user may not enter one of its folders, also
/// if no other has the program. That is then the better answer.
fn explained(error: io::Error, command: &Command) -> io::Error {
    let name = Path::new(command.get_program());
    if error.kind() != io::ErrorKind::PermissionDenied || name.components().count() != 1 {
        return error;
    }
    let path = command.get_envs().find(|(key, _)| *key == "PATH").and_then(|(_, path)| path);
    let folders: Vec<PathBuf> = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    if folders.iter().any(|folder| folder.join(name).exists()) {
        return error;
    }
    let closed: Vec<String> = folders
        .iter()
        .filter(|folder| {
            folder.metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        })
        .map(|folder| folder.display().to_string())
        .collect();
    let text =
        format!("it is in no folder of PATH that this user may enter (closed are {})", closed.join(", "));
    io::Error::new(io::ErrorKind::NotFound, text)
}

struct Program {
    command: Command,
    display: String,
    user: String,
    directory: PathBuf,
}

fn prepare(args: &LaunchArgs, report: &mut Option<OwnedFd>) -> Result<Program, LaunchError> {
    if args.report {
        *report = Some(take_report_channel()?);
    }
    let spec: LaunchSpec = state::read_json(&args.spec)?;
    if !args.attached {
        // A session of its own: signals of a terminal do not reach it, and it can be ended with its children.
        setsid().map_err(LaunchError::confine("make a session"))?;
    }
    if let Some(network) = &spec.network {
        join_network(network)?;
    }
    confinement::file_system(&spec)?;
    if let Some(name) = &spec.hostname {
        sethostname(name).map_err(LaunchError::confine("set the host name"))?;
    }
    let directory = enter_optional_directory(&spec)?;
    confinement::drop_privilege(&spec)?;
    if args.attached {
        // After the change of user, which clears it (prctl(2)).
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(LaunchError::confine("end with the parent"))?;
    }
    let user = spec.user_text();
    if spec.is_directory_required {
        std::env::set_current_dir(&spec.directory).map_err(|source| LaunchError::Directory {
            user: user.clone(),
            directory: spec.directory.clone(),
            source,
        })?;
    }
    let words = if args.command.is_empty() { &spec.command } else { &args.command };
    let (program, rest) = words.split_first().ok_or_else(|| LaunchError::Confine {
        step: "find a command to run".to_owned(),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    // The search along PATH passes over files that this user may not execute, as execvp(3) does.
    let mut command = Command::new(program);
    command.args(rest).env_clear().envs(&spec.environment);
    if args.attached
        && let Some(terminal) = std::env::var_os("TERM")
    {
        command.env("TERM", terminal);
    }
    Ok(Program { command, display: command_line::display(words), user, directory })
}

/// Joins the network namespace that is kept at `path`.
pub(crate) fn join_network(path: &Path) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::Confine { step: format!("open {}", path.display()), source };
    let namespace = File::open(path).map_err(failed)?;
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(LaunchError::confine("join the workload's network"))
}

/// A directory that nobody asked for is entered with privilege, and `/` does when even that fails: a program
/// that cares for its directory states it.
fn enter_optional_directory(spec: &LaunchSpec) -> Result<PathBuf, LaunchError> {
    if spec.is_directory_required || std::env::set_current_dir(&spec.directory).is_ok() {
        return Ok(spec.directory.clone());
    }
    let root = PathBuf::from("/");
    std::env::set_current_dir(&root)
        .map_err(|source| LaunchError::Confine { step: "enter /".to_owned(), source })?;
    Ok(root)
}

/// Keeps the socket on standard input under another number, which is closed when the program is executed.
fn take_report_channel() -> Result<OwnedFd, LaunchError> {
    let failed = |source| LaunchError::Confine { step: "set up standard input".to_owned(), source };
    let stdin = io::stdin();
    let channel = stdin.as_fd().try_clone_to_owned().map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    dup2_stdin(null.as_fd()).map_err(|errno| failed(errno.into()))?;
    Ok(channel)
}
