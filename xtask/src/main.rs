//! Everything that is not `cargo build` or `cargo test`.
//!
//! Each subcommand is one module. They build what they need, install what the ordinary package manager has
//! when they may, and otherwise say exactly what to install; nothing passes by skipping.

mod bench;
mod demo;
mod deny;
mod docs;
mod e2e;
mod fuzz;
mod helm;
mod images;
mod output;
mod process;
mod soak;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the Mini-Mesh workspace.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Bring up the example shop in a real mesh on this machine and show, step by step, what it does.
    Demo(demo::DemoArgs),
    /// Run everything that guards the product and needs no cluster.
    Test(test::TestArgs),
    /// Run the commands of the documentation, as a reader would type them.
    Docs(docs::DocsArgs),
    /// Check rules of the workspace that the compiler does not know: layers, names, words, licences.
    Tidy,
    /// Check dependencies with cargo-deny, installing it when it is not there.
    Deny,
    /// Measure the proxies against Envoy, haproxy and nginx in one run.
    Bench(bench::BenchArgs),
    /// Try hostile bytes on every parser.
    Fuzz(fuzz::FuzzArgs),
    /// Run property tests with millions of cases.
    Soak(soak::SoakArgs),
    /// Build the container images as archives, with their bills of materials; needs no container engine.
    Images(images::ImagesArgs),
    /// Run the scenarios with real pods on a real Kubernetes: of kind, of a kubeconfig, or local without Docker.
    E2e(e2e::E2eArgs),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Docs(args) => docs::run(&args),
        Task::Tidy => tidy::run(),
        Task::Deny => deny::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Images(args) => images::run(&args),
        Task::E2e(args) => e2e::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
