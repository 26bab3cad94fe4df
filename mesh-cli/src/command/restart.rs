//! `meshctl restart`: ends a process of the mesh and starts it again.

use std::process::ExitCode;
use std::time::Duration;

use crate::admin_client;
use crate::args::GlobalArgs;
use crate::command::mesh::LocalMesh;
use crate::command::{EXIT_USAGE, Failure, Outcome, block_on, target};
use crate::local::client::{MeshStatus, Part, Phase, ProcessStatus, RestartRequest};
use crate::output;

/// Time for the process to be ready again.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(30);

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct RestartArgs {
    /// Whose application, or with --proxy whose proxy
    #[arg(value_name = "WORKLOAD[.NAMESPACE]", required_unless_present = "control")]
    workload: Option<String>,
    /// Its proxy instead of its application
    #[arg(long)]
    proxy: bool,
    /// The control plane
    #[arg(long, conflicts_with_all = ["workload", "proxy"])]
    control: bool,
}

/// Runs the command.
///
/// # Errors
/// When there is no such process, or it does not get ready again.
pub(crate) fn run(global: &GlobalArgs, args: &RestartArgs) -> Outcome {
    let mesh = LocalMesh::only(
        global,
        "On a cluster, `kubectl rollout restart` restarts workloads, and the control plane too.",
    )?;
    let part = match (args.control, args.proxy) {
        (true, _) => Part::Control,
        (false, true) => Part::Proxy,
        (false, false) => Part::App,
    };
    let namespace = global.namespace.as_deref();
    let workload = match (part, &args.workload) {
        (Part::Control, _) => None,
        (Part::App, Some(written)) => Some(target::resolve_any(&mesh, written, namespace)?),
        (Part::Proxy, Some(written)) => Some(target::resolve_local(&mesh, written, namespace)?),
        (Part::App | Part::Proxy, None) => {
            return Err(Failure::new("say which workload").status(EXIT_USAGE));
        }
    };
    block_on(async {
        let id = workload.as_deref().unwrap_or_default();
        let before = process(&mesh.processes().await?, id, part).map(|process| process.restarts);
        let request = RestartRequest { workload: workload.clone(), part };
        admin_client::post::<()>(&mesh.directory.supervisor_socket(), "/restart", &request).await?;
        let begun = tokio::time::Instant::now();
        loop {
            let now = process(&mesh.processes().await?, id, part)
                .ok_or_else(|| Failure::new(format!("{id} has left the mesh")))?;
            match now.phase {
                Phase::Failed => return Err(Failure::new(now.message).hint("`meshctl logs` may say more.")),
                Phase::Running | Phase::Completed if Some(now.restarts) > before => return Ok(()),
                Phase::Running
                | Phase::Completed
                | Phase::Pending
                | Phase::Starting
                | Phase::Waiting
                | Phase::Stopped => {}
            }
            if begun.elapsed() > DEADLINE {
                let text = format!("it is not ready after {} s: {}", DEADLINE.as_secs(), now.message);
                return Err(Failure::new(text).hint("`meshctl logs` may say more."));
            }
            tokio::time::sleep(PAUSE).await;
        }
    })?;
    let subject = match (part, workload) {
        (Part::App, Some(id)) => id,
        (Part::Proxy, Some(id)) => format!("the proxy of {id}"),
        (Part::Control, _) | (Part::App | Part::Proxy, None) => "the control plane".to_owned(),
    };
    output::note(&format!("{subject} was restarted"));
    Ok(ExitCode::SUCCESS)
}

fn process(status: &MeshStatus, id: &str, part: Part) -> Option<ProcessStatus> {
    if part == Part::Control {
        return Some(status.control.clone());
    }
    let workload = status.workloads.iter().find(|workload| workload.id() == id)?;
    match part {
        Part::App => Some(workload.app.clone()),
        Part::Proxy | Part::Control => workload.proxy.clone(),
    }
}
