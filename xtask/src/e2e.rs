//! `cargo xtask e2e`: the mesh on a real Kubernetes with real pods.
//!
//! Builds the images, makes a cluster or takes one that is there, loads the images, installs, and runs the
//! scenarios of `kind/tests` in stages: installation, what runs side by side, what takes the control plane or
//! the API server away, removal, and installations that come and go. What a failed scenario leaves is gathered before the cluster goes,
//! and the cluster always goes unless it is to be kept.

mod gather;
mod provider;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::images::{self, ImageProfile};
use crate::output;
use crate::process::{cargo, command, run as run_command, target_directory};
use crate::{docs, tools};
use provider::{Provider, Running};

/// Options.
#[derive(Debug, Args)]
pub(crate) struct E2eArgs {
    /// Where the cluster comes from. When not given: kind if Docker and kind are there, else local.
    #[arg(long, value_enum)]
    provider: Option<Provider>,
    /// Only scenarios whose name contains this; the mesh is installed whichever they are.
    #[arg(long)]
    only: Option<String>,
    /// Leave the cluster up, and say how to reach it and how to take it down.
    #[arg(long)]
    keep: bool,
    /// Folder with archives and meshctl of `cargo xtask images`; they are built when not given.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Registry and folder of the images, for a cluster of one's own whose nodes can pull from it.
    #[arg(long, default_value = images::HUB)]
    hub: String,
    /// Tag of the images.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Build optimised images.
    #[arg(long)]
    release: bool,
}

/// A stage: the test program, whether its scenarios may run side by side, and what it is.
struct Stage {
    program: &'static str,
    threads: usize,
    name: &'static str,
}

/// In this order. Two or three at a time keep two cores busy without starving each other.
const STAGES: [Stage; 6] = [
    Stage { program: "install", threads: 1, name: "installation" },
    Stage { program: "security", threads: 2, name: "what is refused and what is served" },
    Stage { program: "workloads", threads: 2, name: "kinds of workloads" },
    Stage { program: "disruptions", threads: 1, name: "restarts, losses and upgrades under load" },
    Stage { program: "uninstall", threads: 1, name: "removal" },
    Stage { program: "lifecycle", threads: 1, name: "installations that come and go" },
];

/// Scenarios that stop a component of Kubernetes itself, which only the local cluster can do.
const OF_COMPONENTS: &str = "api_server";

/// Runs the scenarios.
///
/// # Errors
/// When something that is needed is missing or a scenario failed.
pub(crate) fn run(args: &E2eArgs) -> Result<()> {
    let begun = Instant::now();
    let provider = args.provider.unwrap_or_else(Provider::found);
    provider.ensure()?;
    let folder = match &args.images {
        Some(folder) => std::env::current_dir()?.join(folder),
        None => {
            let folder = target_directory()?.join("images");
            output::note("building images");
            let profile = if args.release { ImageProfile::Release } else { ImageProfile::Dev };
            images::write_all(profile, &folder, &args.hub, &args.tag)?;
            folder
        }
    };
    let results = target_directory()?.join("e2e");
    if results.exists() {
        fs::remove_dir_all(&results).with_context(|| format!("cannot empty {}", results.display()))?;
    }
    fs::create_dir_all(&results)?;
    // Compiled before the cluster is up, so that it idles for no compiler.
    run_command(&mut cargo(&["test", "--quiet", "--package", "mesh-e2e", "--no-run"]))?;
    output::note(&format!("images are there after {} s", begun.elapsed().as_secs()));

    let cluster = Running::start(provider, &results)?;
    let outcome = cluster.load(&folder).and_then(|()| stages(args, &cluster, &folder, &results));
    if outcome.is_err() {
        gather::everything(&cluster, &results);
        output::note(&format!("logs are in {}", results.display()));
    }
    if let Ok(figures) = fs::read_to_string(results.join("figures.txt")) {
        output::line(figures.trim_end());
    }
    if args.keep {
        cluster.keep();
    } else {
        cluster.stop()?;
    }
    output::note(&format!("{} s in all", begun.elapsed().as_secs()));
    outcome
}

fn stages(args: &E2eArgs, cluster: &Running, images: &Path, results: &Path) -> Result<()> {
    let mut failed = Vec::new();
    for stage in &STAGES {
        output::note(&format!("\n== {}", stage.name));
        let begun = Instant::now();
        let mut tests = cargo(&["test", "--quiet", "--package", "mesh-e2e", "--test", stage.program, "--"]);
        tests.args(["--ignored", &format!("--test-threads={}", stage.threads)]);
        if !cluster.can_stop_components() {
            output::note("   scenarios that stop the API server need the local cluster and are left out");
            tests.args(["--skip", OF_COMPONENTS]);
        }
        // Everything needs an installation, so that this stage is never filtered out.
        if let Some(only) = args.only.as_ref().filter(|_| stage.program != "install") {
            tests.arg(only);
        }
        environment(&mut tests, args, cluster, images, results);
        let seconds = |begun: Instant| begun.elapsed().as_secs();
        match run_command(&mut tests) {
            Ok(()) => output::note(&format!("✔ {} ({} s)", stage.name, seconds(begun))),
            Err(error) => {
                output::note(&format!("✘ {} ({} s): {error:#}", stage.name, seconds(begun)));
                failed.push(stage.name);
                if stage.program == "install" {
                    bail!("nothing can be tried without an installation");
                }
                // The next stage takes away what this one leaves to be looked at.
                gather::everything(cluster, results);
            }
        }
    }
    if args.only.is_none() && !documentation(args, cluster, images, results)? {
        gather::everything(cluster, results);
        failed.push("the documentation's commands");
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join("; ")) }
}

/// Runs the commands of the documentation that need a cluster, as a reader would type them, and says whether they
/// do what is written. They begin in a cluster without a mesh and leave one without.
fn documentation(args: &E2eArgs, cluster: &Running, images: &Path, results: &Path) -> Result<bool> {
    let mut is_well = true;
    for (name, script) in docs::cluster_scripts()? {
        output::note(&format!("\n== {name}"));
        let begun = Instant::now();
        let programs = results.join("programs");
        fs::create_dir_all(&programs)?;
        let kubectl = tools::find(&cluster.kubectl().to_string_lossy()).context("kubectl")?;
        for (program, file) in [("meshctl", &images.join("meshctl")), ("kubectl", &kubectl)] {
            let link = programs.join(program);
            if !link.exists() {
                std::os::unix::fs::symlink(file, &link).with_context(|| link.display().to_string())?;
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let text = format!("set -euo pipefail\n{script}");
        let mut bash = command("bash", &["-c", &text]);
        environment(&mut bash, args, cluster, images, results);
        let outcome = run_command(bash.env("PATH", format!("{}:{path}", programs.display())));
        let seconds = begun.elapsed().as_secs();
        match outcome {
            Ok(()) => output::note(&format!("✔ {name} ({seconds} s)")),
            Err(_shown) => {
                output::note(&format!("✘ {name} ({seconds} s): the last line named above failed"));
                is_well = false;
            }
        }
    }
    Ok(is_well)
}

fn environment(tests: &mut Command, args: &E2eArgs, cluster: &Running, images: &Path, results: &Path) {
    cluster.environment(tests);
    tests
        .env("MESH_E2E_MESHCTL", images.join("meshctl"))
        .env("MESH_E2E_HUB", &args.hub)
        .env("MESH_E2E_TAG", &args.tag)
        .env("MESH_E2E_OUTPUT", results)
        // An error says where it comes from; where in these programs it was made says nothing.
        .env("RUST_BACKTRACE", "0");
}
