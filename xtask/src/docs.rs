//! `cargo xtask docs`: the commands of the documentation, run as a reader would type them.
//!
//! Every fenced block marked `sh` in README.md and under docs/ is run by bash, block by block in one
//! session per file, stopping at the first command that fails. Two commands are not run as written: the
//! demo (it would wait for Enter: `--once` is added) and the tests (whoever runs the docs runs them beside).

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
    let binaries = build(&["mesh-cli", "mesh-control", "mesh-proxy", "shop"], Profile::Dev)?;
    for file in files()? {
        let name = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        let script = script_of(&name, &text);
        if script.is_empty() {
            continue;
        }
        output::note(&format!("== {name}"));
        run_script(&name, &script, &binaries)?;
    }
    Ok(())
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
    files.sort();
    Ok(files)
}

/// Turns the `sh` blocks into one script that says where it is.
fn script_of(name: &str, text: &str) -> String {
    let mut script = String::new();
    let mut is_inside = false;
    for (index, line) in text.lines().enumerate() {
        match line.trim_end() {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            _ if !is_inside => {}
            "cargo xtask test" => {}
            "cargo xtask demo" => script.push_str("cargo xtask demo --once\n"),
            command if command.trim().is_empty() || command.trim_start().starts_with('#') => {
                script.push_str(command);
                script.push('\n');
            }
            command => {
                let is_start = !script.trim_end().ends_with('\\');
                if is_start {
                    script.push_str(&format!("echo '   {name}:{}' >&2\n", index + 1));
                }
                script.push_str(command);
                script.push('\n');
            }
        }
    }
    script
}

fn run_script(name: &str, script: &str, binaries: &Path) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = command("bash", &["-euo", "pipefail", "-s"]);
    bash.env("PATH", format!("{}:{path}", binaries.display())).stdin(Stdio::piped());
    let mut child = bash.spawn().context("cannot run bash")?;
    let mut input = child.stdin.take().context("bash has no input")?;
    input.write_all(script.as_bytes())?;
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "{name}: a command failed ({status}); the last line named above is it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::script_of;

    #[test]
    fn only_sh_blocks_are_run_and_the_demo_does_not_wait() {
        let text = "a\n```sh\ncargo xtask demo\nls\n```\n```yaml\nrm: x\n```\n";
        assert_eq!(script_of("R", text), "cargo xtask demo --once\necho '   R:4' >&2\nls\n");
    }

    #[test]
    fn a_continued_line_stays_whole() {
        let text = "```sh\nls \\\n  -l\n```\n";
        assert_eq!(script_of("R", text), "echo '   R:2' >&2\nls \\\n  -l\n");
    }
}
