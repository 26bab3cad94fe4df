//! `meshctl policy suggest`: from what was recorded to policies that allow just that, ready to commit.
//!
//! The policies go to standard output and nothing else does, so that they can be written to a file; what a
//! person should know before applying them goes to standard error.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use mesh_api::model::{AuthorizationPolicy, Operation, Rule, Source};
use mesh_policy::suggest::{Manner, Suggested, Suggestion, Today, suggest};
use serde_json::{Map, Value, json};

use crate::args::GlobalArgs;
use crate::command::logs::access_logs;
use crate::command::mesh::{LocalMesh, Mesh};
use crate::command::objects::collected::Collected;
use crate::command::objects::input;
use crate::command::policy::traffic_log::Reading;
use crate::command::{Failure, Outcome, block_on, target};
use crate::output::{self, Format};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct SuggestArgs {
    /// Files and folders with the mesh's workloads and today's policies; default: the running mesh.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// JSON access logs of proxies, or - for standard input; default: those of the running mesh.
    #[arg(short, long, value_name = "LOG")]
    traffic: Vec<PathBuf>,
    /// Leave out the policies that deny the rest of each namespace.
    #[arg(long)]
    workloads_only: bool,
    /// So many path segments beside each other that lead to the same stay words; more become {*}.
    #[arg(long, value_name = "NUMBER", default_value_t = Manner::default().siblings_max)]
    siblings: usize,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// Policies, and remarks beside them.
    #[default]
    Yaml,
    /// Policies and remarks as one object.
    Json,
}

/// Runs the command.
///
/// # Errors
/// When files or logs cannot be read, or nothing was recorded.
pub(crate) fn run(global: &GlobalArgs, args: &SuggestArgs) -> Outcome {
    let today = match args.files.is_empty() {
        true => of_mesh(global)?,
        false => Collected::of_files(&args.files)?,
    };
    let mut reading = Reading::default();
    if args.traffic.is_empty()
        && let Mesh::Cluster(cluster) = Mesh::locate(global)?
    {
        for (name, text) in block_on(access_logs(&cluster, global.namespace.as_deref()))? {
            reading.read_text(&name, &text)?;
        }
    } else {
        for log in logs(global, args)? {
            reading.read(&log)?;
        }
    }
    let bad_lines = reading.bad_lines;
    let traffic = reading.traffic.records();
    if traffic.is_empty() {
        return Err(Failure::new("no request was recorded by the proxy that received it").hint(
            "Proxies write one JSON object a line when MeshConfig's accessLogEncoding is JSON; send the \
             traffic that shall be allowed, then ask again.",
        ));
    }
    let manner = Manner { siblings_max: args.siblings };
    let view = Today { mesh: &today.settings, workloads: &today.workloads, policies: &today.authorization };
    let suggestion = suggest(view, &traffic, manner);
    match args.output {
        Form::Yaml => yaml(&suggestion, args),
        Form::Json => output::value(&told(&suggestion, args, bad_lines), Format::Json),
    }
    Ok(ExitCode::SUCCESS)
}

fn of_mesh(global: &GlobalArgs) -> Result<Collected, Failure> {
    let mesh = Mesh::locate(global)?;
    let (registry, objects) = block_on(async { Ok((mesh.registry().await?, mesh.objects().await?)) })?;
    Ok(Collected::live(&objects, &input::context_of(&objects)).with_registry(registry))
}

/// The logs to read: those named, otherwise those of the running mesh's proxies.
fn logs(global: &GlobalArgs, args: &SuggestArgs) -> Result<Vec<PathBuf>, Failure> {
    if !args.traffic.is_empty() {
        return Ok(args.traffic.clone());
    }
    let mesh = LocalMesh::locate(global)?;
    let workloads = target::workloads(&mesh)?;
    let logs = workloads.iter().map(|id| mesh.directory.log(&format!("{id}.access")));
    Ok(logs.filter(|log| log.exists()).collect())
}

fn namespaces(suggestion: &Suggestion) -> BTreeSet<&str> {
    suggestion.policies.iter().map(|policy| policy.namespace.as_str()).collect()
}

fn yaml(suggestion: &Suggestion, args: &SuggestArgs) {
    let mut documents = Vec::new();
    if !args.workloads_only {
        for namespace in namespaces(suggestion) {
            let comment =
                format!("# Nothing in namespace {namespace} is allowed but what the policies below allow.\n");
            documents.push(comment + &text(&deny_the_rest(namespace)));
        }
    }
    for policy in &suggestion.policies {
        let mut comment = format!("# From {} recorded requests.\n", policy.records);
        for remark in &policy.remarks {
            comment.push_str(&format!("# {}\n", one_line(remark)));
        }
        documents.push(comment + &text(&manifest(policy)));
    }
    output::line(documents.join("---\n").trim_end());
    for remark in remarks(suggestion, args) {
        output::note(&remark);
    }
}

/// Text that clients chose, on one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn text(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
}

/// What a person should know before applying a suggestion.
fn remarks(suggestion: &Suggestion, args: &SuggestArgs) -> Vec<String> {
    let mut remarks = vec![format!(
        "{} recorded requests: {} allowed again{}, {} were refused and stay so",
        suggestion.allowed + suggestion.denied,
        suggestion.covered,
        match suggestion.untold {
            0 => String::new(),
            untold => format!(" and {untold} if headers and tokens are as today's rules demand"),
        },
        suggestion.denied
    )];
    let unknown: u64 = suggestion.unknown.values().sum();
    let missing = suggestion.allowed - suggestion.covered - suggestion.untold - unknown;
    if missing > 0 {
        remarks.push(output::bad(&format!(
            "{missing} that were allowed would be refused; the comments say why"
        )));
    }
    for (workload, count) in &suggestion.unknown {
        remarks.push(output::doubtful(&format!(
            "{count} were for {workload}, which is no workload that is known: nothing is suggested for it"
        )));
    }
    let spaces = namespaces(suggestion);
    let shut = suggestion.silent.iter().filter(|id| {
        id.rsplit_once('.').is_some_and(|(_, namespace)| spaces.contains(namespace)) && !args.workloads_only
    });
    for workload in shut {
        remarks.push(output::doubtful(&format!(
            "{workload} was called by nobody: everything to it would be refused"
        )));
    }
    for unused in &suggestion.unused {
        let meta = &unused.policy.meta;
        remarks.push(format!(
            "unused today: rule {} of AuthorizationPolicy {}/{} ({})",
            unused.rule, meta.object.namespace, meta.object.name, meta.origin
        ));
    }
    for policy in &suggestion.replaced {
        remarks.push(format!(
            "to be deleted with it, or it allows what it allows today: AuthorizationPolicy {} ({})",
            name_of(policy),
            policy.meta.origin
        ));
    }
    remarks
}

fn name_of(policy: &Arc<AuthorizationPolicy>) -> String {
    format!("{}/{}", policy.meta.object.namespace, policy.meta.object.name)
}

fn told(suggestion: &Suggestion, args: &SuggestArgs, bad_lines: usize) -> Value {
    let deny = match args.workloads_only {
        true => Vec::new(),
        false => namespaces(suggestion).into_iter().map(deny_the_rest).collect(),
    };
    let policies: Vec<Value> = deny.into_iter().chain(suggestion.policies.iter().map(manifest)).collect();
    let remarks: BTreeSet<&String> = suggestion.policies.iter().flat_map(|policy| &policy.remarks).collect();
    let unused = suggestion.unused.iter().map(|unused| {
        json!({"policy": name_of(&unused.policy), "rule": unused.rule, "origin": unused.policy.meta.origin.to_string()})
    });
    json!({
        "policies": policies,
        "allowed": suggestion.allowed,
        "covered": suggestion.covered,
        "untold": suggestion.untold,
        "denied": suggestion.denied,
        "badLines": bad_lines,
        "silent": suggestion.silent,
        "unknown": suggestion.unknown,
        "unused": unused.collect::<Vec<_>>(),
        "replaced": suggestion.replaced.iter().map(name_of).collect::<Vec<_>>(),
        "remarks": remarks,
    })
}

/// The policy that allows nothing, so that what no other allows is refused (SEMANTICS 6.3).
fn deny_the_rest(namespace: &str) -> Value {
    document(namespace, "allow-nothing", &json!({}))
}

fn manifest(policy: &Suggested) -> Value {
    let rules: Vec<Value> = policy.rules.iter().map(rule).collect();
    let mut spec = json!({"action": "ALLOW"});
    if !policy.selector.is_empty() {
        spec["selector"] = json!({"matchLabels": policy.selector.match_labels});
    }
    if !rules.is_empty() {
        spec["rules"] = Value::Array(rules);
    }
    document(policy.namespace.as_str(), &policy.name, &spec)
}

fn document(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

fn rule(rule: &Rule) -> Value {
    let lists = |fields: &[(&str, &Vec<String>)]| -> Value {
        let stated = fields.iter().filter(|(_, values)| !values.is_empty());
        Value::Object(stated.map(|(name, values)| ((*name).to_owned(), json!(values))).collect())
    };
    let from = |source: &Source| {
        let Source { principals, not_principals, request_principals, ip_blocks, .. } = source;
        let fields = [
            ("principals", principals),
            ("notPrincipals", not_principals),
            ("requestPrincipals", request_principals),
            ("ipBlocks", ip_blocks),
        ];
        json!({"source": lists(&fields)})
    };
    let to = |operation: &Operation| {
        let Operation { ports, methods, paths, .. } = operation;
        json!({"operation": lists(&[("ports", ports), ("methods", methods), ("paths", paths)])})
    };
    let mut value = Map::new();
    value.insert("from".to_owned(), rule.from.iter().map(from).collect());
    value.insert("to".to_owned(), rule.to.iter().map(to).collect());
    if !rule.when.is_empty() {
        let when = rule.when.iter().map(|condition| {
            let mut value = lists(&[("values", &condition.values), ("notValues", &condition.not_values)]);
            value["key"] = json!(condition.key);
            value
        });
        value.insert("when".to_owned(), when.collect());
    }
    Value::Object(value)
}
