//! `meshctl proxy-config`: what a proxy has been told, from its own admin socket, or in a cluster its
//! admin port.
//!
//! Subcommands, their aliases, filters and columns are istioctl's. `-o json` and `-o yaml` print what the
//! proxy answers, filtered.

mod filter;
mod policy;
mod secret;
mod tables;

use std::process::ExitCode;

pub(super) use secret::left;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use mesh_api::admin::{
    CertificateStatus, ClusterStatus, EndpointStatus, ListenerStatus, LogLevel, PolicyStatus, ProxyDump,
    RouteStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mesh::{Mesh, encode};
use super::target;
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use filter::{ClusterFilter, EndpointFilter, ListenerFilter, RouteFilter};

/// The level that `log --reset` restores: the proxy's default.
const LOG_LEVEL_DEFAULT: &str = "info";

/// `meshctl proxy-config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyConfigCommand {
    /// Everything
    #[command(visible_aliases = ["a"])]
    All(TargetArgs),
    /// Settings that the process was started with
    #[command(visible_aliases = ["b"])]
    Bootstrap(TargetArgs),
    /// Destinations
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster {
        /// Which proxy.
        #[command(flatten)]
        target: TargetArgs,
        /// Which clusters.
        #[command(flatten)]
        filter: ClusterFilter,
    },
    /// Endpoints of destinations
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint {
        /// Which proxy.
        #[command(flatten)]
        target: TargetArgs,
        /// Which endpoints.
        #[command(flatten)]
        filter: EndpointFilter,
    },
    /// Listeners
    #[command(visible_aliases = ["listeners", "l"])]
    Listener {
        /// Which proxy.
        #[command(flatten)]
        target: TargetArgs,
        /// Which listeners.
        #[command(flatten)]
        filter: ListenerFilter,
    },
    /// Routes
    #[command(visible_aliases = ["routes", "r"])]
    Route {
        /// Which proxy.
        #[command(flatten)]
        target: TargetArgs,
        /// Which routes.
        #[command(flatten)]
        filter: RouteFilter,
    },
    /// Certificates: chain, validity, identity and next rotation; never keys
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(TargetArgs),
    /// Policies in force
    #[command(visible_aliases = ["policies", "p"])]
    Policy(TargetArgs),
    /// Show or change the log level
    #[command(visible_aliases = ["o"])]
    Log(LogArgs),
}

/// Which proxy, and how to print.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The workload: NAME.NAMESPACE, or deploy/NAME.NAMESPACE. In a cluster a pod, or what has pods.
    workload: String,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Flags of `log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Which proxy.
    #[command(flatten)]
    target: TargetArgs,
    /// New level, for instance debug, or info,mesh_proxy=debug.
    #[arg(long, value_name = "LEVEL", conflicts_with = "reset")]
    level: Option<String>,
    /// Go back to the default level.
    #[arg(short, long)]
    reset: bool,
}

/// Runs the command.
///
/// # Errors
/// When there is no such workload or its proxy does not answer.
pub(crate) fn run(global: &GlobalArgs, command: &ProxyConfigCommand) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let namespace = global.namespace.as_deref();
    match command {
        ProxyConfigCommand::All(target) => all(&mesh, namespace, target),
        ProxyConfigCommand::Bootstrap(target) => {
            let dump: ProxyDump = ask(&mesh, namespace, target, "/config_dump")?;
            show(&dump.bootstrap, target, |settings| {
                let rows: Vec<Vec<String>> =
                    settings.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
                output::table(&["SETTING", "VALUE"], &rows);
            })
        }
        ProxyConfigCommand::Cluster { target, filter } => {
            let mut found: Vec<ClusterStatus> = ask(&mesh, namespace, target, "/clusters")?;
            found.retain(|cluster| filter.takes(cluster));
            show(&found, target, |found| tables::clusters(found))
        }
        ProxyConfigCommand::Endpoint { target, filter } => {
            let mut found: Vec<EndpointStatus> = ask(&mesh, namespace, target, "/endpoints")?;
            found.retain(|endpoint| filter.takes(endpoint));
            show(&found, target, |found| tables::endpoints(found))
        }
        ProxyConfigCommand::Listener { target, filter } => {
            let mut found: Vec<ListenerStatus> = ask(&mesh, namespace, target, "/listeners")?;
            found.retain(|listener| filter.takes(listener));
            show(&found, target, |found| tables::listeners(found, filter.form()))
        }
        ProxyConfigCommand::Route { target, filter } => {
            let mut found: Vec<RouteStatus> = ask(&mesh, namespace, target, "/routes")?;
            found.retain(|route| filter.takes(route));
            show(&found, target, |found| tables::routes(found, filter.form()))
        }
        ProxyConfigCommand::Secret(target) => {
            let found: Vec<CertificateStatus> = ask(&mesh, namespace, target, "/certs")?;
            show(&found, target, |found| secret::table(found))
        }
        ProxyConfigCommand::Policy(target) => {
            let id = target::resolve(&mesh, &target.workload, namespace)?;
            let found: PolicyStatus = block_on(async { Ok(mesh.proxy(&id, "/policy").await?) })?;
            show(&found, target, |found| policy::table(found, namespace_of(&id)))
        }
        ProxyConfigCommand::Log(args) => log(&mesh, namespace, args),
    }
}

fn ask<T: DeserializeOwned>(
    mesh: &Mesh,
    namespace: Option<&str>,
    target: &TargetArgs,
    path: &str,
) -> Result<T, Failure> {
    let id = target::resolve(mesh, &target.workload, namespace)?;
    block_on(async { Ok(mesh.proxy(&id, path).await?) })
}

fn show<T: Serialize>(found: &T, target: &TargetArgs, table: impl FnOnce(&T)) -> Outcome {
    match target.output {
        Format::Table => table(found),
        format => output::value(found, format),
    }
    Ok(ExitCode::SUCCESS)
}

fn all(mesh: &Mesh, namespace: Option<&str>, target: &TargetArgs) -> Outcome {
    let dump: ProxyDump = ask(mesh, namespace, target, "/config_dump")?;
    show(&dump, target, |dump| {
        let blank = || output::line("");
        tables::clusters(&dump.clusters);
        blank();
        tables::listeners(&dump.listeners, tables::Detail::Full);
        blank();
        tables::routes(&dump.routes, tables::Detail::Full);
        blank();
        tables::endpoints(&dump.endpoints);
        blank();
        secret::table(&dump.certificates);
        blank();
        policy::table(&dump.policy, namespace_of(&dump.node_id));
    })
}

fn namespace_of(id: &str) -> &str {
    id.rsplit_once('.').map_or("", |(_, namespace)| namespace)
}

fn log(mesh: &Mesh, namespace: Option<&str>, args: &LogArgs) -> Outcome {
    let id = target::resolve(mesh, &args.target.workload, namespace)?;
    let wanted = match (&args.level, args.reset) {
        (Some(level), _) => Some(level.as_str()),
        (None, true) => Some(LOG_LEVEL_DEFAULT),
        (None, false) => None,
    };
    let level: LogLevel = block_on(async {
        let mut connection = mesh.proxy_connection(&id).await?;
        let (method, path) = match wanted {
            Some(level) => (Method::POST, format!("/logging?level={}", encode(level))),
            None => (Method::GET, "/logging".to_owned()),
        };
        let answer = connection.ask(method, &path, Bytes::new()).await?;
        answer.check()?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| Failure::new(format!("{id} answered something else than a log level: {error}")))
    })?;
    show(&level, &args.target, |level| output::line(&format!("{id}: {}", level.level)))
}
