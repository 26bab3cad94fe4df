//! `cargo xtask docs`: the commands of the documentation, run as a reader would type them.
//!
//! Every fenced block marked `sh` in README.md and under docs/ is run by bash, block by block in one
//! session per file, stopping at the first command that fails. A line that begins with `! ` must fail. Two
//! commands are not run as written: the demo (it would wait for Enter: `--once` is added) and the tests
//! (whoever runs the docs runs them beside). Blocks marked `sh cluster` need a Kubernetes cluster; `cargo xtask
//! e2e` runs them in its own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::output;
use crate::process::{Profile, build, command, workspace};
use crate::tools;

/// Options.
#[derive(Debug, Args)]
pub(crate) struct DocsArgs {
    /// Only files whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// Runs the documentation's commands.
///
/// # Errors
/// When a command fails; the message names file and line.
pub(crate) fn run(args: &DocsArgs) -> Result<()> {
    tools::ensure(&tools::NETWORK)?;
    tools::ensure(&tools::DOCUMENTATION)?;
    let binaries = build(&["mesh-cli", "mesh-control", "mesh-proxy", "shop"], Profile::Dev)?;
    for file in files()? {
        let name = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        let script = script_of(&name, &text, ON_A_MACHINE);
        if script.is_empty() {
            continue;
        }
        output::note(&format!("== {name}"));
        run_script(&name, &script, &binaries)?;
    }
    Ok(())
}

/// The fence of blocks that are run on any machine.
const ON_A_MACHINE: &str = "```sh";
/// The fence of blocks that are run where a cluster is.
const ON_A_CLUSTER: &str = "```sh cluster";

/// The commands that need a cluster: the file that has them, and a script for bash.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn cluster_scripts() -> Result<Vec<(String, String)>> {
    let mut scripts = Vec::new();
    for file in files()? {
        let name = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        let script = script_of(&name, &text, ON_A_CLUSTER);
        if !script.is_empty() {
            scripts.push((name, script));
        }
    }
    Ok(scripts)
}

fn files() -> Result<Vec<PathBuf>> {
    let mut files = vec![workspace().join("README.md")];
    if let Ok(entries) = fs::read_dir(workspace().join("docs")) {
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.push(workspace().join("kind/README.md"));
    files.sort();
    Ok(files)
}

/// Turns the blocks of one fence into one script that says where it is.
fn script_of(name: &str, text: &str, fence: &str) -> String {
    let mut script = String::new();
    let mut is_inside = false;
    let mut document_end: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(end) = &document_end {
            // Lines of a here-document are text, whatever they look like.
            script.push_str(&format!("{line}\n"));
            if line == end {
                document_end = None;
            }
            continue;
        }
        match line.trim_end() {
            opening if opening == fence => is_inside = true,
            "```" => is_inside = false,
            _ if !is_inside => {}
            "" | "cargo xtask test" => {}
            command => {
                document_end = here_document(command);
                let is_start = !script.trim_end().ends_with('\\');
                if is_start {
                    script.push_str(&format!("echo '   {name}:{}' >&2\n", index + 1));
                }
                script.push_str(&as_run(command));
                script.push('\n');
            }
        }
    }
    script
}

/// The line that ends the here-document which a command begins.
fn here_document(command: &str) -> Option<String> {
    let word = command.split_once("<<")?.1.split_whitespace().next()?;
    Some(word.trim_matches(['\'', '"']).to_owned())
}

/// A command as it is run.
fn as_run(command: &str) -> String {
    match command.strip_prefix("! ") {
        // `set -e` does not look at what `!` makes of a status, so it is asked for.
        Some(refused) => format!("if {refused}; then echo 'this should have failed' >&2; exit 1; fi"),
        None if command == "cargo xtask demo" => "cargo xtask demo --once".to_owned(),
        None => command.to_owned(),
    }
}

fn run_script(name: &str, script: &str, binaries: &Path) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = command("bash", &["-euo", "pipefail", "-s"]);
    bash.env("PATH", format!("{}:{path}", binaries.display())).stdin(Stdio::piped());
    let mut child = bash.spawn().context("cannot run bash")?;
    let mut input = child.stdin.take().context("bash has no input")?;
    // A mesh that a failed command left up would be in the way of the next run.
    input.write_all(b"trap 'meshctl down >/dev/null 2>&1 || true' EXIT\n")?;
    input.write_all(script.as_bytes())?;
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "{name}: a command failed ({status}); the last line named above is it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sh_blocks_are_run_and_the_demo_does_not_wait() {
        let text = "a\n```sh\ncargo xtask demo\nls\n```\n```yaml\nrm: x\n```\n";
        assert_eq!(
            script_of("R", text, ON_A_MACHINE),
            "echo '   R:3' >&2\ncargo xtask demo --once\necho '   R:4' >&2\nls\n"
        );
    }

    #[test]
    fn what_needs_a_cluster_is_kept_apart() {
        let text = "```sh\nls\n```\n```sh cluster\nkubectl get pods\n```\n";
        assert_eq!(script_of("R", text, ON_A_MACHINE), "echo '   R:2' >&2\nls\n");
        assert_eq!(script_of("R", text, ON_A_CLUSTER), "echo '   R:5' >&2\nkubectl get pods\n");
    }

    #[test]
    fn a_here_document_is_left_alone() {
        let text = "```sh\ncat > x <<'END'\n\n! a\n```\nEND\n```\n";
        assert_eq!(
            script_of("R", text, ON_A_MACHINE),
            "echo '   R:2' >&2\ncat > x <<'END'\n\n! a\n```\nEND\n"
        );
    }

    #[test]
    fn what_should_fail_may_not_succeed() {
        let script = script_of("R", "```sh\n! false\n```\n", ON_A_MACHINE);
        assert!(script.contains("if false; then"), "{script}");
    }

    #[test]
    fn a_continued_line_stays_whole() {
        let text = "```sh\nls \\\n  -l\n```\n";
        assert_eq!(script_of("R", text, ON_A_MACHINE), "echo '   R:2' >&2\nls \\\n  -l\n");
    }
}
