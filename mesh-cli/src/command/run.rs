//! `meshctl run`: one more workload into the running mesh.
//!
//! Unless it is detached, the program runs on this terminal, and the workload goes when it ends, also when
//! this command is killed: it belongs to the command's connection to the supervisor.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;

use crate::admin_client::Connection;
use crate::args::GlobalArgs;
use crate::command::mesh::LocalMesh;
use crate::command::up::inherited_environment;
use crate::command::{EXIT_USAGE, Failure, Outcome};
use crate::local::attached;
use crate::local::client::{RunMode, RunRequest, RunResponse};
use crate::local::enter::EnterError;
use crate::local::mesh_file::RestartPolicy;
use crate::output;

/// Time for the new workload's proxy, and a little for the answer.
const TIMEOUT: Duration = Duration::from_secs(70);

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Whose identity it has
    #[arg(long, value_name = "[NAMESPACE/]ACCOUNT")]
    service_account: String,
    /// Its name; default: the service account's with a random end
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A port that it serves; may be given several times
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// A label; `app` is the name unless stated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// An environment variable
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,
    /// As whom it runs, when the mesh is root's
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Without a proxy: outside of the mesh, as an intruder would be
    #[arg(long)]
    no_mesh: bool,
    /// Leave it to the supervisor; `meshctl down NAME.NAMESPACE` ends it
    #[arg(short, long)]
    detach: bool,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the workload may not join, or its program cannot be started.
pub(crate) fn run(global: &GlobalArgs, args: RunArgs) -> Outcome {
    let mesh = LocalMesh::only(
        global,
        "On a cluster, pods of namespaces labelled istio-injection=enabled join the mesh.",
    )?;
    if !mesh.state.supervisor.is_alive() {
        return Err(EnterError::Ended.into());
    }
    let mode = if args.detach { RunMode::Supervised } else { RunMode::Attached };
    let command = args.command.clone();
    let request = request(global, args, mode)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (response, connection) = runtime.block_on(async {
        let connection = Connection::open(&mesh.directory.supervisor_socket()).await?;
        let mut connection = connection.waiting(TIMEOUT);
        let response: RunResponse = connection.value(Method::POST, "/run", &request).await?;
        Ok::<_, Failure>((response, connection))
    })?;
    let id = response.workload.id();
    if mode == RunMode::Supervised {
        output::note(&format!("{id} joins the mesh at {}", response.workload.addresses.v4()));
        return Ok(ExitCode::SUCCESS);
    }
    let status = attached::run(&runtime, &mesh.directory, &mesh.state, &id, &command);
    // The workload goes with the connection, which had to last until here.
    drop(connection);
    Ok(status?)
}

fn request(global: &GlobalArgs, args: RunArgs, mode: RunMode) -> Result<RunRequest, Failure> {
    let (namespace, service_account) = match (args.service_account.split_once('/'), &global.namespace) {
        (Some((namespace, account)), _) => (namespace.to_owned(), account.to_owned()),
        (None, Some(namespace)) => (namespace.clone(), args.service_account.clone()),
        (None, None) => ("default".to_owned(), args.service_account.clone()),
    };
    let directory = std::env::current_dir()?;
    let directory = directory
        .to_str()
        .ok_or_else(|| Failure::new("the name of the working directory is not UTF-8").status(EXIT_USAGE))?;
    let mut environment = inherited_environment();
    environment.extend(args.environment);
    Ok(RunRequest {
        name: args.name,
        namespace,
        service_account,
        labels: args.labels.into_iter().collect::<BTreeMap<_, _>>(),
        ports: args.ports,
        command: args.command,
        environment,
        directory: directory.to_owned(),
        user: args.user,
        is_meshed: !args.no_mesh,
        mode,
        restart: RestartPolicy::OnFailure,
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("it is written KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn pairs_are_split_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
