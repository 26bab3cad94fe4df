//! `mesh-fuzz [TARGET…]`: hostile bytes for as long as one likes; see `cargo xtask fuzz`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use mesh_fuzz::run::{Until, keep, run};
use mesh_fuzz::targets::{TARGETS, Target};

/// Tries hostile bytes on the parsers of the mesh.
#[derive(Debug, Parser)]
struct Args {
    /// Targets; all of them when none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of the changes; a fresh one when none is given.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match fuzz(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn fuzz(args: &Args) -> Result<()> {
    for name in &args.targets {
        if TARGETS.iter().all(|target| target.name != name) {
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            bail!("there is no target {name}; there are {}", known.join(", "));
        }
    }
    let chosen =
        |target: &&Target| args.targets.is_empty() || args.targets.iter().any(|name| name == target.name);
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut broken = Vec::new();
    for target in TARGETS.iter().filter(chosen) {
        let outcome = run(target, Until::Time(Duration::from_secs(args.seconds)), seed);
        say(&format!("{:<14} {:>10} inputs, {:>5} outcomes", target.name, outcome.inputs, outcome.outcomes));
        if let Some((input, what)) = outcome.broken {
            let path = keep(target, &input)?;
            say(&format!(
                "{}: {what}\n  {:?}\n  kept as {}",
                target.name,
                String::from_utf8_lossy(&input),
                path.display()
            ));
            broken.push(target.name);
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("broken (seed {seed}): {}", broken.join(", ")) }
}

fn say(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr().lock(), "{text}");
}
