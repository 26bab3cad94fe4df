//! `meshctl uninstall`: takes the control plane out of a cluster.

use std::process::ExitCode;

use serde_json::json;

use super::install::{self, ReportArgs, WhenAlone};
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::install::apply::ObjectChange;
use crate::install::installed;
use crate::install::removal::{self, Extent, Found};
use crate::output::{self, Format};

/// Flags. `--revision` says which one, when there are several.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// Take everything away: every revision, the authority, the definitions with all policies, the namespace.
    #[arg(long)]
    purge: bool,
    /// Ask nothing.
    #[arg(short = 'y', long = "skip-confirmation", visible_alias = "yes")]
    yes: bool,
    /// What to say.
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
///
/// # Errors
/// When several revisions are there and none is named, or the API server refuses something.
pub(crate) fn run(global: &GlobalArgs, args: &UninstallArgs) -> Outcome {
    let extent = if args.purge { Extent::Everything } else { Extent::Installation };
    if args.purge && global.revision.is_some() {
        return Err(Failure::new("--purge takes every revision away, so that --revision means nothing")
            .status(super::EXIT_USAGE));
    }
    let form = args.report.output;
    block_on(async {
        let cluster = install::connect(global).await?;
        let found = removal::look(&cluster).await?;
        let going = removal::meant(&found, global.revision.as_deref(), extent).map_err(|error| {
            Failure::from(error).hint("Name one with --revision, or take everything away with --purge.")
        })?;
        if going.is_empty() && extent == Extent::Installation {
            output::told("nothing is installed", form);
            print(&[], &[], form);
            return Ok(ExitCode::SUCCESS);
        }
        let is_last = found.revisions.iter().all(|revision| going.contains(revision));
        if is_last {
            warn(&found, extent);
        } else if let Some((tag, revision)) =
            installed::tags(&cluster).await?.into_iter().find(|(_, revision)| going.contains(revision))
        {
            // Pods of its namespaces would start without a proxy, and nobody would notice.
            return Err(Failure::new(format!("revision {revision} cannot go: tag {tag} points to it")).hint(format!(
                "`meshctl tag set {tag} --revision OTHER` moves it, `meshctl tag remove {tag}` removes it."
            )));
        }
        let names: Vec<&str> = going.iter().map(String::as_str).collect();
        let question = match extent {
            Extent::Installation => {
                format!("Uninstall revision {} from {}?", names.join(", "), cluster.server)
            }
            Extent::Everything => format!("Take everything of the mesh out of {}?", cluster.server),
        };
        if !args.yes && !install::confirmed(&question, WhenAlone::Refuse)? {
            return Err(Failure::new("nothing was changed"));
        }
        let gone = removal::remove(&cluster, &found, (&going, extent), form).await?;
        if is_last && extent == Extent::Installation {
            output::note("Authority and definitions stay; `meshctl uninstall --purge` takes them away too.");
        }
        print(&names, &gone, form);
        Ok(ExitCode::SUCCESS)
    })
}

/// What is gone, for programs: people were told on the way.
fn print(revisions: &[&str], gone: &[ObjectChange], form: Format) {
    if form != Format::Table {
        output::value(&json!({"revisions": revisions, "objects": gone}), form);
    }
}

/// Says what will stop to work, and what to do about it.
fn warn(found: &Found, extent: Extent) {
    if !found.meshed.is_empty() {
        let pods: usize = found.meshed.values().sum();
        output::note(&format!(
            "{} {} still proxies, which get no certificates any more and stop when theirs end:",
            output::doubtful("‼"),
            output::count(pods, "pod has", "pods have")
        ));
        for (namespace, number) in &found.meshed {
            output::note(&format!(
                "    {namespace}: {}; `kubectl -n {namespace} rollout restart deploy,sts,ds` afterwards",
                output::count(*number, "pod", "pods")
            ));
        }
    }
    for namespace in &found.labelled {
        output::note(&format!(
            "{} namespace {namespace} asks for injection; `kubectl label ns {namespace} istio-injection- istio.io/rev-` ends that",
            output::doubtful("‼")
        ));
    }
    if extent == Extent::Everything {
        for (definition, number) in found.objects.iter().filter(|(_, number)| **number > 0) {
            output::note(&format!(
                "{} {definition}: {} with it",
                output::bad("×"),
                output::count(*number, "object goes", "objects go")
            ));
        }
    }
}
