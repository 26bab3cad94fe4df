//! `mesh-proxy`: arguments, settings, and the proxy until it has drained.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use mesh_api::error_chain::chain;
use mesh_daemon::logging::LogControl;
use mesh_proxy::args::{Args, Command, InterceptCommand, RunArgs};
use mesh_proxy::settings::Settings;
use mesh_proxy::{app, intercept, wait};

/// Small blocks are made and dropped for each connection on several threads; the system's allocator keeps
/// more memory for that pattern.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time that a thread for blocking calls outlives its last one: files are read at the start and twice a day.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Threads for blocking calls: a look-up of the control plane's name that hangs must not keep the other one, or
/// the reading of a file, waiting.
const BLOCKING_THREADS_MAX: usize = 6;

/// Exit status when the arguments cannot be used, as that of the argument parser.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // A few small blocks in each huge page keep all 2 MiB of it: measured, 26 MiB resident when idle in place of
    // 13, for no less CPU. The allocator is built not to ask for them; this holds where the system gives them
    // unasked. A kernel that does not know the call only costs memory.
    let _only_memory = nix::sys::prctl::set_thp_disable(true);
    match Args::parse().command {
        Command::Run(args) => run(*args),
        Command::Intercept { command } => report(match command {
            InterceptCommand::Install(args) => intercept::install(&args.into()),
            InterceptCommand::Show(args) => return show(&intercept::render(&args.into())),
            InterceptCommand::Remove => intercept::remove(),
        }),
        Command::Wait(args) => report(wait::until_ready(args.address(), args.timeout)),
    }
}

fn report<E: std::error::Error>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn show(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}

fn run(args: RunArgs) -> ExitCode {
    let log = match LogControl::install(&args.log_level, args.log_format) {
        Ok(log) => log,
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    let settings = match Settings::new(args) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    match serve(settings, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings, log: LogControl) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .build()
        .context("no runtime")?;
    let outcome = runtime.block_on(app::run(settings, log)).context("mesh-proxy cannot serve");
    // Workers that are still busy after a second signal are not waited for.
    runtime.shutdown_background();
    outcome
}

fn complain(error: &dyn std::error::Error) {
    use std::io::Write as _;
    // Nothing is left to say it with when this fails too.
    drop(writeln!(std::io::stderr(), "error: {}", chain(error)));
}
