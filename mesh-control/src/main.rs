//! `mesh-control`: arguments, settings, and the control plane until it is told to stop.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_api::error_chain::chain;
use mesh_control::app;
use mesh_control::args::{Args, Command, RunArgs};
use mesh_control::config::Config;
use mesh_daemon::logging::LogControl;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let Command::Run(args) = Args::parse().command;
    let log = match LogControl::install(&log_filter(&args.log_level), args.log_format) {
        Ok(log) => log,
        Err(error) => {
            use std::io::Write;
            // Nothing is left to say it with when this fails too.
            drop(writeln!(std::io::stderr(), "error: {}", chain(&error)));
            return ExitCode::from(2);
        }
    };
    match run(&args, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The filter that was asked for. The client of the API server warns of every answer that is not JSON, such as that
/// a kind is not served; the source says that itself, once. Whoever names the client in the filter hears it.
fn log_filter(asked: &str) -> String {
    match asked.contains("kube_client") {
        true => asked.to_owned(),
        false => format!("{asked},kube_client::client=error"),
    }
}

fn run(args: &RunArgs, log: LogControl) -> anyhow::Result<()> {
    let config = Config::new(args).context("the arguments cannot be used")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
        let mut told = std::pin::pin!(async {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        });
        // A start may wait long, for an API server for instance, and is given up without any farewell.
        let running = tokio::select! {
            running = app::start(config, Some(log)) => running.context("mesh-control does not start")?,
            () = &mut told => return Ok(()),
        };
        told.await;
        running.stop().await;
        Ok(())
    })
}
