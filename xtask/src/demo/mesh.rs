//! The demo's mesh: a folder of its own with copies of the binaries and of the shop's configuration, and
//! `meshctl` run in it.
//!
//! Copies, because the shop's services run unprivileged and may not be able to read the checkout (a clone
//! under `/root`, say), and because the demo edits the configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::output;
use crate::process::{capture, display, workspace};

/// Names of the binaries that the demo needs.
const BINARIES: [&str; 4] = ["meshctl", "mesh-control", "mesh-proxy", "shop"];

/// A mesh for the time of the demo.
#[derive(Debug)]
pub(crate) struct DemoMesh {
    folder: tempfile::TempDir,
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Exit status 0.
    pub(crate) ok: bool,
    /// Standard output, then standard error.
    pub(crate) text: String,
    /// Standard output alone.
    pub(crate) stdout: String,
}

impl DemoMesh {
    /// Copies what the demo needs.
    pub(crate) fn prepare(binaries: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mini-mesh-demo-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let mesh = Self { folder };
        fs::create_dir(mesh.path("bin"))?;
        for binary in BINARIES {
            let from = binaries.join(binary);
            fs::copy(&from, mesh.path("bin").join(binary))
                .with_context(|| format!("cannot copy {}", from.display()))?;
        }
        copy_folder(&workspace().join("examples/shop/config"), &mesh.path("config"))?;
        copy_folder(&workspace().join("examples/shop/policies"), &mesh.path("policies"))?;
        fs::copy(workspace().join("examples/shop/mesh.yaml"), mesh.path("mesh.yaml"))?;
        Ok(mesh)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A `meshctl` command as the reader would type it in the demo's folder.
    pub(crate) fn meshctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("meshctl");
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(args).current_dir(self.folder.path());
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("MESH_STATE_DIR", self.path("state"));
        command
    }

    /// Runs `meshctl`, showing the command and the first lines of its answer.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Answer> {
        let answer = self.ask_quietly(args)?;
        let shown: Vec<&str> = answer.text.lines().take(12).collect();
        for line in shown {
            output::note(&format!("     {line}"));
        }
        Ok(answer)
    }

    /// Runs `meshctl`, showing only the command.
    pub(crate) fn ask_quietly(&self, args: &[&str]) -> Result<Answer> {
        let mut command = self.meshctl(args);
        output::note(&format!("   $ {}", display(&command)));
        let done = capture(&mut command)?;
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        let text = format!("{stdout}{}", String::from_utf8_lossy(&done.stderr));
        Ok(Answer { ok: done.status.success(), text, stdout })
    }

    /// Runs `meshctl` and fails unless it succeeds.
    pub(crate) fn must(&self, args: &[&str]) -> Result<Answer> {
        let answer = self.ask(args)?;
        if !answer.ok {
            bail!("`meshctl {}` failed: {}", args.join(" "), answer.text.trim());
        }
        Ok(answer)
    }

    /// Starts `meshctl` and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.meshctl(args);
        output::note(&format!("   $ {} &", display(&command)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("cannot run meshctl")
    }

    /// One request from inside a workload: `shop call …`.
    pub(crate) fn call(&self, workload: &str, request: &[&str]) -> Result<Answer> {
        let mut args = vec!["exec", workload, "--", "shop", "call"];
        args.extend(request);
        self.ask(&args)
    }

    /// Repeats a request until its answer is as wanted; returns how long that took.
    pub(crate) fn until(
        &self,
        workload: &str,
        request: &[&str],
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let mut args = vec!["exec", workload, "--", "shop", "call"];
            args.extend(request);
            let done = capture(&mut self.meshctl(&args))?;
            let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
            let text = format!("{stdout}{}", String::from_utf8_lossy(&done.stderr));
            let answer = Answer { ok: done.status.success(), text, stdout };
            if wanted(&answer) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("{workload} still gets: {}", answer.text.trim());
            }
        }
    }

    /// Keeps the mesh up until the reader ends it.
    pub(crate) fn leave_to_the_reader(&self) -> Result<()> {
        let folder = self.folder.path().display();
        output::line(&format!(
            "\nThe mesh is up. In another terminal:\n\n  cd {folder}\n  export PATH=\"{folder}/bin:$PATH\" MESH_STATE_DIR={folder}/state\n\n  meshctl ps\n  meshctl proxy-status\n  meshctl exec frontend.web -- shop call GET http://catalog.backend:8080/api/products\n  meshctl proxy-config secret frontend.web\n\nEnter ends it."
        ));
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        Ok(())
    }

    /// Prints the ends of the logs, when a step failed.
    pub(crate) fn show_logs(&self) {
        let Ok(logs) = fs::read_dir(self.path("state/logs")) else { return };
        for entry in logs.flatten() {
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            output::note(&format!("--- {}", entry.file_name().to_string_lossy()));
            for line in &lines[lines.len().saturating_sub(8)..] {
                output::note(&format!("    {line}"));
            }
        }
    }

    /// Takes the mesh down.
    pub(crate) fn down(&self) -> Result<()> {
        let answer = self.ask_quietly(&["down"])?;
        if !answer.ok {
            bail!("meshctl down failed: {}", answer.text.trim());
        }
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
