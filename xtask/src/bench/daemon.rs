//! Programs that run for a while in a namespace, with their output in a file, and are ended with their owner.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{capture, command, display};

/// Time in which a program must end when it is asked to.
const END_MAX: Duration = Duration::from_secs(5);

/// Runs `ip`.
///
/// # Errors
/// When it fails.
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    succeed(&mut command("ip", args)).map(drop)
}

/// Runs a command to its end; what it printed on standard output.
///
/// # Errors
/// When it fails; the message has what it printed on standard error.
pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let done = capture(command)?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}: {}: {}", display(command), done.status, complaint.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A command inside a namespace.
pub(crate) fn inside(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = command("ip", &["netns", "exec", namespace]);
    command.arg(program);
    command
}

/// A running program. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Daemon {
    /// Starts a program with its output in `folder/NAME.out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        let output = folder.join(format!("{name}.out"));
        let file = append(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Its process. `ip netns exec` becomes the program, so this is the program itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Repeats a question until it has an answer.
    ///
    /// # Errors
    /// When the program ended or `at_most` has passed; the message has the end of its output.
    pub(crate) fn until<T>(
        &mut self,
        at_most: Duration,
        pause: Duration,
        mut answer: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = answer() {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.last_words());
            }
            if begun.elapsed() > at_most {
                bail!("{} was not ready in {} s: {}", self.name, at_most.as_secs(), self.last_words());
            }
            thread::park_timeout(pause);
        }
    }

    /// The end of what it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        // Asked first, because nginx ends its workers only then.
        let _already_gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < END_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// Opens a file for appending, so that it can be emptied while a program writes to it.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}
