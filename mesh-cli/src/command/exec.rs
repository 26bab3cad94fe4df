//! `meshctl exec`: a program in a workload's network, as that workload.

use crate::args::GlobalArgs;
use crate::command::mesh::LocalMesh;
use crate::command::{Failure, Outcome, target};
use crate::local::attached;

/// Flags.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with the status of the program; 125 when it could not be confined, 126 when it \
                        may not be executed, 127 when there is none of that name."
)]
pub(crate) struct ExecArgs {
    /// In which workload
    #[arg(value_name = "WORKLOAD[.NAMESPACE]")]
    workload: String,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn run(global: &GlobalArgs, args: &ExecArgs) -> Outcome {
    let mesh = LocalMesh::only(global, "On a cluster, `kubectl exec` runs programs in pods.")?;
    let workload = target::resolve_any(&mesh, &args.workload, global.namespace.as_deref())?;
    if !mesh.directory.app_spec(&workload).exists() {
        return Err(Failure::new(format!("{workload} is only just starting")).hint("Try again in a moment."));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(attached::run(&runtime, &mesh.directory, &mesh.state, &workload, &args.command)?)
}
