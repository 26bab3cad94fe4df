//! `meshctl policy …`: what policies would do, before they do it. The commands work on files and need no mesh.

pub(crate) mod pattern;
pub(crate) mod test;

use clap::Subcommand;

use super::Outcome;
use crate::args::GlobalArgs;

/// `meshctl policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run policy tests from files
    Test(test::TestArgs),
}

/// Runs the command.
///
/// # Errors
/// As the command says.
pub(crate) fn run(_global: &GlobalArgs, command: &PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Test(args) => test::run(args),
    }
}
