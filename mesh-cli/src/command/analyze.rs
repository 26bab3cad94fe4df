//! `meshctl analyze`: what is wrong with configuration, or probably not meant.
//!
//! With files it works without any mesh; a `mesh.yaml` among them says which workloads and services there
//! would be. Without files, or with `live`, it asks the running mesh, and looks at everything that is in force
//! and at every file that could not be read. Lines, codes, thresholds and the exit status of 79 are istioctl's.

mod entry;
mod gather;
pub(crate) mod local_mesh;
mod of_cluster;
mod suppress;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use mesh_api::problem::{Problem, Severity};
use mesh_policy::analyze::{Document, Named, catalogue};

use super::mesh::Mesh;
use super::{EXIT_ISSUES, EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use entry::{Entry, Message};
use gather::{Detail, Gathered, Surroundings, Unknown};
use suppress::Suppression;

/// The word for the running mesh, where a file could stand.
const LIVE: &str = "live";

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// Files, folders, - for standard input, or `live` for the running mesh, which is the default.
    files: Vec<PathBuf>,
    /// Look at the files as if they were applied to the running mesh.
    #[arg(short = 'k', long, visible_alias = "use-mesh")]
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
    #[arg(long, visible_alias = "fail-on", value_enum, default_value_t = Level::Error, ignore_case = true, value_name = "LEVEL")]
    failure_threshold: Level,
    /// Severity from which on messages are shown.
    #[arg(long, value_enum, default_value_t = Level::Info, ignore_case = true, value_name = "LEVEL")]
    output_threshold: Level,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    /// Settings of the mesh: Istio's meshConfig, a ConfigMap that holds it, or a MeshConfig.
    #[arg(long = "meshConfigFile", visible_alias = "mesh-config-file", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// Say nothing of documents that are no objects of Kubernetes.
    #[arg(long)]
    ignore_unknown: bool,
    /// List what is looked for, and stop.
    #[arg(short = 'L', long)]
    list_analyzers: bool,
    /// Look for this code or name only; can be repeated.
    #[arg(long, value_name = "CODE", value_parser = analyzer)]
    analyzer: Vec<&'static str>,
    /// Also tell what was passed over.
    #[arg(short, long)]
    verbose: bool,
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

fn analyzer(text: &str) -> Result<&'static str, String> {
    catalogue::find(text)
        .map(|code| code.id)
        .ok_or_else(|| "is neither a code nor a name; `meshctl analyze -L` lists them".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or the control plane does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &AnalyzeArgs) -> Outcome {
    if args.list_analyzers {
        list(args.output);
        return Ok(ExitCode::SUCCESS);
    }
    let is_live = args.files.is_empty() || args.files == [Path::new(LIVE)] && !Path::new(LIVE).exists();
    let gathered = if is_live { of_mesh(global, args)? } else { of_files(global, args)? };
    let (mut entries, remarks, documents) = gathered.findings();
    let namespace = global.namespace.as_deref().filter(|_| !args.all_namespaces);
    keep_wanted(&mut entries, args, namespace, &documents);
    entries.sort_by(Entry::order);
    entries.dedup();
    let is_failure = entries.iter().any(|entry| entry.severity >= args.failure_threshold.into());
    let shown: Vec<&Entry> =
        entries.iter().filter(|entry| entry.severity >= args.output_threshold.into()).collect();
    let subject = subject(args, is_live, namespace);
    if args.output == Format::Table {
        shown.iter().for_each(|entry| entry.print());
        if shown.is_empty() && !is_failure {
            output::line(&format!(
                "{} No validation issues found when analyzing {subject}.",
                output::good("✔")
            ));
        }
        remarks.iter().for_each(|remark| output::note(&format!("note: {remark}")));
    } else {
        let messages: Vec<Message<'_>> = shown.into_iter().map(Message::from).collect();
        output::value(&messages, args.output);
    }
    if is_failure {
        let hint = "`meshctl get KIND NAME -o yaml` shows what is in force instead.";
        return Err(Failure::new(format!("analyzers found issues when analyzing {subject}"))
            .hint(if is_live {
                hint
            } else {
                "docs/analyze.md explains each code; --suppress leaves out what is meant."
            })
            .status(EXIT_ISSUES));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(format: Format) {
    if format != Format::Table {
        let codes: Vec<serde_json::Value> = catalogue::CATALOGUE
            .iter()
            .map(|code| {
                serde_json::json!({"code": code.id, "name": code.name, "level": code.severity.to_string(), "meaning": code.meaning, "fix": code.fix})
            })
            .collect();
        output::value(&codes, format);
        return;
    }
    let rows: Vec<Vec<String>> = catalogue::CATALOGUE
        .iter()
        .map(|code| {
            vec![
                code.id.to_owned(),
                code.severity.to_string(),
                code.name.to_owned(),
                first_clause(code.meaning),
            ]
        })
        .collect();
    output::table(&["CODE", "LEVEL", "NAME", "FINDS"], &rows);
}

/// The first sentence, as far as a line holds it.
fn first_clause(text: &str) -> String {
    const WIDTH: usize = 100;
    let sentence = text.split(". ").next().unwrap_or(text).trim_end_matches('.');
    match sentence.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &sentence[..at]),
        None => sentence.to_owned(),
    }
}

fn subject(args: &AnalyzeArgs, is_live: bool, namespace: Option<&str>) -> String {
    let files: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
    match (is_live, namespace) {
        (false, _) => files.join(", "),
        (true, Some(namespace)) => format!("namespace: {namespace}"),
        (true, None) => "all namespaces".to_owned(),
    }
}

/// Leaves out other namespaces, what is suppressed, and what was not asked for.
fn keep_wanted(
    entries: &mut Vec<Entry>,
    args: &AnalyzeArgs,
    namespace: Option<&str>,
    documents: &[Document],
) {
    let annotations: HashMap<&Named, &Document> =
        documents.iter().map(|document| (&document.subject, document)).collect();
    entries.retain(|entry| {
        let subject = entry.subject.as_ref();
        let is_of = |wanted: &str| {
            subject.is_none_or(|named| {
                if named.namespace.is_empty() { named.name == wanted } else { named.namespace == wanted }
            })
        };
        let document = subject.and_then(|named| annotations.get(named));
        let is_annotated = document.is_some_and(|document| {
            suppress::annotated(|name| document.annotations.get(name).map(String::as_str), &entry.code)
        });
        namespace.is_none_or(is_of)
            && !is_annotated
            && (args.analyzer.is_empty() || args.analyzer.contains(&entry.code.as_str()))
            && !args.suppress.iter().any(|suppression| suppression.covers(&entry.code, subject))
    });
}

fn of_mesh(global: &GlobalArgs, args: &AnalyzeArgs) -> Result<Gathered, Failure> {
    if args.mesh_config_file.is_some() {
        return Err(Failure::new("--meshConfigFile is for files; the running mesh has settings of its own")
            .status(EXIT_USAGE));
    }
    let mesh = Mesh::locate(global).map_err(|error| {
        Failure::from(error).hint("`meshctl analyze FILE…` needs no mesh; `meshctl up` starts one.")
    })?;
    let (objects, problems) = block_on(async { Ok((mesh.objects().await?, mesh.problems().await?)) })?;
    let mut around = Surroundings::default();
    if let Mesh::Cluster(cluster) = &mesh {
        let namespace = global.namespace.as_deref().filter(|_| !args.all_namespaces);
        around = block_on(async {
            Ok(Surroundings {
                registry: Some(mesh.registry().await?),
                documents: of_cluster::documents(cluster, namespace).await?,
            })
        })?;
    }
    Ok(gather::of_mesh(&objects, problems, around))
}

fn of_files(global: &GlobalArgs, args: &AnalyzeArgs) -> Result<Gathered, Failure> {
    let live = match args.use_kube {
        true => {
            let mesh = Mesh::locate(global).map_err(|error| {
                Failure::from(error)
                    .hint("Without -k files are looked at on their own; there is no other cluster to ask.")
            })?;
            block_on(async { Ok(mesh.objects().await?) })?
        }
        false => Vec::new(),
    };
    let detail = if args.verbose { Detail::Verbose } else { Detail::Brief };
    let unknown = if args.ignore_unknown { Unknown::Ignored } else { Unknown::Told };
    let namespace = global.namespace.as_deref();
    gather::of_files(&args.files, args.mesh_config_file.as_deref(), &live, namespace, (detail, unknown))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/analyze.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, catalogue::page()).expect("the page can be written");
        }
        let written = std::fs::read_to_string(path).expect("docs/analyze.md is there");
        assert!(written == catalogue::page(), "run this test with UPDATE_DOCS=1");
    }
}
