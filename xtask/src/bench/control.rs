//! `cargo xtask bench control`: how the control plane does in a cluster of 5,000 services with 1,000 proxies.
//!
//! Both sides are optimised builds of this workspace: the control plane as a process of its own, and beside it an API
//! server and proxies that are made up (`mesh-control/benches/scale`). It needs neither root nor a cluster.

use anyhow::Result;
use clap::Args;

use crate::output;
use crate::process::{Profile, build, cargo, run as run_to_end};

/// Options.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ControlArgs {
    /// A small cluster and few changes: a look, not a verdict to rely on.
    #[arg(long)]
    quick: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Builds, measures, and fails when the limit is missed.
///
/// # Errors
/// When something cannot be built or measured, or a policy takes too long to reach the proxies.
pub(crate) fn run(args: ControlArgs) -> Result<()> {
    output::note("building mesh-control, optimised");
    let program = build(&["mesh-control"], Profile::Release)?.join("mesh-control");
    let program = program.to_string_lossy();
    let mut words = vec!["bench", "--quiet", "--package", "mesh-control", "--bench", "scale", "--"];
    words.extend(["--control", &program]);
    if args.quick {
        words.extend(["--services", "500", "--proxies", "100", "--rounds", "5"]);
    }
    if args.json {
        words.push("--json");
    }
    run_to_end(&mut cargo(&words))
}
