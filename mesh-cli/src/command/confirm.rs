//! `meshctl confirm`: what disappeared from a configuration folder was meant to.
//!
//! When a folder vanishes or empties at once, the control plane keeps what it held, since that is far more
//! often an accident than an intention. This says that it was an intention.

use std::path::PathBuf;
use std::process::ExitCode;

use super::mesh::LocalMesh;
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfirmArgs {
    /// The folder, as `meshctl status` names it; default: the only one that is held.
    folder: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When nothing is held, or it was not said which folder is meant.
pub(crate) fn run(global: &GlobalArgs, args: &ConfirmArgs) -> Outcome {
    let mesh =
        LocalMesh::only(global, "On a cluster, what is deleted is deleted: there is nothing to confirm.")?;
    block_on(async {
        let folder = match &args.folder {
            Some(folder) => match std::path::absolute(folder) {
                Ok(folder) => folder.to_string_lossy().into_owned(),
                Err(_) => folder.to_string_lossy().into_owned(),
            },
            None => only_suspended(&mesh).await?,
        };
        mesh.confirm(&folder).await?;
        output::line(&format!("{folder} is obeyed again"));
        Ok(ExitCode::SUCCESS)
    })
}

async fn only_suspended(mesh: &LocalMesh) -> Result<String, Failure> {
    let sources = mesh.control_status().await?.sources;
    let mut suspended: Vec<String> =
        sources.into_iter().filter(|source| source.suspended.is_some()).map(|source| source.path).collect();
    match suspended.len() {
        1 => Ok(suspended.swap_remove(0)),
        0 => Err(Failure::new("no folder is held; there is nothing to confirm")),
        _ => Err(Failure::new(format!("several folders are held: {}", suspended.join(", ")))
            .hint("Say which one: `meshctl confirm FOLDER`.")),
    }
}
