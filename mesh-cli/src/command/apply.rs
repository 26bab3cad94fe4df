//! `meshctl apply`: objects from files into the mesh's configuration folder, or into a cluster.
//!
//! Everything is checked before anything is written. Afterwards the command waits until the control plane
//! has the objects in force and the proxies have acknowledged them, so that what follows it in a script
//! meets the new state.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mesh_api::admin::ObjectSummary;
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::ObjectRef;
use mesh_api::problem::{Problem, Severity};

use super::mesh::{LocalMesh, Mesh};
use super::objects::folder::{Change, ConfigFolder};
use super::objects::input::{self, Reading};
use super::objects::outcome::Outcomes;
use super::objects::server::{Conflicts, Manner, Server};
use super::objects::settle::{self, Expectation, Goal};
use super::objects::spread;
use super::{EXIT_DATA, Failure, Outcome, analyze, block_on};
use crate::args::GlobalArgs;
use crate::cluster::Cluster;
use crate::output::{self, Format};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// File, folder, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Check, say what would change, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// In a cluster: take over fields that somebody else applied.
    #[arg(long)]
    force_conflicts: bool,
    /// How to wait.
    #[command(flatten)]
    wait: WaitArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// How long to wait for the mesh.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until proxies have acknowledged the change.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl WaitArgs {
    /// Waits, if that is wanted and there is something to wait for.
    ///
    /// # Errors
    /// When the mesh does not take the change in time.
    pub(super) fn wait(&self, mesh: &Mesh, expectations: &[Expectation]) -> Result<(), Failure> {
        if !self.wait || expectations.is_empty() {
            return Ok(());
        }
        block_on(settle::wait(mesh, expectations, Duration::from_secs(self.timeout)))
    }
}

/// An object that is to be applied.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Which.
    pub(super) object: ObjectRef,
    /// Its document.
    pub(super) text: String,
}

/// Runs the command.
///
/// # Errors
/// When a document is not valid (status 65), the folder cannot be written, or the mesh does not take it.
pub(crate) fn run(global: &GlobalArgs, args: &ApplyArgs) -> Outcome {
    let mesh = Mesh::locate(global)?;
    match &mesh {
        Mesh::Local(local) => to_folder(global, args, &mesh, local),
        Mesh::Cluster(cluster) => to_cluster(global, args, &mesh, cluster),
    }
}

/// Into the cluster, by its API server.
fn to_cluster(global: &GlobalArgs, args: &ApplyArgs, mesh: &Mesh, cluster: &Cluster) -> Outcome {
    let mut context = LowerContext::default();
    if !args.dry_run && args.wait.wait {
        // Also tells at once when there is no control plane to wait for.
        context = input::context_of(&block_on(async { Ok(mesh.objects().await?) })?);
    }
    let namespace = global.namespace.as_deref().unwrap_or(&cluster.default_namespace);
    context.default_namespace = input::namespace(namespace)?;
    let wanted = wanted(&args.filename, &context)?;
    let manner = if args.dry_run { Manner::DryRun } else { Manner::Write };
    let conflicts = if args.force_conflicts { Conflicts::Forced } else { Conflicts::Refused };
    let server = Server::new(cluster);
    let mut outcomes = Outcomes::new(args.output, args.dry_run);
    let mut expectations = Vec::new();
    for Wanted { object, text } in &wanted {
        let (change, stamp) = block_on(server.apply(object, text, manner, conflicts))?;
        outcomes.add(object, change.as_str());
        expectations.push(Expectation::Reaches(object.clone(), stamp, Goal::Enforced));
    }
    // Of other kinds the control plane does not say how far they are.
    expectations.retain(|expectation: &Expectation| spread::is_told(expectation.object().kind));
    if !args.dry_run {
        args.wait.wait(mesh, &expectations)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Into the configuration folder of a mesh on this machine.
fn to_folder(global: &GlobalArgs, args: &ApplyArgs, whole: &Mesh, mesh: &LocalMesh) -> Outcome {
    let live = block_on(async { Ok(whole.objects().await?) })?;
    let context = context(global, &live)?;
    let wanted = wanted(&args.filename, &context)?;
    let plain =
        LowerContext { default_namespace: LowerContext::default().default_namespace, ..context.clone() };
    let mut folder = ConfigFolder::open(mesh.config(), &plain)?;
    let mut changes = Vec::new();
    for Wanted { object, text } in &wanted {
        refuse_foreign(mesh, &live, &folder, object)?;
        let text = stated(object, text, &plain);
        changes.push((object, folder.put(object, &text, &plain)?, text));
    }
    if !args.dry_run {
        folder.write()?;
    }
    drop(folder);
    let mut outcomes = Outcomes::new(args.output, args.dry_run);
    for (object, change, _) in &changes {
        outcomes.add(object, change.as_str());
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let expectations: Vec<Expectation> = changes
        .into_iter()
        .filter(|(_, change, _)| *change != Change::Unchanged)
        .map(|(object, _, text)| Expectation::Says(object.clone(), text))
        .collect();
    args.wait.wait(whole, &expectations)?;
    Ok(ExitCode::SUCCESS)
}

/// How documents are read: as the running mesh reads them, in the namespace of the flag.
///
/// # Errors
/// When the flag holds no namespace.
pub(super) fn context(global: &GlobalArgs, live: &[ObjectSummary]) -> Result<LowerContext, Failure> {
    let mut context = input::context_of(live);
    if let Some(text) = &global.namespace {
        context.default_namespace = input::namespace(text)?;
    }
    Ok(context)
}

/// The objects of files.
///
/// # Errors
/// When a document is not valid: all that is wrong is said first.
pub(super) fn wanted(paths: &[PathBuf], context: &LowerContext) -> Result<Vec<Wanted>, Failure> {
    let readings = input::parse(&input::read(paths)?, context);
    let mut problems: Vec<Problem> =
        readings.iter().flat_map(|reading| reading.parsed.problems().cloned()).collect();
    problems.extend(input::twice(&readings));
    for problem in &problems {
        output::note(&analyze::painted(problem));
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        let errors = output::count(errors, "error", "errors");
        return Err(Failure::new(format!("{errors}; nothing was changed")).status(EXIT_DATA));
    }
    let wanted: Vec<Wanted> = readings.iter().flat_map(objects).collect();
    if wanted.is_empty() {
        return Err(Failure::new("there is no object of the mesh in these files").status(EXIT_DATA));
    }
    Ok(wanted)
}

fn objects(reading: &Reading) -> impl Iterator<Item = Wanted> {
    reading.parsed.documents.iter().filter_map(|document| {
        let object = document.outcome.as_ref().ok().map(Object::object_ref)?;
        Some(Wanted { object, text: document.text.to_string() })
    })
}

/// The document with its namespace stated, if it relies on the flag for it: the folder knows no flags.
fn stated(object: &ObjectRef, text: &str, plain: &LowerContext) -> String {
    let read = manifest::parse("", text, plain);
    let own =
        read.documents.first().and_then(|document| document.outcome.as_ref().ok().map(Object::object_ref));
    if own.as_ref() == Some(object) { text.to_owned() } else { input::in_namespace(text, &object.namespace) }
}

/// Refuses what is in force from elsewhere, or stands in a document whose place cannot be told: a second
/// document of the same object would only contest it.
fn refuse_foreign(
    mesh: &LocalMesh,
    live: &[ObjectSummary],
    folder: &ConfigFolder,
    object: &ObjectRef,
) -> Result<(), Failure> {
    if !folder.places(object).is_empty() {
        return Ok(());
    }
    let found = live.iter().find(|other| {
        other.kind == object.kind
            && other.namespace == object.namespace.as_str()
            && other.name == object.name.as_str()
    });
    let Some(found) = found else { return Ok(()) };
    let place = format!("{}:{}", found.file, found.line);
    if !std::path::Path::new(&found.file).starts_with(mesh.config()) {
        return Err(Failure::new(format!(
            "{object} comes from {place}, which follows from {}",
            mesh.state.file.display()
        ))
        .hint("Change it there."));
    }
    if found.held && std::path::Path::new(&found.file).exists() {
        return Err(Failure::new(format!(
            "{object} is held in its last good version, and {} does not say any more where it stands",
            found.file
        ))
        .hint("Repair that file first; `meshctl analyze` says what is wrong with it."));
    }
    Ok(())
}
