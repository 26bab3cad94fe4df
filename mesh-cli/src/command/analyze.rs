//! `meshctl analyze`: what is wrong with configuration, or probably not meant.
//!
//! With files it works without any mesh; a `mesh.yaml` among them says which workloads and services there
//! would be. Without files it asks the running mesh, which looks at everything that is in force and at every
//! file that could not be read. Lines, codes, thresholds and the exit status of 79 are
//! istioctl's.

mod local_mesh;
mod suppress;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use mesh_api::manifest::LowerContext;
use mesh_api::problem::{Problem, Severity};
use serde::Serialize;

use super::mesh::Mesh;
use super::objects::collected::{Collected, reread};
use super::objects::input;
use super::{EXIT_ISSUES, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use suppress::Suppression;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// Files, folders, or - for standard input; default: the running mesh.
    files: Vec<PathBuf>,
    /// Look at the files as if they were applied to the running mesh.
    #[arg(short = 'k', long, visible_alias = "use-mesh", requires = "files")]
    use_kube: bool,
    /// Of all namespaces, which is the default unless -n is given.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Folders are read with their sub-folders anyway.
    #[arg(short = 'R', long, hide = true)]
    recursive: bool,
    /// Leave a message out: CODE=KIND NAME.NAMESPACE, with * for any.
    #[arg(short = 'S', long, value_name = "CODE=RESOURCE", value_parser = Suppression::parse)]
    suppress: Vec<Suppression>,
    /// Severity from which on the exit status is 79.
    #[arg(long, value_enum, default_value_t = Level::Error, ignore_case = true, value_name = "LEVEL")]
    failure_threshold: Level,
    /// Severity from which on messages are shown.
    #[arg(long, value_enum, default_value_t = Level::Info, ignore_case = true, value_name = "LEVEL")]
    output_threshold: Level,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// A severity, as flags take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Info,
    Warning,
    Error,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Warning => Self::Warning,
            Level::Error => Self::Error,
        }
    }
}

/// A message, with istioctl's fields and those that it has no place for.
#[derive(Debug, Serialize)]
struct Message<'a> {
    code: &'a str,
    level: String,
    /// `KIND NAMESPACE/NAME`.
    origin: String,
    /// `FILE:LINE`.
    reference: String,
    field: &'a str,
    message: &'a str,
    hint: &'a str,
}

impl<'a> From<&'a Problem> for Message<'a> {
    fn from(problem: &'a Problem) -> Self {
        let reference = match problem.origin.file.is_empty() {
            true => String::new(),
            false => problem.origin.to_string(),
        };
        Self {
            code: &problem.code,
            level: problem.severity.to_string(),
            origin: problem.object.as_ref().map(ToString::to_string).unwrap_or_default(),
            reference,
            field: &problem.field,
            message: &problem.message,
            hint: &problem.hint,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or the control plane does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &AnalyzeArgs) -> Outcome {
    let mut problems = if args.files.is_empty() {
        let mesh = Mesh::locate(global).map_err(|error| {
            Failure::from(error).hint("`meshctl analyze FILE…` needs no mesh; `meshctl up` starts one.")
        })?;
        block_on(async { Ok(mesh.problems().await?) })?
    } else {
        of_files(global, args)?
    };
    let namespace = global.namespace.as_deref().filter(|_| !args.all_namespaces);
    problems.retain(|problem| {
        let is_of =
            |wanted: &str| problem.object.as_ref().is_none_or(|object| object.namespace.as_str() == wanted);
        namespace.is_none_or(is_of) && !args.suppress.iter().any(|suppression| suppression.covers(problem))
    });
    // Errors first, each severity in order of file and line.
    problems.sort_by(|left, right| {
        let key =
            |problem: &Problem| (problem.origin.file.clone(), problem.origin.line, problem.code.clone());
        right.severity.cmp(&left.severity).then_with(|| key(left).cmp(&key(right)))
    });
    problems.dedup();
    let is_failure = problems.iter().any(|problem| problem.severity >= args.failure_threshold.into());
    let shown: Vec<&Problem> =
        problems.iter().filter(|problem| problem.severity >= args.output_threshold.into()).collect();
    let subject = subject(args, namespace);
    if args.output == Format::Table {
        for problem in &shown {
            output::line(&painted(problem));
        }
        if shown.is_empty() && !is_failure {
            output::line(&format!(
                "{} No validation issues found when analyzing {subject}.",
                output::good("✔")
            ));
        }
    } else {
        let messages: Vec<Message<'_>> = shown.into_iter().map(Message::from).collect();
        output::value(&messages, args.output);
    }
    if is_failure {
        let hint = "`meshctl get KIND NAME -o yaml` shows what is in force instead.";
        return Err(Failure::new(format!("analyzers found issues when analyzing {subject}"))
            .hint(if args.files.is_empty() { hint } else { "Each line says where, and what to do." })
            .status(EXIT_ISSUES));
    }
    Ok(ExitCode::SUCCESS)
}

fn subject(args: &AnalyzeArgs, namespace: Option<&str>) -> String {
    let files: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
    match (files.is_empty(), namespace) {
        (false, _) => files.join(", "),
        (true, Some(namespace)) => format!("namespace: {namespace}"),
        (true, None) => "all namespaces".to_owned(),
    }
}

fn of_files(global: &GlobalArgs, args: &AnalyzeArgs) -> Result<Vec<Problem>, Failure> {
    let inputs = input::read(&args.files)?;
    let live = match args.use_kube {
        true => {
            let mesh = Mesh::locate(global)?;
            block_on(async { Ok(mesh.objects().await?) })?
        }
        false => Vec::new(),
    };
    let mut context: LowerContext = input::context_of(&live);
    if let Some(namespace) = &global.namespace {
        context.default_namespace = input::namespace(namespace)?;
    }
    let (planned, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(local_mesh::is_mesh_file);
    let readings = input::parse(&inputs, &context);
    let mut problems: Vec<Problem> =
        readings.iter().flat_map(|reading| reading.parsed.problems().cloned()).collect();
    problems.extend(input::twice(&readings));
    let mut collected = Collected::default();
    let objects: Vec<_> = readings
        .into_iter()
        .flat_map(|reading| reading.parsed.documents)
        .filter_map(|document| document.outcome.ok())
        .collect();
    for file in &planned {
        match local_mesh::objects(file, &context) {
            Ok(found) => found.into_iter().for_each(|object| collected.add(object)),
            Err(problem) => problems.push(*problem),
        }
    }
    let replaced: Vec<_> = objects.iter().map(mesh_api::manifest::Object::object_ref).collect();
    let beside = live.iter().flat_map(|object| reread(object, &context));
    beside.filter(|object| !replaced.contains(&object.object_ref())).for_each(|object| collected.add(object));
    objects.into_iter().for_each(|object| collected.add(object));
    problems.extend(collected.analyze());
    Ok(problems)
}

/// A problem as istioctl prints it, with its severity in colour.
pub(super) fn painted(problem: &Problem) -> String {
    let text = problem.to_string();
    let word = problem.severity.to_string();
    let rest = text.strip_prefix(&word).unwrap_or(&text);
    let word = match problem.severity {
        Severity::Error => output::bad(&word),
        Severity::Warning => output::doubtful(&word),
        Severity::Info => word,
    };
    format!("{word}{rest}")
}
