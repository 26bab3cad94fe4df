//! `meshctl policy …`: what policies would do, before they do it. The commands work on files, and most need no mesh.

pub(crate) mod diff;
mod example;
mod files;
pub(crate) mod pattern;
pub(crate) mod suggest;
pub(crate) mod test;
mod traffic_log;
pub(crate) mod verify;

use clap::Subcommand;

use super::Outcome;
use crate::args::GlobalArgs;

/// `meshctl policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run policy tests from files
    Test(test::TestArgs),
    /// Check what is asserted of every request
    Verify(verify::VerifyArgs),
    /// Show what other policies would decide otherwise
    Diff(diff::DiffArgs),
    /// Suggest policies that allow just what was recorded
    Suggest(suggest::SuggestArgs),
}

/// Runs the command.
///
/// # Errors
/// As the command says.
pub(crate) fn run(global: &GlobalArgs, command: &PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Test(args) => test::run(args),
        PolicyCommand::Verify(args) => verify::run(args),
        PolicyCommand::Diff(args) => diff::run(global, args),
        PolicyCommand::Suggest(args) => suggest::run(global, args),
    }
}
