//! `cargo xtask test`: everything that guards the product and needs no cluster.
//!
//! Stages run in order and all of them run, so that one report names every failure. A stage that lacks
//! something fails and says what to install; none is skipped.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::output;
use crate::process::{Profile, build, cargo, run as run_command};
use crate::{helm, tidy, tools};

/// Options of the tests.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run only stages whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// A stage: name and what it does.
type Stage = (&'static str, fn() -> Result<()>);

const STAGES: &[Stage] = &[
    ("layers, names, words, licences", tidy::run),
    ("unit, property and command-line tests", unprivileged),
    ("end-to-end in network namespaces, and interoperability with stock programs", privileged),
];

/// Runs the tests.
///
/// # Errors
/// When any stage failed.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let mut needed = tools::NETWORK.to_vec();
    needed.extend(tools::STOCK);
    tools::ensure(&needed)?;
    let mut failed = Vec::new();
    for (name, stage) in STAGES {
        if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        output::note(&format!("\n== {name}"));
        let begun = Instant::now();
        let outcome = stage();
        let seconds = begun.elapsed().as_secs();
        match outcome {
            Ok(()) => output::note(&format!("✔ {name} ({seconds} s)")),
            Err(error) => {
                output::note(&format!("✘ {name} ({seconds} s): {error:#}"));
                failed.push(*name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join("; ")) }
}

fn unprivileged() -> Result<()> {
    // All of them, so that one report names every failure.
    run_command(&mut cargo(&["test", "--quiet", "--workspace", "--all-features", "--no-fail-fast"]))
}

/// Tests that are marked `ignored` because they need namespaces, the built binaries or stock programs.
fn privileged() -> Result<()> {
    let binaries = build(&["mesh-cli", "mesh-control", "mesh-proxy", "shop"], Profile::Dev)?;
    // Those of mesh-e2e need a cluster, which `cargo xtask e2e` has.
    let mut tests = cargo(&["test", "--quiet", "--workspace", "--exclude", "mesh-e2e", "--all-features"]);
    tests.args(["--no-fail-fast", "--", "--ignored"]);
    // Each of them is a mesh of its own; two at a time keep two cores busy without starving each other.
    tests.arg("--test-threads=2").env("MESH_BIN_DIR", binaries).env("HELM", helm::program()?);
    run_command(&mut tests)
}
