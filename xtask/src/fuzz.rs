//! `cargo xtask fuzz`: hostile bytes for every parser, for as long as one likes.
//!
//! Every build tries a few thousand inputs with a fixed seed; here the seed is fresh and the time long. What
//! breaks a target is kept below `fuzz/regressions`, to be committed with its correction.

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, run as run_command};

/// Options of the fuzzer.
#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Targets; all of them when none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of the changes, to repeat a run; a fresh one when none is given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Fuzzes.
///
/// # Errors
/// When an input breaks a target.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let mut fuzzing = cargo(&["run", "--quiet", "--release", "--package", "mesh-fuzz", "--"]);
    fuzzing.args(&args.targets).args(["--seconds", &args.seconds.to_string()]);
    if let Some(seed) = args.seed {
        fuzzing.args(["--seed", &seed.to_string()]);
    }
    run_command(&mut fuzzing)
}
