//! `cargo xtask soak`: property tests with as many cases as there is time for.
//!
//! The same tests run with thousands of cases in every build; here the seeds are fresh and the numbers large.

use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::output;
use crate::process::{cargo, run as run_command};

/// Requests that one case of the comparison with the naive evaluator judges.
const REQUESTS_PER_CASE: u64 = 4;

/// What is soaked.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Hold the policy engine to the naive evaluator, and to its invariants.
    Policy {
        /// Requests judged by both, each against generated policies.
        #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        cases: u64,
    },
}

/// Soaks.
///
/// # Errors
/// When a case fails; the test prints it, made small.
pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    match args.what {
        What::Policy { cases } => policy(cases),
    }
}

fn policy(requests: u64) -> Result<()> {
    let cases = requests.div_ceil(REQUESTS_PER_CASE);
    let begun = Instant::now();
    let mut testing = cargo(&["test", "--release", "--package", "mesh-policy", "--test", "properties"]);
    run_command(testing.env("MESH_POLICY_CASES", cases.to_string()))?;
    let seconds = begun.elapsed().as_secs();
    output::note(&format!(
        "{} requests were judged alike by the index and by the naive evaluator, and {cases} cases of each invariant \
         held ({seconds} s)",
        cases * REQUESTS_PER_CASE
    ));
    Ok(())
}
