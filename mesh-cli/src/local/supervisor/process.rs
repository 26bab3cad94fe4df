//! Processes of the mesh: started, waited for, ended.
//!
//! Process 1 of a PID namespace inherits every orphan in it and has to reap them all, also those that it did
//! not start. So there is one place that waits for children, [`reap`], and it tells the owner of each. Start
//! and entry in the list of owners happen without a pause between, on the one thread of the event loop, so
//! that no end can be missed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::signal::unix::Signal as SignalStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::context::Context;
use super::founding::open_log;

/// Time for a launcher to build its confinement. It takes milliseconds.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(20);
/// Longest reason that a launcher can report, in bytes.
const REASON_BYTES_MAX: u64 = 4096;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(Signal),
    /// Nobody knows; another process waited for it.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "ended with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by {signal}"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It could not be created, or its log not be opened.
    #[error("cannot start it")]
    Spawn(#[from] io::Error),
    /// Its launcher gave up.
    #[error("{0}")]
    Refused(String),
    /// Its launcher hangs.
    #[error("it was not started within {} s", LAUNCH_DEADLINE.as_secs())]
    Timeout,
    /// Something that it needs could not be prepared.
    #[error("cannot {step}: {reason}")]
    Prepare {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl StartError {
    /// A preparation that failed.
    pub(crate) fn prepare(step: &'static str, error: &dyn std::error::Error) -> Self {
        Self::Prepare { step, reason: crate::output::chain(error) }
    }
}

/// Children that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Children(RefCell<HashMap<i32, oneshot::Sender<Exit>>>);

/// A process. It is ended, with its group, when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    exit: oneshot::Receiver<Exit>,
    ended: Option<Exit>,
}

impl Children {
    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Process> {
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, exit) = oneshot::channel();
        self.0.borrow_mut().insert(pid, sender);
        Ok(Process { pid: Pid::from_raw(pid), exit, ended: None })
    }

    fn ended(&self, pid: Pid, exit: Exit) {
        if let Some(owner) = self.0.borrow_mut().remove(&pid.as_raw()) {
            // An owner that is gone does not care.
            let _gone = owner.send(exit);
        }
    }
}

/// Reaps children for ever.
pub(crate) async fn reap(context: Rc<Context>, mut children: SignalStream) {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => context.children.ended(pid, Exit::Status(status)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => context.children.ended(pid, Exit::Signal(signal)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        // One signal may stand for several ends, which is why all are collected.
        if children.recv().await.is_none() {
            return;
        }
    }
}

impl Process {
    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for its end. May be asked again.
    pub(crate) async fn end(&mut self) -> Exit {
        if let Some(exit) = self.ended {
            return exit;
        }
        let exit = (&mut self.exit).await.unwrap_or(Exit::Unknown);
        self.ended = Some(exit);
        exit
    }

    /// Asks it to end and makes it end after `grace`, with what it started.
    pub(crate) async fn stop(mut self, grace: Duration) -> Exit {
        self.signal(Signal::SIGTERM);
        if let Ok(exit) = timeout(grace, self.end()).await {
            return exit;
        }
        self.signal(Signal::SIGKILL);
        self.end().await
    }

    /// Signals its group, or itself while it has none yet.
    fn signal(&self, signal: Signal) {
        if self.ended.is_some() {
            return;
        }
        if killpg(self.pid, signal).is_err() {
            // Fails only when it has just ended.
            let _ended = kill(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also after its own end: what it left running in its group goes too.
        let _nobody_left = killpg(self.pid, Signal::SIGKILL);
        self.signal(Signal::SIGKILL);
    }
}

/// Starts a program by the launcher, with its output appended to `log`, and waits until it is executed.
///
/// # Errors
/// When it is not; the reason is the launcher's.
pub(crate) async fn launch(context: &Context, spec: &Path, log: &Path) -> Result<Process, StartError> {
    let output = open_log(log)?;
    let errors = output.try_clone()?;
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&context.programs.meshctl);
    command.arg("local-launch").arg("--report").arg("--spec").arg(spec);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(output).stderr(errors);
    let process = context.children.spawn(&mut command)?;
    // The command holds the other end of the channel, which would never be closed.
    drop(command);
    let mut reason = Vec::new();
    let channel = UnixStream::from_std(ours)?;
    let mut channel = channel.take(REASON_BYTES_MAX);
    match timeout(LAUNCH_DEADLINE, channel.read_to_end(&mut reason)).await {
        Err(_) => Err(StartError::Timeout),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(0)) => Ok(process),
        Ok(Ok(_)) => Err(StartError::Refused(String::from_utf8_lossy(&reason).into_owned())),
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, or does not end with status 0; the reason is what it wrote.
pub(crate) async fn complete(context: &Context, command: &mut Command) -> Result<(), StartError> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let errors = OwnedFd::from(theirs);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(errors));
    let mut process = context.children.spawn(command)?;
    command.stderr(Stdio::null());
    let mut reason = Vec::new();
    let mut channel = UnixStream::from_std(ours)?.take(REASON_BYTES_MAX);
    let finish = async {
        let read = channel.read_to_end(&mut reason).await;
        read.map(|_| ())
    };
    timeout(LAUNCH_DEADLINE, finish).await.map_err(|_| StartError::Timeout)??;
    match timeout(LAUNCH_DEADLINE, process.end()).await {
        Err(_) => Err(StartError::Timeout),
        Ok(Exit::Status(0)) => Ok(()),
        Ok(exit) => {
            let reason = String::from_utf8_lossy(&reason).trim().to_owned();
            Err(StartError::Refused(if reason.is_empty() { format!("it {exit}") } else { reason }))
        }
    }
}
