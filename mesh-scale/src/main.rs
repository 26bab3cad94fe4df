//! Measures a control plane on a large cluster, with `cargo xtask bench control`.
//!
//! Reading order: [`api_server`] (the cluster's API, in memory), [`world`] (what is in the cluster), [`proxy`]
//! (one simulated proxy), [`process`] (the control plane that is measured, a real one), [`measure`] (the
//! steps and their figures). The result is one JSON object on standard output.

mod api_server;
mod measure;
mod process;
mod proxy;
mod world;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

/// Measures a control plane on a large cluster.
#[derive(Debug, Parser)]
struct Args {
    /// The control plane's program.
    #[arg(long, value_name = "FILE")]
    control: PathBuf,
    /// Services, each with one pod.
    #[arg(long, default_value_t = 5_000)]
    services: usize,
    /// Simulated proxies.
    #[arg(long, default_value_t = 1_000)]
    proxies: usize,
    /// Changes that are pushed and timed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let sizes = measure::Sizes { services: args.services, proxies: args.proxies, rounds: args.rounds };
    let figures = measure::run(&args.control, sizes).await?;
    let text = serde_json::to_string_pretty(&figures)?;
    writeln!(std::io::stdout(), "{text}").context("the figures cannot be written")
}
