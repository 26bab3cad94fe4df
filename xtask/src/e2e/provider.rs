//! Where a cluster comes from, and how images get into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::output;
use crate::process::{capture, command, run, workspace};
use crate::tools::{self, Tool};

/// Where a cluster comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Provider {
    /// A cluster of kind, in Docker.
    Kind,
    /// The cluster of `KUBECONFIG`, whose nodes can pull the images or have them.
    Kubeconfig,
    /// A real single-node Kubernetes in namespaces of its own on this machine (`kind/local/cluster`).
    Local,
}

/// What the local cluster runs on.
const LOCAL: [Tool; 9] = [
    Tool { program: "containerd", package: "containerd" },
    Tool { program: "runc", package: "runc" },
    Tool { program: "/usr/lib/cni/bridge", package: "containernetworking-plugins" },
    Tool { program: "iptables", package: "iptables" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "jq", package: "jq" },
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "xz", package: "xz-utils" },
];

/// Name of the cluster of kind.
const KIND_NAME: &str = "mini-mesh-e2e";
/// Archives that scenarios need.
const ARCHIVES: [&str; 3] = ["mesh-control.tar", "mesh-proxy.tar", "shop.tar"];

impl Provider {
    /// What is there. A cluster of somebody's own is only taken when it is named.
    pub(crate) fn found() -> Self {
        let has_docker =
            || capture(Command::new("docker").arg("info")).is_ok_and(|said| said.status.success());
        if tools::find("kind").is_some() && tools::find("docker").is_some() && has_docker() {
            Self::Kind
        } else {
            Self::Local
        }
    }

    /// Makes sure that what it needs is there.
    ///
    /// # Errors
    /// With what to install.
    pub(crate) fn ensure(self) -> Result<()> {
        match self {
            Self::Local => {
                ensure!(
                    nix::unistd::geteuid().is_root(),
                    "the local cluster makes namespaces and cgroups and needs root; or use --provider kind"
                );
                tools::ensure(&LOCAL)
            }
            Self::Kind | Self::Kubeconfig => {
                ensure!(
                    tools::find("kubectl").is_some(),
                    "kubectl is missing; install it beside the cluster"
                );
                Ok(())
            }
        }
    }
}

/// A cluster that is up. Dropped without a word it is taken down.
#[derive(Debug)]
pub(crate) struct Running {
    provider: Provider,
    folder: PathBuf,
    is_over: bool,
}

impl Running {
    /// Makes or finds the cluster.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start(provider: Provider, results: &Path) -> Result<Self> {
        let running = Self { provider, folder: results.join("cluster"), is_over: false };
        fs::create_dir_all(&running.folder)?;
        match provider {
            Provider::Local => {
                running.launcher_script()?;
                run(Command::new(running.launcher()).arg("up"))
                    .context("the local cluster does not come up")?;
                let programs = running.kubectl();
                let binary = String::from_utf8(capture(Command::new(running.launcher()).arg("bin"))?.stdout)?;
                if !programs.exists() {
                    std::os::unix::fs::symlink(binary.trim(), &programs).context("kubectl")?;
                }
            }
            Provider::Kind => {
                let config = workspace().join("kind/kind.yaml");
                let mut kind = Command::new("kind");
                kind.args(["create", "cluster", "--name", KIND_NAME, "--wait", "120s", "--config"])
                    .arg(config);
                run(kind.arg("--kubeconfig").arg(running.kubeconfig()))?;
            }
            Provider::Kubeconfig => {
                let own = std::env::var_os("KUBECONFIG").context("--provider kubeconfig needs KUBECONFIG")?;
                fs::copy(&own, running.kubeconfig())
                    .with_context(|| format!("cannot read {}", own.display()))?;
            }
        }
        Ok(running)
    }

    /// Loads the images.
    ///
    /// # Errors
    /// When an archive is missing or refused.
    pub(crate) fn load(&self, images: &Path) -> Result<()> {
        for archive in ARCHIVES.map(|name| images.join(name)) {
            ensure!(archive.is_file(), "{} is missing; `cargo xtask images` makes it", archive.display());
            match self.provider {
                Provider::Local => run(Command::new(self.launcher()).arg("load-image").arg(&archive))?,
                Provider::Kind => {
                    let mut kind = Command::new("kind");
                    run(kind.args(["load", "image-archive", "--name", KIND_NAME]).arg(&archive))?;
                }
                Provider::Kubeconfig => {
                    output::note(&format!("   {} is taken to be there already", archive.display()));
                }
            }
        }
        Ok(())
    }

    /// What programs that talk to the cluster need to know.
    pub(crate) fn environment(&self, command: &mut Command) {
        command.env("KUBECONFIG", self.kubeconfig()).env("MESH_E2E_KUBECTL", self.kubectl());
        if self.can_stop_components() {
            command.env("MESH_E2E_LAUNCHER", self.launcher());
        }
    }

    /// Whether the API server can be stopped.
    pub(crate) fn can_stop_components(&self) -> bool {
        self.provider == Provider::Local
    }

    /// A kubectl for this cluster.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = command(self.kubectl(), arguments);
        kubectl.env("KUBECONFIG", self.kubeconfig());
        kubectl
    }

    /// Takes it down.
    ///
    /// # Errors
    /// When something of it stays.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.is_over = true;
        self.take_down()
    }

    /// Leaves it up, and says how to go on.
    pub(crate) fn keep(mut self) {
        self.is_over = true;
        output::note(&format!("the cluster is up: export KUBECONFIG={}", self.kubeconfig().display()));
        match self.provider {
            Provider::Local => output::note(&format!("take it down with {} down", self.launcher().display())),
            Provider::Kind => {
                output::note(&format!("take it down with kind delete cluster --name {KIND_NAME}"))
            }
            Provider::Kubeconfig => {}
        }
    }

    fn take_down(&self) -> Result<()> {
        match self.provider {
            Provider::Local => run(Command::new(self.launcher()).arg("down")),
            Provider::Kind => run(Command::new("kind").args(["delete", "cluster", "--name", KIND_NAME])),
            Provider::Kubeconfig => Ok(()),
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        match self.provider {
            Provider::Local => self.folder.join("state/pki/admin.kubeconfig"),
            Provider::Kind | Provider::Kubeconfig => self.folder.join("kubeconfig"),
        }
    }

    /// The local cluster's binary is kubectl when it is called so.
    pub(crate) fn kubectl(&self) -> PathBuf {
        match self.provider {
            Provider::Local => self.folder.join("kubectl"),
            Provider::Kind | Provider::Kubeconfig => "kubectl".into(),
        }
    }

    fn launcher(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// The launcher with this cluster's state in it, so that whoever calls it means this cluster.
    fn launcher_script(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let script = workspace().join("kind/local/cluster");
        let state = self.folder.join("state");
        let text =
            format!("#!/bin/sh\nCLUSTER_WORKDIR='{}' exec '{}' \"$@\"\n", state.display(), script.display());
        fs::write(self.launcher(), text)?;
        fs::set_permissions(self.launcher(), fs::Permissions::from_mode(0o755)).context("launcher")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over
            && let Err(error) = self.take_down()
        {
            output::note(&format!("the cluster could not be taken down: {error:#}"));
        }
    }
}
