//! A place that ends with the run: PID, mount and network namespaces of its own.
//!
//! The first process of a PID namespace takes every other one with it, whatever ended it, and what lies in
//! the namespaces goes with them. So nothing of the machine's own network is touched and nothing is left.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::daemon;
use crate::process::{command, run};

/// Repeats this command inside; returns when it ends.
///
/// # Errors
/// When the namespaces cannot be made, or the command inside failed.
pub(crate) fn repeat_inside(binaries: &Path, envoy: Option<&Path>) -> Result<()> {
    let myself = std::env::current_exe().context("cannot find this program")?;
    // `unshare` leaves signals to its child, so it is tied to this process: Ctrl-C ends all three.
    let mut unshare = command("setpriv", &["--pdeathsig", "KILL", "unshare"]);
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    unshare.arg(myself).args(std::env::args_os().skip(1)).arg("--in-sandbox").arg(binaries);
    if let Some(envoy) = envoy {
        unshare.arg("--envoy").arg(envoy);
    }
    let status = unshare.status().context("cannot run setpriv and unshare (package util-linux)")?;
    if !status.success() {
        bail!("the measurement ended with {status}; the reason stands above");
    }
    Ok(())
}

/// Makes the namespaces usable; called first inside.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn furnish() -> Result<()> {
    // Where `ip netns` keeps its names. The mount is seen by this sandbox only.
    run(&mut command("mount", &["-t", "tmpfs", "tmpfs", "/run"]))?;
    std::fs::create_dir_all("/run/netns").context("cannot make /run/netns")?;
    daemon::ip(&["link", "set", "lo", "up"])
}
