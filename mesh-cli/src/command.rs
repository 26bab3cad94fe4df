//! The commands, and how they end.
//!
//! A command is a function that prints its result and returns an [`Outcome`]. What failed is said in one
//! place, here: the error with everything that caused it, and what to do next.

pub(crate) mod analyze;
pub(crate) mod apply;
pub(crate) mod bug_report;
pub(crate) mod check;
pub(crate) mod check_inject;
pub(crate) mod complete;
pub(crate) mod completion;
pub(crate) mod confirm;
pub(crate) mod delete;
pub(crate) mod denied;
pub(crate) mod describe;
pub(crate) mod down;
pub(crate) mod exec;
pub(crate) mod get;
pub(crate) mod inject;
pub(crate) mod install;
pub(crate) mod local_init;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod mesh;
pub(crate) mod objects;
pub(crate) mod policy;
pub(crate) mod proxy_config;
pub(crate) mod proxy_status;
pub(crate) mod ps;
pub(crate) mod restart;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod tag;
pub(crate) mod target;
pub(crate) mod uninstall;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod validate;
pub(crate) mod verify_install;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod why;
pub(crate) mod wire;
pub(crate) mod x_authz;

use std::cell::OnceCell;
use std::error::Error;
use std::process::ExitCode;

use anstream::ColorChoice;
use mesh::MeshError;

use crate::admin_client::AskError;
use crate::args::{Cli, Color, Command, ExperimentalCommand};
use crate::cluster::ClusterError;
use crate::cluster::resolve::ResolveError;
use crate::local::state::LocateError;
use crate::output;

/// Exit status of a failure.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// Exit status of a question that could not be answered, where 1 is the answer no.
pub(crate) const EXIT_UNANSWERED: u8 = 2;
/// Exit status of wrong usage (`EX_USAGE` of sysexits.h, as istioctl has it).
pub(crate) const EXIT_USAGE: u8 = 64;
/// Exit status of configuration that is not valid (`EX_DATAERR` of sysexits.h, as istioctl has it).
pub(crate) const EXIT_DATA: u8 = 65;
/// Exit status when something did not come to pass in the time that was granted, as timeout(1) has it.
pub(crate) const EXIT_TIMEOUT: u8 = 124;
/// Exit status of `analyze` when it finds issues at its threshold, as istioctl has it.
pub(crate) const EXIT_ISSUES: u8 = 79;

/// How a command ends.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// What a person is told about an error. Any error becomes one with `?`.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    status: u8,
}

impl Failure {
    /// A failure that is told in one's own words.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: EXIT_FAILURE }
    }

    /// What failed, in words.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says what failed.
    pub(crate) fn print(&self) {
        output::error(&self.message, self.hint.as_deref());
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Of a command whose status 1 is the answer no: what only failed was no answer, and is told apart.
    #[must_use]
    pub(crate) fn unanswered(self) -> Self {
        if self.status == EXIT_FAILURE { self.status(EXIT_UNANSWERED) } else { self }
    }

    /// Ends with another status than 1.
    #[must_use]
    pub(crate) fn status(self, status: u8) -> Self {
        Self { status, ..self }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { message: output::chain(&error), hint: hint_for(&error), status: EXIT_FAILURE }
    }
}

/// What to do about an error, from the first in its chain that we know something about.
fn hint_for(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(hint) = hint_of(error).filter(|hint| !hint.is_empty()) {
            return Some(hint);
        }
        next = error.source();
    }
    None
}

/// What to do about this error alone. Transparent errors are no link of the chain that their source is.
fn hint_of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<AskError>() {
        return match error {
            AskError::Refused { hint, .. } => Some(hint.clone()),
            AskError::Cluster(error) => error.hint(),
            AskError::Connect { place, .. } if place.starts_with('/') => {
                Some("`meshctl ps` shows what runs, `meshctl logs` says why something does not.".to_owned())
            }
            AskError::Connect { .. } => Some(
                "The container may be starting or ending: `kubectl get pods -A` shows it, `meshctl logs` says why."
                    .to_owned(),
            ),
            AskError::Timeout { .. } | AskError::Broken { .. } | AskError::Content { .. } => None,
        };
    }
    if let Some(MeshError::Cluster(error)) = error.downcast_ref::<MeshError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<ClusterError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<ResolveError>() {
        return error.hint();
    }
    let local = match error.downcast_ref::<MeshError>() {
        Some(MeshError::Local(error)) => Some(error),
        Some(MeshError::Cluster(_) | MeshError::Both(..)) | None => error.downcast_ref::<LocateError>(),
    };
    match local {
        Some(LocateError::None | LocateError::NotUp(_)) => {
            Some("`meshctl up -f mesh.yaml` starts one.".to_owned())
        }
        Some(_) | None => None,
    }
}

/// Runs the command and says what failed.
pub(crate) fn run(cli: Cli) -> ExitCode {
    match cli.global.color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
    .write_global();
    match dispatch(cli) {
        Ok(status) => status,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.status)
        }
    }
}

thread_local! {
    /// The event loop of this thread once a cluster is asked. A client of the API server lives as long as the
    /// loop that it was made on, so that all questions of a command share one.
    static CLUSTER_LOOP: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
}

/// Runs a future on an event loop of this thread.
///
/// # Errors
/// When the future fails, or there can be no event loop.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    CLUSTER_LOOP.with(|kept| match kept.get() {
        Some(runtime) => runtime.block_on(future),
        None => event_loop()?.block_on(future),
    })
}

/// Runs a future on the event loop that is kept for the cluster.
///
/// # Errors
/// When the future fails, or there can be no event loop.
pub(crate) fn block_on_cluster<T, E>(future: impl Future<Output = Result<T, E>>) -> Result<T, E>
where
    E: From<ClusterError>,
{
    CLUSTER_LOOP.with(|kept| {
        if kept.get().is_none() {
            let runtime = event_loop().map_err(|failure| ClusterError::Loop { message: failure.message })?;
            let _there_already = kept.set(runtime);
        }
        match kept.get() {
            Some(runtime) => runtime.block_on(future),
            None => Err(ClusterError::Loop { message: "there is no event loop".to_owned() }.into()),
        }
    })
}

fn event_loop() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot make an event loop: {error}")))
}

fn dispatch(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(global, &args),
        Command::Down(args) => down::run(global, &args),
        Command::Ps(args) => ps::run(global, &args),
        Command::Logs(args) => logs::run(global, &args),
        Command::Exec(args) => exec::run(global, &args),
        Command::Run(args) => run::run(global, args),
        Command::Restart(args) => restart::run(global, &args),
        Command::Status(args) => status::run(global, &args),
        Command::ProxyStatus(args) => proxy_status::run(global, &args),
        Command::ProxyConfig(command) => proxy_config::run(global, &command),
        Command::Check(args) => check::run(global, &args),
        Command::Wait(args) => wait::run(global, &args),
        Command::Analyze(args) => analyze::run(global, &args),
        Command::Why(args) => why::run(global, &args),
        Command::Policy(command) => policy::run(global, &command),
        Command::Validate(args) => validate::run(&args),
        Command::Apply(args) => apply::run(global, &args),
        Command::Get(args) => get::run(global, &args),
        Command::Delete(args) => delete::run(global, &args),
        Command::Confirm(args) => confirm::run(global, &args),
        Command::Describe(args) | Command::Experimental(ExperimentalCommand::Describe(args)) => {
            describe::run(global, &args)
        }
        Command::Experimental(ExperimentalCommand::Authz(command)) => x_authz::run(global, &command),
        Command::Experimental(ExperimentalCommand::Denied(args)) => denied::run(global, &args),
        Command::Experimental(ExperimentalCommand::Wire(args)) => wire::run(global, &args),
        Command::Install(args) => install::run(global, &args),
        Command::Upgrade(args) => upgrade::run(global, &args),
        Command::Uninstall(args) => uninstall::run(global, &args),
        Command::VerifyInstall(args) => verify_install::run(global, &args),
        Command::Tag(command) => tag::run(global, &command),
        Command::BugReport(args) => bug_report::run(global, &args),
        Command::Manifest(command) => manifest::run(global, &command),
        Command::Inject(args) => inject::run(global, &args),
        Command::Uninject(args) => inject::run_uninject(&args),
        Command::Experimental(ExperimentalCommand::CheckInject(args)) => check_inject::run(global, &args),
        Command::Version(args) => version::run(global, &args),
        Command::Completion(args) => completion::run(&args),
        Command::Complete(args) => complete::run(&args),
        Command::Local(command) => Ok(local_init::run(command)),
    }
}
