//! `meshctl describe`: how configuration applies to a workload or a service, in istioctl's words.

mod report;

use std::process::ExitCode;

use mesh_api::model::Workload;

use super::mesh::Mesh;
use super::objects::collected::Collected;
use super::objects::input;
use super::target::{self, Found};
use super::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use crate::suggestion;

/// Words that mean a service.
const SERVICE: [&str; 3] = ["service", "svc", "services"];

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DescribeArgs {
    /// NAME.NAMESPACE of a workload; pod NAME; svc NAME; or svc/NAME.
    #[arg(required = true, num_args = 1..=2, value_name = "TARGET")]
    target: Vec<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When there is no such workload or service, or the control plane does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &DescribeArgs) -> Outcome {
    let (kind, name) = match args.target.as_slice() {
        [kind, name] => (kind.to_lowercase(), name.clone()),
        [one] => match one.split_once('/') {
            Some((kind, name)) => (kind.to_lowercase(), name.to_owned()),
            None => ("pod".to_owned(), one.clone()),
        },
        _ => return Err(Failure::new("name one workload or service").status(EXIT_USAGE)),
    };
    let mesh = Mesh::locate(global)?;
    let (registry, objects) = block_on(async { Ok((mesh.registry().await?, mesh.objects().await?)) })?;
    let collected = Collected::live(&objects, &input::context_of(&objects)).with_registry(registry);
    let namespace = global.namespace.as_deref();
    let (value, lines) = if SERVICE.contains(&kind.as_str()) {
        let service = service(&collected, &name, namespace)?;
        (serde_json::to_value(service)?, report::service(service, &collected))
    } else {
        let text = format!("{kind}/{name}");
        let workload = match &mesh {
            Mesh::Local(_) => workload(&collected, &text, namespace)?,
            Mesh::Cluster(cluster) => {
                let pod = target::resolve_pod(cluster, &text, namespace)?;
                of_pod(&collected, &pod.id())?
            }
        };
        let policies = report::in_force(workload, &collected);
        let mut value = serde_json::to_value(workload)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("policies".to_owned(), policies);
        }
        (value, report::workload(workload, &collected))
    };
    match args.output {
        Format::Table => output::line(&lines.join("\n")),
        format => output::value(&value, format),
    }
    Ok(ExitCode::SUCCESS)
}

fn id(workload: &Workload) -> String {
    format!("{}.{}", workload.meta.object.name, workload.meta.object.namespace)
}

/// A pod as the control plane knows it.
fn of_pod<'a>(collected: &'a Collected, pod: &str) -> Result<&'a Workload, Failure> {
    let found = collected.workloads.iter().find(|workload| id(workload) == pod);
    found.map(AsRef::as_ref).ok_or_else(|| {
        Failure::new(format!("the control plane does not know pod {pod}"))
            .hint("It may have no address yet, or use the network of its node; `meshctl check` says whether the control plane is well.")
    })
}

fn workload<'a>(
    collected: &'a Collected,
    text: &str,
    namespace: Option<&str>,
) -> Result<&'a Workload, Failure> {
    let known: Vec<String> = collected.workloads.iter().map(|workload| id(workload)).collect();
    let wanted =
        match target::find(text, namespace, &known).map_err(|error| target::explain(error, &known))? {
            Found::One(id) => id,
            Found::FirstOf(mut all) => {
                let first = all.swap_remove(0);
                output::note(&format!(
                    "this is {first}, the first of {}",
                    output::count(all.len() + 1, "instance", "instances")
                ));
                first
            }
        };
    let found = collected.workloads.iter().find(|workload| id(workload) == wanted);
    found
        .map(AsRef::as_ref)
        .ok_or_else(|| Failure::new(format!("there is no workload {wanted:?} in this mesh")))
}

fn service<'a>(
    collected: &'a Collected,
    name: &str,
    namespace: Option<&str>,
) -> Result<&'a mesh_api::model::Service, Failure> {
    let names = |service: &mesh_api::model::Service| {
        let object = &service.meta.object;
        let mut names = vec![format!("{}.{}", object.name, object.namespace)];
        names.extend(service.hosts.iter().map(|host| host.as_str().to_owned()));
        if namespace.is_none_or(|namespace| namespace == object.namespace.as_str()) {
            names.push(object.name.to_string());
        }
        names
    };
    let mut found: Vec<_> = collected
        .services
        .iter()
        .filter(|service| names(service).iter().any(|known| known == name))
        .collect();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => {
            let known: Vec<String> = collected.services.iter().flat_map(|service| names(service)).collect();
            let failure = Failure::new(format!("there is no service {name:?} in this mesh"));
            Err(match suggestion::nearest(name, known.iter().map(String::as_str)) {
                Some(nearest) => failure.hint(format!("Did you mean {nearest}?")),
                None => failure.hint("`meshctl get services` lists them."),
            })
        }
        _ => Err(Failure::new(format!("{name:?} is in several namespaces"))
            .hint("Say which one with -n NAMESPACE, or write NAME.NAMESPACE.")),
    }
}
