//! The commands, and how they end.
//!
//! A command is a function that prints its result and returns an [`Outcome`]. What failed is said in one
//! place, here: the error with everything that caused it, and what to do next.

pub(crate) mod analyze;
pub(crate) mod apply;
pub(crate) mod completion;
pub(crate) mod confirm;
pub(crate) mod delete;
pub(crate) mod denied;
pub(crate) mod describe;
pub(crate) mod down;
pub(crate) mod exec;
pub(crate) mod get;
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
pub(crate) mod target;
pub(crate) mod up;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod why;
pub(crate) mod wire;
pub(crate) mod x_authz;

use std::error::Error;
use std::process::ExitCode;

use anstream::ColorChoice;

use crate::admin_client::AskError;
use crate::args::{Cli, Color, Command, ExperimentalCommand};
use crate::local::state::LocateError;
use crate::output;

/// Exit status of a failure.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// Exit status of wrong usage (`EX_USAGE` of sysexits.h, as istioctl has it).
pub(crate) const EXIT_USAGE: u8 = 64;
/// Exit status of configuration that is not valid (`EX_DATAERR` of sysexits.h, as istioctl has it).
pub(crate) const EXIT_DATA: u8 = 65;
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
        let hint = match (error.downcast_ref::<AskError>(), error.downcast_ref::<LocateError>()) {
            (Some(AskError::Refused { hint, .. }), _) => Some(hint.clone()),
            (Some(AskError::Connect { .. }), _) => {
                Some("`meshctl ps` shows what runs, `meshctl logs` says why something does not.".to_owned())
            }
            (_, Some(LocateError::None | LocateError::NotUp(_))) => {
                Some("`meshctl up -f mesh.yaml` starts one.".to_owned())
            }
            _ => None,
        };
        if let Some(hint) = hint.filter(|hint| !hint.is_empty()) {
            return Some(hint);
        }
        next = error.source();
    }
    None
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

/// Runs a future on an event loop of this thread.
///
/// # Errors
/// When the future fails, or there can be no event loop.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot make an event loop: {error}")))?;
    runtime.block_on(future)
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
        Command::Manifest(command) => manifest::run(global, &command),
        Command::Version(args) => version::run(global, &args),
        Command::Completion(args) => completion::run(&args),
        Command::Local(command) => Ok(local_init::run(command)),
    }
}
