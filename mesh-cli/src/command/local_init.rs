//! The hidden commands that the supervisor of a local mesh consists of.

use std::error::Error;
use std::process::ExitCode;

use clap::Subcommand;

use crate::local::launch::{self, LaunchArgs};
use crate::local::supervisor::{self, FoundingArgs, NetworkArgs};
use crate::output;

/// What the supervisor runs.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Makes the namespaces of a mesh
    #[command(name = "local-supervisor", hide = true)]
    Supervisor(FoundingArgs),
    /// First process of a mesh
    #[command(name = "local-init", hide = true)]
    Init(FoundingArgs),
    /// Makes the network of a workload
    #[command(name = "local-network", hide = true)]
    Network(NetworkArgs),
    /// Confines and becomes a program
    #[command(name = "local-launch", hide = true)]
    Launch(LaunchArgs),
}

/// Runs one.
pub(crate) fn run(command: LocalCommand) -> ExitCode {
    let result: Result<(), Box<dyn Error>> = match command {
        LocalCommand::Supervisor(args) => supervisor::found(args.directory).map_err(Into::into),
        LocalCommand::Init(args) => supervisor::init(args.directory).map_err(Into::into),
        LocalCommand::Network(args) => supervisor::make_network(&args).map_err(Into::into),
        LocalCommand::Launch(args) => return launch::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&output::chain(error.as_ref()), None);
            ExitCode::FAILURE
        }
    }
}
