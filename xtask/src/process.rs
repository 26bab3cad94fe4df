//! Child processes: run one to its end, with its output shown or captured, and find what cargo built.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// A command in the root of the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(workspace());
    command
}

/// The cargo that runs this task.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    command(program, args)
}

/// Runs to the end with output shown; fails unless the exit status is 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = display(command);
    let status = command.status().with_context(|| format!("cannot run {text}"))?;
    ensure!(status.success(), "{text}: {status}");
    Ok(())
}

/// Runs to the end with output captured.
pub(crate) fn capture(command: &mut Command) -> Result<Output> {
    let text = display(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {text}"))
}

/// The command as one would type it.
pub(crate) fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quote = |word: &OsStr| {
        let word = word.to_string_lossy();
        let is_plain =
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@,+%[]".contains(c));
        if is_plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.map(quote).collect::<Vec<_>>().join(" ")
}

/// Optimised or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// For measuring and for use.
    Release,
}

/// Builds the given packages and returns the folder that holds their binaries.
pub(crate) fn build(packages: &[&str], profile: Profile) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--quiet"];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    if profile == Profile::Release {
        arguments.push("--release");
    }
    run(&mut cargo(&arguments))?;
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    Ok(target_directory()?.join(folder))
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let output = capture(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(target))
}
