//! `meshctl delete`: takes objects out of the mesh's configuration folder, or out of a cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::admin::ObjectSummary;
use mesh_api::manifest::LowerContext;
use mesh_api::model::{Kind, ObjectRef};
use mesh_api::name::ObjectName;

use super::apply::{self, WaitArgs};
use super::mesh::Mesh;
use super::objects::folder::ConfigFolder;
use super::objects::outcome::Outcomes;
use super::objects::server::Server;
use super::objects::settle::Expectation;
use super::objects::{input, kind, spread};
use super::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::cluster::Cluster;
use crate::output::Format;

/// Namespace of a name without one, as for kubectl: deleting does not guess.
const NAMESPACE_DEFAULT: &str = "default";

/// What became of an object that was there.
const DELETED: &str = "deleted";

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Kind, for instance authorizationpolicy or ap; or KIND/NAME.
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    kind: Option<String>,
    /// Names.
    #[arg(conflicts_with = "filename")]
    names: Vec<String>,
    /// Delete the objects of a file, folder, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// What is not there is no failure.
    #[arg(long)]
    ignore_not_found: bool,
    /// How to wait.
    #[command(flatten)]
    wait: WaitArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When an object is not there, the folder cannot be written, or the mesh does not take it.
pub(crate) fn run(global: &GlobalArgs, args: &DeleteArgs) -> Outcome {
    let whole = Mesh::locate(global)?;
    let mesh = match &whole {
        Mesh::Local(mesh) => mesh,
        Mesh::Cluster(cluster) => return from_cluster(global, args, &whole, cluster),
    };
    let live = block_on(async { Ok(whole.objects().await?) })?;
    let context = apply::context(global, &live)?;
    let wanted: Vec<ObjectRef> = match &args.kind {
        None => apply::wanted(&args.filename, &context)?.into_iter().map(|wanted| wanted.object).collect(),
        Some(kind) => named(global.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT), kind, &args.names)?,
    };
    let plain = LowerContext { default_namespace: LowerContext::default().default_namespace, ..context };
    let mut folder = ConfigFolder::open(mesh.config(), &plain)?;
    let mut deleted = Vec::new();
    for object in wanted {
        if folder.remove(&object, &plain) {
            deleted.push(object);
        } else if !args.ignore_not_found {
            return Err(absent(&object, &live));
        }
    }
    folder.write()?;
    drop(folder);
    let mut outcomes = Outcomes::new(args.output, false);
    for object in &deleted {
        outcomes.add(object, DELETED);
    }
    let expectations: Vec<Expectation> = deleted.into_iter().map(Expectation::Gone).collect();
    args.wait.wait(&whole, &expectations)?;
    Ok(ExitCode::SUCCESS)
}

fn from_cluster(global: &GlobalArgs, args: &DeleteArgs, mesh: &Mesh, cluster: &Cluster) -> Outcome {
    let namespace = global.namespace.as_deref().unwrap_or(&cluster.default_namespace);
    let wanted: Vec<ObjectRef> = match &args.kind {
        None => {
            let default_namespace = input::namespace(namespace)?;
            let context = LowerContext { default_namespace, ..LowerContext::default() };
            apply::wanted(&args.filename, &context)?.into_iter().map(|wanted| wanted.object).collect()
        }
        Some(kind) => named(namespace, kind, &args.names)?,
    };
    // Deleting a namespace deletes all that is in it: that is not what policies are edited with.
    if wanted.iter().any(|object| object.kind == Kind::Namespace) && args.kind.is_some() {
        return Err(Failure::new("namespaces are not deleted here; nothing was deleted")
            .hint("`kubectl delete namespace` does it, with all that is in it.")
            .status(EXIT_USAGE));
    }
    let server = Server::new(cluster);
    let mut outcomes = Outcomes::new(args.output, false);
    let mut expectations = Vec::new();
    for object in wanted.into_iter().filter(|object| object.kind != Kind::Namespace) {
        if block_on(server.delete(&object))? {
            outcomes.add(&object, DELETED);
            if spread::is_told(object.kind) {
                expectations.push(Expectation::Gone(object));
            }
        } else if !args.ignore_not_found {
            return Err(Failure::new(format!(
                "{} {:?} not found in namespace {}",
                kind::resource(object.kind),
                object.name.as_str(),
                object.namespace
            ))
            .hint(format!("`meshctl get {} -A` lists what there is.", kind::resource(object.kind))));
        }
    }
    args.wait.wait(mesh, &expectations)?;
    Ok(ExitCode::SUCCESS)
}

fn named(namespace: &str, text: &str, names: &[String]) -> Result<Vec<ObjectRef>, Failure> {
    let usage = |error: kind::UnknownKind| {
        let hint = error.hint();
        Failure::from(error).hint(hint).status(EXIT_USAGE)
    };
    let (kind, names) = match text.split_once('/') {
        Some((kind, name)) => (kind::parse(kind).map_err(usage)?, vec![name.to_owned()]),
        None => (kind::parse(text).map_err(usage)?, names.to_vec()),
    };
    if names.is_empty() {
        return Err(Failure::new("no name is given; nothing was deleted")
            .hint(format!("`meshctl get {}` lists them.", kind::resource(kind)))
            .status(EXIT_USAGE));
    }
    let namespace = input::namespace(namespace)?;
    let object = |name: String| {
        let namespace = match kind {
            Kind::Namespace => input::namespace(&name)?,
            _ => namespace.clone(),
        };
        let name = ObjectName::parse(&name).map_err(|error| Failure::from(error).status(EXIT_USAGE))?;
        Ok(ObjectRef { kind, namespace, name })
    };
    names.into_iter().map(object).collect()
}

fn absent(object: &ObjectRef, live: &[ObjectSummary]) -> Failure {
    let failure = Failure::new(format!(
        "{} {:?} not found in namespace {}; nothing was deleted",
        kind::resource(object.kind),
        object.name.as_str(),
        object.namespace
    ));
    let alike = live.iter().filter(|other| other.kind == object.kind && other.name == object.name.as_str());
    let mut alike: Vec<&ObjectSummary> = alike.collect();
    match alike.pop() {
        Some(other) if other.namespace == object.namespace.as_str() => failure.hint(format!(
            "It is in force from {}:{}, which is not yours to change here.",
            other.file, other.line
        )),
        Some(other) => failure.hint(format!("There is one in namespace {0}: add -n {0}.", other.namespace)),
        None => failure.hint(format!("`meshctl get {}` lists what there is.", kind::resource(object.kind))),
    }
}
