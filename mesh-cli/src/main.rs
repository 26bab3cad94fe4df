//! `meshctl`: the command line of the mesh, and the mesh on one machine.
//!
//! Reading order: [`args`] (what one may type), [`command`] (who does it, and how failures end), then one
//! file per command. [`local`] is the mesh on one machine, [`cluster`] the one in Kubernetes; [`admin_client`]
//! asks the processes of either; [`output`] is the only place that prints.
//!
//! Commands start single-threaded and make an event loop only when they need one: some of them first join
//! namespaces, which the kernel permits to processes of one thread only.

mod admin_client;
mod args;
mod cluster;
mod command;
mod install;
mod local;
mod output;
mod suggestion;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match args::Cli::try_parse() {
        Ok(cli) => command::run(cli),
        Err(error) => {
            // A closed pipe is the reader's choice.
            let _closed_pipe = error.print();
            ExitCode::from(if error.use_stderr() { command::EXIT_USAGE } else { 0 })
        }
    }
}
