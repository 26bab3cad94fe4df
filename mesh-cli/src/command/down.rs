//! `meshctl down`: ends the mesh and removes everything that it made, also after any of it was killed.

use std::fs::File;
use std::process::ExitCode;

use crate::admin_client;
use crate::args::GlobalArgs;
use crate::command::mesh::{self, LocalMesh};
use crate::command::{Failure, Outcome, block_on, target};
use crate::local::client::LeaveRequest;
use crate::local::ending::end;
use crate::local::state::{Keep, LocateError};
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    /// Take only these workloads out of the mesh, which stays up
    #[arg(value_name = "WORKLOAD[.NAMESPACE]")]
    workloads: Vec<String>,
    /// Keep the authority's keys and the logs for the next `up`
    #[arg(long, conflicts_with = "workloads")]
    keep: bool,
}

/// Runs the command.
///
/// # Errors
/// When the mesh does not end, or something of it cannot be removed.
pub(crate) fn run(global: &GlobalArgs, args: &DownArgs) -> Outcome {
    mesh::refuse_cluster(global, "On a cluster, `meshctl uninstall` takes the mesh away.")?;
    let mesh = match LocalMesh::locate(global) {
        // Twice down is down.
        Err(error @ (LocateError::None | LocateError::NotUp(_))) if args.workloads.is_empty() => {
            clean_up_half_begun(global)?;
            output::note(&output::chain(&error));
            return Ok(ExitCode::SUCCESS);
        }
        other => other?,
    };
    if !args.workloads.is_empty() {
        return leave(global, &mesh, &args.workloads);
    }
    let keep = if args.keep { Keep::AuthorityAndLogs } else { Keep::Nothing };
    take_down(&mesh, keep)?;
    output::note(&format!("the mesh {} is down", mesh.state.name));
    Ok(ExitCode::SUCCESS)
}

/// Ends the mesh and removes its files.
///
/// # Errors
/// When it does not end, or something of it cannot be removed.
pub(crate) fn take_down(mesh: &LocalMesh, keep: Keep) -> Result<(), Failure> {
    block_on(async { Ok(end(&mesh.directory, mesh.state.supervisor).await?) })?;
    // Nobody may start a mesh here while its predecessor's files are removed.
    let _lock = File::open(mesh.directory.path())
        .ok()
        .and_then(|folder| nix::fcntl::Flock::lock(folder, nix::fcntl::FlockArg::LockExclusive).ok());
    mesh.directory.remove(keep)?;
    Ok(())
}

/// An `up` that was killed before anything ran leaves files and no mesh.
fn clean_up_half_begun(global: &GlobalArgs) -> Result<(), Failure> {
    let Some(directory) = &global.state_dir else { return Ok(()) };
    let directory = crate::local::state::StateDirectory::new(std::path::absolute(directory)?);
    if directory.plan().exists() {
        directory.remove(Keep::Nothing)?;
    }
    Ok(())
}

fn leave(global: &GlobalArgs, mesh: &LocalMesh, workloads: &[String]) -> Outcome {
    for written in workloads {
        let workload = target::resolve_any(mesh, written, global.namespace.as_deref())?;
        let request = LeaveRequest { workload: workload.clone() };
        block_on(async {
            Ok(admin_client::post::<()>(&mesh.directory.supervisor_socket(), "/leave", &request).await?)
        })?;
        output::note(&format!("{workload} has left the mesh"));
    }
    Ok(ExitCode::SUCCESS)
}
