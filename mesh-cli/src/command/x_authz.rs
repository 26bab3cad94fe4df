//! `meshctl x authz check`: the authorization policies in force in a workload's proxy, as that proxy says
//! itself.

use std::process::ExitCode;

use clap::Subcommand;
use mesh_api::admin::PolicyStatus;
use mesh_api::model::{Action, AuthorizationPolicy};

use super::mesh::Mesh;
use super::target;
use super::{Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};

/// `meshctl x authz …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthzCommand {
    /// List the authorization policies that a proxy enforces
    Check(CheckArgs),
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The workload: NAME.NAMESPACE.
    workload: String,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When there is no such workload or its proxy does not answer.
pub(crate) fn run(global: &GlobalArgs, command: &AuthzCommand) -> Outcome {
    let AuthzCommand::Check(args) = command;
    let mesh = Mesh::locate(global)?;
    let id = target::resolve(&mesh, &args.workload, global.namespace.as_deref())?;
    let policy: PolicyStatus = block_on(async { Ok(mesh.proxy(&id, "/policy").await?) })?;
    let policies = in_order(&policy);
    match args.output {
        Format::Table => table(&id, &policies),
        format => output::value(&policies, format),
    }
    Ok(ExitCode::SUCCESS)
}

/// DENY, ALLOW, LOG, CUSTOM, as istioctl lists them; then by name.
fn in_order(status: &PolicyStatus) -> Vec<&AuthorizationPolicy> {
    let mut policies: Vec<&AuthorizationPolicy> =
        status.policies.authorization.iter().map(AsRef::as_ref).collect();
    policies.sort_by_key(|policy| (rank(policy.action), name(policy)));
    policies
}

fn rank(action: Action) -> u8 {
    match action {
        Action::Deny => 0,
        Action::Allow => 1,
        Action::Audit => 2,
        Action::Custom => 3,
    }
}

/// The action as tables print it. istioctl calls AUDIT what Envoy makes of it: LOG.
pub(super) fn action(policy: &AuthorizationPolicy) -> String {
    let action = match policy.action {
        Action::Deny => "DENY",
        Action::Allow => "ALLOW",
        Action::Audit => "LOG",
        Action::Custom => "CUSTOM",
    };
    if policy.dry_run { format!("{action} (dry run)") } else { action.to_owned() }
}

fn name(policy: &AuthorizationPolicy) -> String {
    format!("{}.{}", policy.meta.object.name, policy.meta.object.namespace)
}

fn table(id: &str, policies: &[&AuthorizationPolicy]) {
    if policies.is_empty() {
        output::note(&format!("no authorization policy selects {id}: every request passes"));
        return;
    }
    let row =
        |policy: &&AuthorizationPolicy| vec![action(policy), name(policy), policy.rules.len().to_string()];
    let rows: Vec<Vec<String>> = policies.iter().map(row).collect();
    output::table(&["ACTION", "AuthorizationPolicy", "RULES"], &rows);
    let is_enforced = |policy: &&&AuthorizationPolicy| policy.action == Action::Allow && !policy.dry_run;
    let allowing: Vec<&&AuthorizationPolicy> = policies.iter().filter(is_enforced).collect();
    if !allowing.is_empty() && allowing.iter().all(|policy| policy.rules.is_empty()) {
        output::note("no ALLOW policy has a rule: every request is refused");
    }
}
