//! `cargo xtask demo`: the example shop in a real mesh on this machine, step by step.
//!
//! Every step prints the command that it runs, so that a reader can type it; checks what came back; and says
//! what that shows. With `--once` the mesh is taken down at the end and the exit status is the verdict;
//! without, it stays up for the reader until Ctrl-C.

mod mesh;
mod steps;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::output;
use crate::process::{Profile, build};
use crate::tools;
use mesh::DemoMesh;

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Verify everything, print a summary, take the mesh down, exit.
    #[arg(long)]
    once: bool,
    /// Print the summary as JSON on standard output; implies --once.
    #[arg(long)]
    json: bool,
    /// Use optimised binaries.
    #[arg(long)]
    release: bool,
}

/// What one step found.
#[derive(Debug, Serialize)]
struct StepResult {
    name: &'static str,
    ok: bool,
    seconds: f64,
    /// What was seen, or what went wrong.
    found: String,
}

/// The whole demo.
#[derive(Debug, Serialize)]
struct Summary {
    ok: bool,
    seconds: f64,
    steps: Vec<StepResult>,
}

/// Runs the demo.
///
/// # Errors
/// When something that it needs is missing, or a step did not show what it should.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    tools::ensure(&tools::NETWORK)?;
    output::note("building meshctl, mesh-control, mesh-proxy and the shop");
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let binaries = build(&["mesh-cli", "mesh-control", "mesh-proxy", "shop"], profile)?;
    let mesh = DemoMesh::prepare(&binaries)?;
    let summary = show(&mesh);
    if summary.ok && !args.once && !args.json {
        mesh.leave_to_the_reader()?;
    }
    let down = mesh.down();
    if args.json {
        output::line(&serde_json::to_string_pretty(&summary)?);
    } else {
        let passed = summary.steps.iter().filter(|step| step.ok).count();
        output::line(&format!("\n{passed} of {} steps, {:.1} s", summary.steps.len(), summary.seconds));
    }
    down?;
    if !summary.ok {
        bail!("a step did not show what it should; see above");
    }
    Ok(())
}

fn show(mesh: &DemoMesh) -> Summary {
    let begun = Instant::now();
    let mut results = Vec::new();
    for (name, explanation, step) in steps::ALL {
        output::note(&format!("\n== {name}\n   {explanation}"));
        let started = Instant::now();
        let outcome = step(mesh);
        let ok = outcome.is_ok();
        let found = outcome.unwrap_or_else(|error| format!("{error:#}"));
        output::note(&format!("   {} {found}", if ok { "✔" } else { "✘" }));
        results.push(StepResult { name, ok, seconds: started.elapsed().as_secs_f64(), found });
        if !ok {
            mesh.show_logs();
            break;
        }
    }
    let ok = results.len() == steps::ALL.len() && results.iter().all(|step| step.ok);
    Summary { ok, seconds: begun.elapsed().as_secs_f64(), steps: results }
}
