//! `meshctl validate`: whether the mesh would take these files.

use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::manifest::LowerContext;
use mesh_api::problem::Severity;

use super::objects::input;
use super::{Outcome, analyze};
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// File, folder, or - for standard input.
    #[arg(
        short,
        long = "filename",
        visible_alias = "file",
        value_name = "FILE",
        required_unless_present = "files"
    )]
    filename: Vec<PathBuf>,
    /// The same, without a flag.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs the command: exit status 1 when something is not valid, as istioctl has it.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn run(args: &ValidateArgs) -> Outcome {
    let paths: Vec<PathBuf> = args.filename.iter().chain(&args.files).cloned().collect();
    let readings = input::parse(&input::read(&paths)?, &LowerContext::default());
    let twice = input::twice(&readings);
    let mut is_valid = true;
    for reading in &readings {
        let mut errors: Vec<_> = reading.problems(Severity::Error).collect();
        errors.extend(twice.iter().filter(|problem| *problem.origin.file == *reading.name));
        for warning in reading.parsed.problems().filter(|problem| problem.severity < Severity::Error) {
            output::note(&analyze::painted(warning));
        }
        for error in &errors {
            output::note(&analyze::painted(error));
        }
        if errors.is_empty() {
            output::line(&format!("{:?} is valid", reading.name));
        } else {
            is_valid = false;
            output::note(&format!("{:?} is not valid", reading.name));
        }
    }
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
