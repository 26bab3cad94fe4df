//! `meshctl check`: whether a cluster can take the mesh, and whether the mesh in it is well.
//!
//! In linkerd's form: sections, one line for each check with √ ‼ or ×, and below what is not well the objects, what
//! to do and the place in docs/check.md. A check that others depend on ends its section when it fails, so that one
//! fault is told once. The exit status is 1 when anything is ×.

mod access;
mod catalogue;
mod control;
mod identity;
mod install;
mod local_mesh;
mod naming;
mod proxies;
mod report;
mod serving;
mod unmeshed;
mod webhooks;

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;

use super::mesh::Mesh;
use super::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output;
use report::{Mark, Report};

/// Pause between two looks of `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Before an installation: whether this cluster and this user can do it.
    #[arg(long, conflicts_with = "proxy")]
    pre: bool,
    /// Only proxies and what they serve; with -n those of one namespace.
    #[arg(long)]
    proxy: bool,
    /// Seconds to go on looking until nothing is × any more.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: CheckFormat,
}

/// Forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum CheckFormat {
    /// Every check.
    #[default]
    Table,
    /// What is not well.
    Short,
    /// For programs.
    Json,
    /// For programs, and people who like it.
    Yaml,
}

/// Which checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Before an installation.
    Before,
    /// Everything.
    Whole,
    /// Proxies and what they serve.
    Proxies,
}

/// Runs the command.
///
/// # Errors
/// When no mesh was meant, or there is no kubeconfig.
pub(crate) fn run(global: &GlobalArgs, args: &CheckArgs) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let scope = match (args.pre, args.proxy) {
        (true, _) => Scope::Before,
        (false, true) => Scope::Proxies,
        (false, false) => Scope::Whole,
    };
    if scope == Scope::Before && matches!(mesh, Mesh::Local(_)) {
        return Err(Failure::new("--pre is for clusters; `meshctl up` says itself what this machine lacks")
            .hint("--target cluster checks the cluster of the kubeconfig.")
            .status(EXIT_USAGE));
    }
    let report =
        block_on(settled(&mesh, scope, global.namespace.as_deref(), Duration::from_secs(args.wait)))?;
    match args.output {
        CheckFormat::Table => report.print(report::Detail::Every),
        CheckFormat::Short => report.print(report::Detail::Trouble),
        CheckFormat::Json => output::value(&report.value(), output::Format::Json),
        CheckFormat::Yaml => output::value(&report.value(), output::Format::Yaml),
    }
    Ok(match report.worst() {
        Mark::Good | Mark::Doubtful => ExitCode::SUCCESS,
        Mark::Bad => ExitCode::FAILURE,
    })
}

async fn settled(
    mesh: &Mesh,
    scope: Scope,
    namespace: Option<&str>,
    wait: Duration,
) -> Result<Report, Failure> {
    let end = Instant::now() + wait;
    loop {
        let report = look(mesh, scope, namespace).await;
        if report.worst() != Mark::Bad || Instant::now() + PAUSE > end {
            return Ok(report);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(mesh: &Mesh, scope: Scope, namespace: Option<&str>) -> Report {
    let mut report = Report::default();
    let cluster = match mesh {
        Mesh::Local(local) => {
            local_mesh::look(mesh, local, &mut report).await;
            proxies::look(mesh, namespace, &mut report).await;
            return report;
        }
        Mesh::Cluster(cluster) => cluster,
    };
    if access::look(cluster, &mut report).await == Mark::Bad {
        return report;
    }
    match scope {
        Scope::Before => install::look(cluster, &mut report).await,
        Scope::Whole => {
            let is_answering = control::look(mesh, cluster, &mut report).await;
            webhooks::look(mesh, cluster, &mut report).await;
            if is_answering {
                identity::look(mesh, Some(cluster), &mut report).await;
                proxies::look(mesh, namespace, &mut report).await;
            }
            unmeshed::look(cluster, namespace, &mut report).await;
            naming::look(cluster, namespace, &mut report).await;
        }
        Scope::Proxies => {
            proxies::look(mesh, namespace, &mut report).await;
            unmeshed::look(cluster, namespace, &mut report).await;
            naming::look(cluster, namespace, &mut report).await;
        }
    }
    report
}
