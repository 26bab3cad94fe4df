//! `meshctl policy test`: unit tests of policies, for CI (the format is described in README.md).

use std::path::PathBuf;

use clap::ValueEnum;

use crate::command::{Failure, Outcome};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Files of PolicyTest documents, or folders that hold some.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
    /// Fail when less than this share of the rules is exercised, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    coverage: Option<u8>,
}

/// Form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
    /// JUnit XML, for CI servers.
    Junit,
    /// Test Anything Protocol, version 14.
    Tap,
}

/// Runs the command.
///
/// # Errors
/// When the tests cannot run.
pub(crate) fn run(args: &TestArgs) -> Outcome {
    Err(Failure::new(format!(
        "no test can be read from {:?} in form {:?} {:?}",
        args.files, args.output, args.coverage
    )))
}
