//! `meshctl wait`: until the mesh has an object in force, or every proxy that it concerns has acknowledged it.
//!
//! For scripts that write objects by other means than `meshctl apply`. What does not come to pass in time is exit
//! status 124, with what is in the way; a verdict that time does not change ends the wait at once.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use mesh_api::model::{Kind, ObjectRef};
use mesh_api::name::ObjectName;
use serde_json::Value;

use super::mesh::Mesh;
use super::objects::outcome::Outcomes;
use super::objects::server::Server;
use super::objects::settle::{self, Expectation, Goal, Stamp};
use super::objects::{input, kind, spread};
use super::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::Format;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitForArgs {
    /// KIND/NAME[.NAMESPACE], or KIND NAME[.NAMESPACE].
    #[arg(required = true, num_args = 1..=2, value_name = "OBJECT")]
    object: Vec<String>,
    /// What to wait for.
    #[arg(long = "for", value_enum, default_value_t, value_name = "STATE")]
    state: State,
    /// How long to wait at most, for instance 30s or 2m; a number alone is of seconds.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = super::logs::seconds)]
    timeout: i64,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum State {
    /// The control plane has it in force.
    Accepted,
    /// And every connected proxy that it concerns has acknowledged it.
    #[default]
    #[value(alias = "distribution")]
    Enforced,
    /// It is not in force any more.
    Deleted,
}

/// Runs the command.
///
/// # Errors
/// When it does not come to pass in time (status 124), or cannot.
pub(crate) fn run(global: &GlobalArgs, args: &WaitForArgs) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let default = match &mesh {
        Mesh::Local(_) => "default",
        Mesh::Cluster(cluster) => &cluster.default_namespace,
    };
    let object = named(&args.object, global.namespace.as_deref(), default)?;
    if matches!(mesh, Mesh::Cluster(_)) && !spread::is_told(object.kind) {
        return Err(Failure::new(format!(
            "of {} it is not known which proxies have them",
            kind::resource(object.kind)
        ))
        .hint("Policies, routes and entries can be waited for; `kubectl wait` waits for other objects.")
        .status(EXIT_USAGE));
    }
    let bound = Duration::from_secs(u64::try_from(args.timeout).unwrap_or(0));
    let stamp = match (&mesh, args.state) {
        (_, State::Deleted) | (Mesh::Local(_), _) => None,
        (Mesh::Cluster(cluster), _) => {
            let written = block_on(Server::new(cluster).read(&object))?.ok_or_else(|| absent(&object))?;
            if let Some(verdict) = refusal(&written) {
                return Err(Failure::new(format!("{} is not accepted: {verdict}", kind::display(&object)))
                    .hint("It is not in force until it is mended; `meshctl analyze` says more."));
            }
            Some(Stamp::of(&written))
        }
    };
    let stamp = stamp.unwrap_or_else(Stamp::any);
    let expectation = match args.state {
        State::Deleted => Expectation::Gone(object.clone()),
        State::Accepted => Expectation::Reaches(object.clone(), stamp, Goal::Accepted),
        State::Enforced => Expectation::Reaches(object.clone(), stamp, Goal::Enforced),
    };
    block_on(settle::wait(&mesh, &[expectation], bound))?;
    let state = match args.state {
        State::Accepted => "accepted",
        State::Enforced => "enforced",
        State::Deleted => "deleted",
    };
    Outcomes::new(args.output, false).add(&object, state);
    Ok(ExitCode::SUCCESS)
}

fn absent(object: &ObjectRef) -> Failure {
    Failure::new(format!(
        "{} {:?} not found in namespace {}",
        kind::resource(object.kind),
        object.name.as_str(),
        object.namespace
    ))
    .hint(format!("`meshctl get {} -A` lists what there is.", kind::resource(object.kind)))
}

/// The message of a condition `Accepted` that is false of the present generation.
fn refusal(object: &Value) -> Option<String> {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted")?;
    let seen = accepted.get("observedGeneration").and_then(Value::as_i64);
    let seen = seen.or_else(|| object.pointer("/status/observedGeneration").and_then(Value::as_i64));
    let is_present = match (generation, seen) {
        (Some(generation), Some(seen)) => seen >= generation,
        (None, _) | (_, None) => false,
    };
    (is_present && accepted["status"] == "False")
        .then(|| accepted["message"].as_str().unwrap_or("no reason is given").to_owned())
}

/// The object that arguments name.
fn named(words: &[String], namespace: Option<&str>, default: &str) -> Result<ObjectRef, Failure> {
    let usage = || Failure::new("name an object as KIND/NAME[.NAMESPACE]").status(EXIT_USAGE);
    let (kind, name) = match words {
        [kind, name] => (kind.as_str(), name.as_str()),
        [one] => one.split_once('/').ok_or_else(usage)?,
        _ => return Err(usage()),
    };
    let kind = kind::parse(kind).map_err(|error| {
        let hint = error.hint();
        Failure::from(error).hint(hint).status(EXIT_USAGE)
    })?;
    let (name, namespace) = match (namespace, name.rsplit_once('.')) {
        (Some(namespace), _) => (name, namespace),
        (None, Some((name, namespace))) => (name, namespace),
        (None, None) => (name, default),
    };
    let namespace = match kind {
        Kind::Namespace => name,
        _ => namespace,
    };
    Ok(ObjectRef {
        kind,
        namespace: input::namespace(namespace)?,
        name: ObjectName::parse(name).map_err(|error| Failure::from(error).status(EXIT_USAGE))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(words: &[&str], namespace: Option<&str>) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let object = named(&words, namespace, "default").expect("an object");
        format!("{} {}.{}", object.kind, object.name, object.namespace)
    }

    #[test]
    fn an_object_is_named_with_a_slash_or_in_two_words() {
        assert_eq!(of(&["ap/allow.web"], None), "AuthorizationPolicy allow.web");
        assert_eq!(of(&["virtualservice", "shop"], None), "VirtualService shop.default");
        assert_eq!(of(&["ap", "a.b"], Some("web")), "AuthorizationPolicy a.b.web");
        assert!(named(&["allow".to_owned()], None, "default").is_err());
    }

    #[test]
    fn only_a_verdict_on_the_present_generation_ends_the_wait() {
        let object = |seen: i64, status: &str| {
            json!({
                "metadata": {"generation": 2},
                "status": {"conditions": [
                    {"type": "Accepted", "status": status, "message": "spec.x: no", "observedGeneration": seen},
                ]},
            })
        };
        assert_eq!(refusal(&object(2, "False")).as_deref(), Some("spec.x: no"));
        assert_eq!(refusal(&object(1, "False")), None);
        assert_eq!(refusal(&object(2, "True")), None);
        assert_eq!(refusal(&json!({"metadata": {"generation": 2}})), None);
    }
}
