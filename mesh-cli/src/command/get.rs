//! `meshctl get`: objects in force, from where, and by how many proxies policies are enforced.

use std::process::ExitCode;

use clap::ValueEnum;
use mesh_api::admin::{ObjectSummary, TriedChange};
use mesh_api::model::Kind;
use mesh_api::problem::Severity;
use serde_json::{Value, json};

use super::mesh::Mesh;
use super::objects::{self, kind};
use super::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use crate::suggestion;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// Kinds separated by commas, for instance authorizationpolicies or ap,pa; all; or KIND/NAME.
    kind: String,
    /// Names.
    names: Vec<String>,
    /// Of all namespaces, which is the default unless -n is given.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: GetFormat,
}

/// Forms of `get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum GetFormat {
    /// For people.
    #[default]
    Table,
    /// With the file of each object.
    Wide,
    /// Names only.
    Name,
    /// JSON.
    Json,
    /// The documents in force, as they were written.
    Yaml,
}

/// Runs the command.
///
/// # Errors
/// When a kind or a name is not known, or the control plane does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &GetArgs) -> Outcome {
    let (kinds, names) = match args.kind.split_once('/') {
        Some((kind, name)) => (kind, vec![name.to_owned()]),
        None => (args.kind.as_str(), args.names.clone()),
    };
    let kinds = kind::parse_many(kinds).map_err(|error| {
        let hint = error.hint();
        Failure::from(error).hint(hint).status(EXIT_USAGE)
    })?;
    let mesh = Mesh::locate(global)?;
    let namespace = global.namespace.as_deref().filter(|_| !args.all_namespaces);
    let mut found = block_on(async { Ok(mesh.objects().await?) })?;
    found.retain(|object| {
        kinds.contains(&object.kind) && namespace.is_none_or(|wanted| wanted == object.namespace)
    });
    for name in &names {
        if !found.iter().any(|object| object.name == *name) {
            return Err(not_found(&kinds, name, namespace, &found));
        }
    }
    if !names.is_empty() {
        found.retain(|object| names.contains(&object.name));
    }
    found.sort_by(|left, right| {
        (left.kind, &left.namespace, &left.name).cmp(&(right.kind, &right.namespace, &right.name))
    });
    let view = View {
        form: args.output,
        names: if kinds.len() > 1 { Names::WithKind } else { Names::Plain },
        namespace,
    };
    match args.output {
        GetFormat::Json => json(&found, if names.len() == 1 { Shape::Single } else { Shape::List }),
        GetFormat::Table | GetFormat::Wide | GetFormat::Name | GetFormat::Yaml => print(&found, &view),
    }
    Ok(ExitCode::SUCCESS)
}

/// How objects are shown.
#[derive(Debug)]
struct View<'a> {
    form: GetFormat,
    names: Names,
    namespace: Option<&'a str>,
}

/// How objects are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Plain,
    WithKind,
}

/// Whether one object was asked for by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    List,
}

fn not_found(kinds: &[Kind], name: &str, namespace: Option<&str>, found: &[ObjectSummary]) -> Failure {
    let kind = match kinds {
        [kind] => kind::resource(*kind),
        _ => "object".to_owned(),
    };
    let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    let failure = Failure::new(format!("{kind} {name:?} not found{place}"));
    match suggestion::nearest(name, found.iter().map(|object| object.name.as_str())) {
        Some(nearest) => failure.hint(format!("Did you mean {nearest}?")),
        None => failure,
    }
}

fn json(found: &[ObjectSummary], shape: Shape) {
    let items: Vec<Value> = found.iter().filter_map(|object| objects::value(&object.yaml)).collect();
    match (shape, items.as_slice()) {
        (Shape::Single, [one]) => output::value(one, Format::Json),
        (Shape::Single | Shape::List, _) => {
            output::value(&json!({"apiVersion": "v1", "kind": "List", "items": items}), Format::Json);
        }
    }
}

fn print(found: &[ObjectSummary], view: &View<'_>) {
    match view.form {
        GetFormat::Yaml | GetFormat::Json => {
            let documents: Vec<String> =
                found.iter().map(|object| format!("{}\n", object.yaml.trim_end())).collect();
            output::line(documents.join("---\n").trim_end());
        }
        _ if found.is_empty() => {
            let place =
                view.namespace.map(|namespace| format!(" in {namespace} namespace")).unwrap_or_default();
            output::note(&format!("No resources found{place}"));
        }
        GetFormat::Table | GetFormat::Wide => table(found, view),
        GetFormat::Name => {
            let names: Vec<String> =
                found.iter().map(|object| kind::named(object.kind, &object.name)).collect();
            output::line(&names.join("\n"));
        }
    }
}

fn table(found: &[ObjectSummary], view: &View<'_>) {
    let mut header = vec!["NAME", "STATUS", "ENFORCED"];
    if view.namespace.is_none() {
        header.insert(0, "NAMESPACE");
    }
    if view.form == GetFormat::Wide {
        header.push("FILE");
    }
    let row = |object: &ObjectSummary| {
        let mut row = Vec::new();
        if view.namespace.is_none() {
            row.push(object.namespace.clone());
        }
        row.push(match view.names {
            Names::WithKind => kind::named(object.kind, &object.name),
            Names::Plain => object.name.clone(),
        });
        row.push(status(object));
        row.push(object.enforced.map_or_else(|| "-".to_owned(), |(taken, all)| format!("{taken}/{all}")));
        if view.form == GetFormat::Wide {
            row.push(format!("{}:{}", object.file, object.line));
        }
        row
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    output::table(&header, &rows);
    let problems = found.iter().flat_map(|object| &object.problems);
    for problem in problems.filter(|problem| problem.severity > Severity::Info) {
        output::note(&super::analyze::painted(problem));
    }
}

fn status(object: &ObjectSummary) -> String {
    let worst = object.problems.iter().map(|problem| problem.severity).max();
    let mut status = match (object.held, worst) {
        (true, _) => output::bad("Held"),
        (false, Some(Severity::Error)) => output::bad("Error"),
        (false, Some(Severity::Warning)) => output::doubtful("Warning"),
        (false, Some(Severity::Info) | None) => "OK".to_owned(),
    };
    match object.tried {
        Some(TriedChange::Added | TriedChange::Edited) => status.push_str(", tried only"),
        Some(TriedChange::Deleted) => status.push_str(", deletion tried"),
        None => {}
    }
    status
}
