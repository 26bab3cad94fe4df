//! `meshctl why`: what the mesh says about one request, by which policy, rule and clause, and the smallest edit
//! that would change it.
//!
//! Of the running mesh it is what the called workload's own proxy has been sent, so it is what is enforced and
//! not what was written. With files it needs no mesh.

mod recorded;
mod request;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_api::admin::ProxyDump;
use mesh_api::model::{KeySets, MeshSettings, WorkloadPolicies};
use mesh_api::name::{Labels, Namespace, ServiceAccount};
use mesh_api::policy_test::{Request, Verdict};
use mesh_policy::judge::{Judge, Judgement, Policies};
use mesh_policy::remedy::{Case, Remedy, remedy};
use mesh_policy::select::Subject;
use serde::Serialize;
use serde_json::json;

use super::mesh::Mesh;
use super::objects::collected::Collected;
use super::policy::test::tree;
use super::{EXIT_USAGE, Failure, Outcome, block_on, target};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use request::{RequestArgs, Target};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// Id of a refusal, from the access log, `meshctl x denied` or the header x-mesh-decision.
    #[arg(value_name = "DECISION-ID", required_unless_present = "to", conflicts_with = "to")]
    decision: Option<String>,
    /// The workload that is called, and its (target) port.
    #[arg(long, value_name = "WORKLOAD.NAMESPACE:PORT", value_parser = Target::parse)]
    to: Option<Target>,
    /// Files and folders with policies and workloads; default: what is in force in the running mesh.
    #[arg(short, long = "filename", visible_alias = "file", value_name = "FILE", requires = "to")]
    files: Vec<PathBuf>,
    /// Labels of the workload, when the files do not say: NAME=VALUE.
    #[arg(long, value_name = "LABEL", value_delimiter = ',', value_parser = request::label, requires = "files")]
    labels: Vec<(String, String)>,
    /// The request.
    #[command(flatten)]
    request: RequestArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// The called workload with everything that judges what comes to it.
#[derive(Debug)]
struct Called {
    id: String,
    mesh: MeshSettings,
    namespace: Namespace,
    labels: Labels,
    service_account: ServiceAccount,
    policies: Policies,
}

impl Called {
    /// What a proxy was sent; `None` when it was sent nothing yet.
    fn of_dump(id: String, dump: ProxyDump) -> Option<Self> {
        let config = dump.config?;
        let WorkloadPolicies { authorization, peer, request, key_sets, .. } = dump.policy.policies;
        Some(Self {
            id,
            mesh: config.mesh,
            namespace: config.namespace,
            labels: config.labels,
            service_account: config.service_account,
            policies: Policies {
                authorization,
                peer_authentication: peer,
                request_authentication: request,
                key_sets,
            },
        })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { namespace: &self.namespace, labels: &self.labels, service_account: &self.service_account }
    }
}

/// Runs the command: exit status 0 when the request may pass or the decision is known, 1 when the request is
/// refused.
///
/// # Errors
/// When there is no such workload or decision, or its proxy does not answer: status 2, since 1 is an answer.
pub(crate) fn run(global: &GlobalArgs, args: &WhyArgs) -> Outcome {
    answer(global, args).map_err(Failure::unanswered)
}

fn answer(global: &GlobalArgs, args: &WhyArgs) -> Outcome {
    if let Some(id) = &args.decision {
        return recorded::run(global, id, args.output);
    }
    let Some(to) = &args.to else {
        return Err(Failure::new("name a request with --to, or a decision by its id").status(EXIT_USAGE));
    };
    let called = match args.files.is_empty() {
        true => of_mesh(global, to)?,
        false => of_files(global, args, to)?,
    };
    let request = args.request.build(global, to, &called.mesh.trust_domain)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs().cast_signed());
    let judgement = Judge::compile(&called.mesh, &called.subject(), &called.policies).explain(&request, now);
    let case = Case {
        mesh: &called.mesh,
        subject: called.subject(),
        policies: &called.policies,
        request: &request,
        now,
    };
    let remedy = remedy(&case, &judgement);
    match args.output {
        Format::Table => people(&called, &request, &judgement, &remedy),
        format => output::value(&Answer::of(&called, &judgement, &remedy), format),
    }
    Ok(match judgement.decision {
        Verdict::Allow => ExitCode::SUCCESS,
        Verdict::Deny => ExitCode::FAILURE,
    })
}

fn of_mesh(global: &GlobalArgs, to: &Target) -> Result<Called, Failure> {
    let mesh = Mesh::locate(global)?;
    let id = target::resolve(&mesh, &to.workload, global.namespace.as_deref())?;
    let dump: ProxyDump = block_on(async { Ok(mesh.proxy(&id, "/config_dump").await?) })?;
    Called::of_dump(id.clone(), dump).ok_or_else(|| {
        Failure::new(format!("the proxy of {id} has no configuration yet"))
            .hint("`meshctl proxy-status` says what it waits for.")
    })
}

fn of_files(global: &GlobalArgs, args: &WhyArgs, to: &Target) -> Result<Called, Failure> {
    let collected = Collected::of_files(&args.files)?;
    let (name, namespace) = to.name(global)?;
    let found = collected.workloads.iter().find(|workload| {
        workload.meta.object.name.as_str() == name && workload.meta.object.namespace == namespace
    });
    let (labels, service_account) = match (found, args.labels.is_empty()) {
        (Some(workload), true) => (workload.labels.clone(), workload.service_account.clone()),
        (found, false) => {
            let account =
                found.map_or_else(|| account(&name), |workload| Ok(workload.service_account.clone()));
            (args.labels.iter().cloned().collect(), account?)
        }
        (None, true) => return Err(unknown(&collected, &to.workload)),
    };
    let Collected { settings, authorization, peer, request, .. } = collected;
    Ok(Called {
        id: format!("{name}.{namespace}"),
        mesh: settings,
        namespace,
        labels,
        service_account,
        policies: Policies {
            authorization,
            peer_authentication: peer,
            request_authentication: request,
            key_sets: KeySets::default(),
        },
    })
}

fn account(name: &str) -> Result<ServiceAccount, Failure> {
    ServiceAccount::parse(name).map_err(|error| Failure::new(format!("{name:?}: {error}")).status(EXIT_USAGE))
}

fn unknown(collected: &Collected, wanted: &str) -> Failure {
    let known = collected.workloads.iter().map(|workload| &workload.meta.object);
    let known: Vec<String> = known.map(|object| format!("{}.{}", object.name, object.namespace)).collect();
    let failure = Failure::new(format!("the files speak of no workload {wanted}"));
    match known.is_empty() {
        true => failure.hint("State its labels, by which policies select it: --labels app=NAME."),
        false => failure.hint(format!(
            "They speak of {}. For another one, state its labels: --labels app=NAME.",
            known.join(", ")
        )),
    }
}

fn people(called: &Called, request: &Request, judgement: &Judgement, remedy: &Remedy) {
    let verdict = match (judgement.decision, judgement.status(request.protocol)) {
        (Verdict::Allow, _) => output::good("ALLOWED"),
        (Verdict::Deny, Some(status)) => output::bad(&format!("REFUSED with {status}")),
        (Verdict::Deny, None) => output::bad("REFUSED, the connection is closed"),
    };
    output::line(&format!("{verdict}  {}", request::told(request, &called.id)));
    output::line(&format!("  {}", judgement.reason));
    output::line(&format!("  mutual TLS of port {}: {}", request.port, judgement.mtls.as_str()));
    if let Some(path) = &judgement.policy_path
        && *path != request.http.path
    {
        output::line(&format!("  path as policies see it: {path}"));
    }
    if let Some(principal) = &judgement.request_principal {
        output::line(&format!("  request principal: {principal}"));
    }
    if let Some(explanation) = &judgement.explanation {
        output::line("");
        for line in tree::lines(explanation, judgement.rules_omitted) {
            output::line(&format!("  {line}"));
        }
    }
    remedies(judgement.decision, remedy);
}

/// What would change the verdict.
fn remedies(verdict: Verdict, remedy: &Remedy) {
    if remedy.edits.is_empty() && remedy.advice.is_empty() {
        return;
    }
    output::line("");
    output::line(&output::title(match verdict {
        Verdict::Allow => "The smallest edit that would refuse it:",
        Verdict::Deny => "What would let it pass:",
    }));
    for advice in &remedy.advice {
        output::line(&format!("  {advice}"));
    }
    for edit in &remedy.edits {
        output::line(&format!("  {edit}"));
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    to: &'a str,
    #[serde(flatten)]
    judgement: &'a Judgement,
    edits: Vec<serde_json::Value>,
    advice: &'a [String],
}

impl<'a> Answer<'a> {
    fn of(called: &'a Called, judgement: &'a Judgement, remedy: &'a Remedy) -> Self {
        let edits = remedy.edits.iter().map(|edit| {
            json!({"policy": edit.policy, "origin": edit.origin, "field": edit.field, "edit": edit.to_string()})
        });
        Self { to: &called.id, judgement, edits: edits.collect(), advice: &remedy.advice }
    }
}
