//! What one may type: global flags and the tree of commands. The flags of a command stand in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::{
    analyze, apply, bug_report, check, check_inject, complete, completion, confirm, delete, denied, describe,
    down, exec, get, inject, install, local_init, logs, manifest, policy, proxy_config, proxy_status, ps,
    restart, run, status, tag, uninstall, up, upgrade, validate, verify_install, version, wait, why, wire,
    x_authz,
};
use crate::local::state::Selection;

/// Runs and inspects a service mesh.
///
/// Exit status: 0 success; 1 failure, or the answer no; 2 `why` could not answer; 64 wrong usage; 65 configuration that is not valid; 79 `analyze`
/// found issues at its threshold; 124 what was waited for did not come in time. `exec` and `run` end with the status of the program that they ran.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    /// Which mesh, and how to print.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// State directory of the mesh; default: the mesh of the mesh.yaml here, else the only one that is up.
    #[arg(long, global = true, env = "MESH_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Name of the mesh, when several are up.
    #[arg(long, global = true, env = "MESH_NAME", value_name = "NAME")]
    pub(crate) mesh: Option<String>,
    /// Which kind of mesh is meant. Unless said: by the flags above a mesh on this machine; by --context,
    /// --kubeconfig or KUBECONFIG the cluster; else the mesh that is up here, and the cluster when none is.
    #[arg(
        id = "mesh_target",
        long = "target",
        global = true,
        env = "MESH_TARGET",
        value_enum,
        value_name = "WHERE"
    )]
    pub(crate) target: Option<Target>,
    /// Kubeconfig of the cluster; default: KUBECONFIG, else ~/.kube/config, else that of the pod.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; default: its current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace of the control plane in the cluster.
    #[arg(short = 'i', long, global = true, default_value = mesh_kube::name::SYSTEM_NAMESPACE, value_name = "NAMESPACE")]
    pub(crate) istio_namespace: String,
    /// Revision of the control plane in the cluster; default: all that there are.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) revision: Option<String>,
    /// Namespace of names that are given without one.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// When to use colours. NO_COLOR is honoured.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
}

/// A kind of mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// A mesh on this machine.
    Local,
    /// A mesh in a Kubernetes cluster.
    Cluster,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On terminals.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl GlobalArgs {
    /// Which mesh is meant.
    pub(crate) fn selection(&self) -> Selection {
        Selection { directory: self.state_dir.clone(), name: self.mesh.clone() }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a mesh on this machine
    Up(up::UpArgs),
    /// Stop the mesh and leave nothing behind
    Down(down::DownArgs),
    /// List the workloads of the mesh
    Ps(ps::PsArgs),
    /// Print logs of workloads, proxies and the control plane
    Logs(logs::LogsArgs),
    /// Run a program inside a workload's network, as that workload
    Exec(exec::ExecArgs),
    /// Add one more workload to the running mesh
    Run(run::RunArgs),
    /// Restart a workload, its proxy, or the control plane
    Restart(restart::RestartArgs),
    /// Health of the whole mesh on one page
    Status(status::StatusArgs),
    /// Whether a cluster can take the mesh, and whether the mesh is well
    Check(check::CheckArgs),
    /// Synchronisation of each proxy with the control plane
    #[command(visible_alias = "pstat")]
    ProxyStatus(proxy_status::ProxyStatusArgs),
    /// What a proxy has been told
    #[command(visible_alias = "pc", subcommand)]
    ProxyConfig(proxy_config::ProxyConfigCommand),
    /// Why a request is allowed or refused, and what would change that
    Why(why::WhyArgs),
    /// Check configuration, in files or in the running mesh
    Analyze(analyze::AnalyzeArgs),
    /// Check files and say whether the mesh would take them
    Validate(validate::ValidateArgs),
    /// What policies would do, before they do it
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Create or change objects from files
    Apply(apply::ApplyArgs),
    /// Show objects in force
    Get(get::GetArgs),
    /// Delete objects
    Delete(delete::DeleteArgs),
    /// Wait until an object is in force, or enforced by the proxies
    Wait(wait::WaitForArgs),
    /// Say that what disappeared from a configuration folder was meant to
    Confirm(confirm::ConfirmArgs),
    /// How configuration applies to a workload or service
    Describe(describe::DescribeArgs),
    /// Commands that look closer
    #[command(name = "x", visible_alias = "experimental", subcommand)]
    Experimental(ExperimentalCommand),
    /// Install the control plane into a cluster
    Install(install::InstallArgs),
    /// Upgrade an installation, with the values that it was made with
    Upgrade(upgrade::UpgradeArgs),
    /// Take the control plane out of a cluster
    Uninstall(uninstall::UninstallArgs),
    /// Whether everything of an installation is there and as installed
    VerifyInstall(verify_install::VerifyArgs),
    /// Names that point to a revision
    #[command(subcommand)]
    Tag(tag::TagCommand),
    /// What an installation in a cluster is made of
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Add the proxy to pods in files, as the cluster's webhook does
    #[command(visible_alias = "kube-inject")]
    Inject(Box<inject::InjectArgs>),
    /// Take the proxy out of pods in files
    Uninject(inject::UninjectArgs),
    /// One archive with what somebody else needs in order to help
    BugReport(bug_report::BugReportArgs),
    /// Versions of this program, the control plane and the proxies
    Version(version::VersionArgs),
    /// Print the completion script of a shell
    Completion(completion::CompletionArgs),
    /// What completion scripts ask.
    #[command(name = "__complete", hide = true)]
    Complete(complete::CompleteArgs),
    /// What the supervisor of a local mesh runs.
    #[command(flatten)]
    Local(local_init::LocalCommand),
}

/// `meshctl x …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ExperimentalCommand {
    /// Authorization policies of a workload
    #[command(subcommand)]
    Authz(x_authz::AuthzCommand),
    /// How configuration applies to a workload or service
    #[command(visible_alias = "desc")]
    Describe(describe::DescribeArgs),
    /// Whether a pod is given a proxy, by which webhook, and why or why not
    CheckInject(Box<check_inject::CheckInjectArgs>),
    /// Who was refused by a workload, and by which rule
    Denied(denied::DeniedArgs),
    /// Look at the packets of the mesh: is everything TLS?
    Wire(wire::WireArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Commands without `--output` for a document, and why.
    const WITHOUT: [(&str, &str); 8] = [
        ("bug-report", "its --output is the file of the report"),
        ("completion", "a script for a shell"),
        ("confirm", "does or fails; nothing is told but that"),
        ("down", "does or fails; nothing is told but that"),
        ("exec", "what is printed is the program's that it runs"),
        ("restart", "does or fails; nothing is told but that"),
        ("run", "what is printed is the program's that it runs"),
        ("up", "stays in the foreground and prints logs; `ps -o json` tells what runs"),
    ];

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, bool)>) {
        // What is hidden is for the program itself and for shells.
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name()).trim_start().to_owned();
            if sub.has_subcommands() {
                leaves(sub, &path, found);
                continue;
            }
            let output = sub.get_arguments().find(|arg| arg.get_long() == Some("output"));
            let is_json = output.is_some_and(|arg| {
                arg.get_short() == Some('o')
                    && arg.get_possible_values().iter().any(|value| value.matches("json", true))
            });
            found.push((path, is_json));
        }
    }

    #[test]
    fn every_command_that_prints_a_result_has_a_form_for_programs() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        let is_excepted = |path: &str| WITHOUT.iter().any(|(name, _)| *name == path);
        let wrong: Vec<&str> = found
            .iter()
            .filter(|(path, is_json)| *is_json == is_excepted(path))
            .map(|(path, _)| path.as_str())
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        for (name, _) in WITHOUT {
            assert!(found.iter().any(|(path, _)| path == name), "{name} is no command");
        }
    }
}
