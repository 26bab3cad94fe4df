//! `meshctl validate`: whether the mesh would take these files.

use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::manifest::LowerContext;
use mesh_api::problem::{Problem, Severity};
use serde::Serialize;

use super::objects::input;
use super::{Outcome, analyze};
use crate::output::{self, Format};

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
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// What was found in a file, for programs.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    file: &'a str,
    valid: bool,
    problems: Vec<&'a Problem>,
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
    let mut verdicts = Vec::new();
    for reading in &readings {
        let mut errors: Vec<_> = reading.problems(Severity::Error).collect();
        errors.extend(twice.iter().filter(|problem| *problem.origin.file == *reading.name));
        if args.output != Format::Table {
            let milder = reading.parsed.problems().filter(|problem| problem.severity < Severity::Error);
            let valid = errors.is_empty();
            is_valid &= valid;
            let problems = errors.into_iter().chain(milder).collect();
            verdicts.push(Verdict { file: &reading.name, valid, problems });
            continue;
        }
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
    if args.output != Format::Table {
        output::value(&verdicts, args.output);
    }
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
